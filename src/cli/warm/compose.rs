//! The images of a compose file: those of all services, whatever profile they are in.

use serde_yaml::Value;

use super::{
    Found,
    substitute::{Lookup, substitute},
};

/// The images that `text` names; the error is what is wrong with it, and what to do.
pub(super) fn images(text: &str, lookup: Lookup<'_>) -> Result<Found, String> {
    let mut file: Value = serde_yaml::from_str(text)
        .map_err(|error| format!("it is no YAML ({error}); name a compose file"))?;
    file.apply_merge().map_err(|error| format!("{error}; correct the `<<` in it"))?;
    let services = file.get("services").and_then(Value::as_mapping).ok_or(
        "it has no services; name a compose file, or Kubernetes manifests with --kubernetes",
    )?;
    let mut found = Found::default();
    for (name, service) in services {
        let name = name.as_str().unwrap_or("?");
        match service.get("image").and_then(Value::as_str) {
            // What is built here is nowhere to be pulled.
            Some(image) if service.get("build").is_some() => {
                found.notes.push(format!("service {name} is built, so {image} is left out"));
            }
            Some(image) => {
                let image = substitute(image, lookup)
                    .map_err(|problem| format!("services.{name}.image: {problem}"))?;
                found.images.push(image);
            }
            None if service.get("build").is_some() => {}
            None => found.notes.push(format!("service {name} names no image of its own")),
        }
    }
    if file.get("include").is_some() {
        found.notes.push("include is not followed; name those files with --compose too".to_owned());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Result<Found, String> {
        images(text, &|name| (name == "TAG").then(|| "16".to_owned()))
    }

    #[test]
    fn all_services_count_with_their_variables_and_profiles() {
        let text = "
name: shop
x-common: &common
  image: redis:${REDIS:-7}
services:
  db:
    image: postgres:${TAG}
  cache:
    <<: *common
    profiles: [tools]
  web:
    build: .
    image: shop/web
  job:
    build: .
  odd:
    extends: { service: db }
include: [other.yaml]
";
        let found = found(text).unwrap();
        assert_eq!(found.images, ["postgres:16", "redis:7"]);
        let notes = found.notes.join("\n");
        for word in ["service web is built", "service odd names no image", "include"] {
            assert!(notes.contains(word), "{notes}");
        }
    }

    #[test]
    fn what_is_no_compose_file_is_told_of() {
        for (text, said) in [
            ("a: [", "no YAML"),
            ("kind: Pod", "no services"),
            ("", "no services"),
            ("services: [a]", "no services"),
            ("services: { a: { image: \"b:${X}\" } }", "services.a.image: X is not set"),
            ("a: 1\n---\nb: 2\n", "no YAML"),
        ] {
            let error = found(text).unwrap_err();
            assert!(error.contains(said) && error.contains("; "), "{text}: {error}");
        }
    }
}

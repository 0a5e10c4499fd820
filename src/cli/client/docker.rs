//! dockerd: `registry-mirrors`, which are for Docker Hub's images only.
//!
//! Its requests don't say which registry they are for, and a mirror's URL can't have a path, so
//! docker.io must be what Roadstead serves at the mirror's bare address.

use std::path::Path;

use super::json::{At, Json};
use super::plan::{File, Plan, Problem};
use super::reach::Reach;
use super::root::Root;
use super::survey::Mirror;

const DAEMON: &str = "/etc/docker/daemon.json";

pub(super) fn plan(reach: &Reach, root: &Root) -> Result<Plan, Problem> {
    let mut plan = Plan::default();
    let mirror = mirror(reach, &mut plan.notes);
    let others = others(reach);
    let places = others.iter().map(|(place, _)| place.clone());
    let hosts = Reach::authorities(mirror.iter().cloned().chain(places));
    let is_plain = reach.is_plain();
    let is_there = !root.read(Path::new(DAEMON))?.is_empty();
    if mirror.is_some() || is_plain || is_there {
        let mirror = mirror.map(|host| format!("{}://{host}", reach.base.scheme.as_str()));
        let hosts = hosts.clone();
        plan.files.push(File::new(DAEMON, move |text| {
            let json = Json::parse(text)?;
            if let Some(mirror) = &mirror {
                json.list("registry-mirrors", mirror, At::Start)?;
            }
            for host in &hosts {
                match is_plain {
                    true => json.list("insecure-registries", host, At::End)?,
                    // It was needed while the same address had no certificate.
                    false => json.unlist("insecure-registries", host),
                }
            }
            Ok(json.into_text())
        }));
        plan.then.push("systemctl reload docker".to_owned());
    }
    plan.files.extend(reach.authority_files("/etc/docker/certs.d", &hosts));
    plan.notes.extend(notes(reach, &others));
    Ok(plan)
}

/// The mirrors that its file names.
pub(super) fn mirrors(root: &Root) -> Result<Vec<Mirror>, Problem> {
    let path = Path::new(DAEMON);
    let json = Json::parse(&root.read(path)?).map_err(|what| Problem::about(path, what))?;
    let named = json.texts("registry-mirrors");
    Ok(named.iter().map(|url| Mirror::named(url)).collect())
}

/// The host at which everything is docker.io.
fn mirror(reach: &Reach, notes: &mut Vec<String>) -> Option<String> {
    let Some(hub) = reach.registries.iter().find(|it| it.registry == "docker.io") else {
        notes.push("docker.io is not among the upstreams: dockerd mirrors no other.".to_owned());
        return None;
    };
    if hub.is_default {
        return Some(reach.base.authority());
    }
    let Some(host) = hub.hosts.first() else {
        notes.push(
            "docker.io is not the first of the upstreams, and dockerd's requests name no registry: \
             put it first, or give it `hosts`."
                .to_owned(),
        );
        return None;
    };
    notes.push(format!("{host} is a host of docker.io's: it must lead to Roadstead."));
    Some(reach.with_host(host))
}

/// Where images of other registries are, and which.
fn others(reach: &Reach) -> Vec<(String, String)> {
    let others = reach.registries.iter().filter(|it| it.registry != "docker.io");
    others.filter_map(|it| Some((reach.by_name(it)?, it.registry.clone()))).collect()
}

fn notes(reach: &Reach, others: &[(String, String)]) -> Vec<String> {
    let mut notes = vec![
        "dockerd goes to Docker Hub silently where a mirror fails; Roadstead's own counters tell \
         whether it is used."
            .to_owned(),
        "It refuses to start if one of these keys is also one of its flags (--registry-mirror, \
         --insecure-registry)."
            .to_owned(),
    ];
    let others: Vec<_> = others
        .iter()
        .map(|(place, registry)| format!("docker pull {place}/… for {registry}/…"))
        .collect();
    if !others.is_empty() {
        notes.push(format!("Of other registries it has no mirrors: {}.", others.join(", ")));
    }
    if reach.login {
        notes.push(
            "access.htpasswd is set, and dockerd sends a mirror no login: it will be refused and \
             go to Docker Hub."
                .to_owned(),
        );
    }
    notes
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::{edited, reach, refused};
    use super::*;

    fn daemon(config: &str, address: &str, before: &str) -> String {
        edited(&plan(&reach(config, address), &Root::unseen()).unwrap(), DAEMON, before)
    }

    #[test]
    fn the_hub_is_mirrored_at_the_bare_address() {
        let text = daemon("", "http://10.0.0.5:5000", "");
        assert_eq!(
            text,
            "{\n  \"registry-mirrors\": [\"http://10.0.0.5:5000\"],\n  \
             \"insecure-registries\": [\"10.0.0.5:5000\"]\n}\n"
        );
        let tls: Value = serde_json::from_str(&daemon("", "https://mirror.corp", "")).unwrap();
        assert_eq!(tls, json!({ "registry-mirrors": ["https://mirror.corp"] }));
    }

    #[test]
    fn what_else_is_there_stays_as_it_is_written() {
        let before =
            "{\n\t\"log-level\":  \"warn\",\n\t\"registry-mirrors\": [\"https://old/\"]\n}\n";
        let text = daemon("", "http://10.0.0.5:5000", before);
        assert!(
            text.starts_with("{\n\t\"log-level\":  \"warn\",\n\t\"registry-mirrors\""),
            "{text}"
        );
        let value: Value = serde_json::from_str(&text).unwrap();
        let expected = json!({
            "log-level": "warn",
            "registry-mirrors": ["http://10.0.0.5:5000", "https://old/"],
            "insecure-registries": ["10.0.0.5:5000"],
        });
        assert_eq!(value, expected);
        assert_eq!(daemon("", "http://10.0.0.5:5000", &text), text);
        assert_eq!(daemon("", "https://old", before), before);
    }

    #[test]
    fn a_broken_file_is_refused() {
        let plan = plan(&reach("", "http://m:5000"), &Root::unseen()).unwrap();
        for (text, why) in [
            ("{", "is not JSON"),
            ("{ \"a\": 1, }", "is not JSON"),
            ("[]", "is not a JSON object"),
            ("{ \"registry-mirrors\": \"x\" }", "`registry-mirrors` is not a list"),
        ] {
            let said = refused(&plan, DAEMON, text);
            assert!(said.contains(why) && said.contains("; "), "{said}");
        }
    }

    #[test]
    fn a_hub_that_is_not_first_needs_a_host() {
        let hosts = "upstreams: [{ name: ghcr.io }, { name: docker.io, hosts: [hub.lan] }]";
        let value: Value = serde_json::from_str(&daemon(hosts, "https://m.lan:5443", "")).unwrap();
        assert_eq!(value, json!({ "registry-mirrors": ["https://hub.lan:5443"] }));
        let none = reach("upstreams: [{ name: ghcr.io }, { name: docker.io }]", "https://m.lan");
        let plan = plan(&none, &Root::unseen()).unwrap();
        assert!(plan.files.is_empty());
        assert!(plan.notes.iter().any(|note| note.contains("put it first")), "{:?}", plan.notes);
        assert!(plan.notes.iter().any(|note| note.contains("docker pull m.lan/ghcr.io/…")));
    }
    #[test]
    fn every_host_that_is_told_is_trusted_and_may_be_plain() {
        let hosts = "upstreams: [{ name: ghcr.io }, { name: docker.io, hosts: [hub.lan] }]";
        let value: Value = serde_json::from_str(&daemon(hosts, "http://m:5000", "")).unwrap();
        assert_eq!(value["registry-mirrors"], json!(["http://hub.lan:5000"]));
        assert_eq!(value["insecure-registries"], json!(["hub.lan:5000", "m:5000"]));
        let two = "upstreams: [{ name: docker.io }, { name: ghcr.io }]";
        let value: Value = serde_json::from_str(&daemon(two, "http://mirror", "")).unwrap();
        assert_eq!(value["insecure-registries"], json!(["mirror", "mirror:80"]));
        let mut reach = reach(hosts, "https://m.lan:5443");
        reach.ca = Some("PEM".to_owned());
        let plan = plan(&reach, &Root::unseen()).unwrap();
        for host in ["hub.lan:5443", "m.lan:5443"] {
            assert_eq!(
                edited(&plan, &format!("/etc/docker/certs.d/{host}/roadstead-ca.crt"), ""),
                "PEM"
            );
        }
    }

    #[test]
    fn with_a_certificate_no_host_of_ours_is_insecure() {
        let before = "{\n  \"insecure-registries\": [\"10.0.0.5:5000\", \"theirs:1\"]\n}\n";
        let value: Value =
            serde_json::from_str(&daemon("", "https://10.0.0.5:5000", before)).unwrap();
        assert_eq!(value["insecure-registries"], json!(["theirs:1"]));
    }
}

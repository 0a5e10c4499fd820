//! What an upstream is called.
//!
//! A name stands in paths (`/v2/NAME/…`), in `?ns=` and in metric labels, so it is lower case
//! and needs no escaping anywhere.

use super::base_url::BaseUrl;
use super::preset::Preset;
use super::problem::{Refusal, quoted};

/// The name in the file, which must be there; the refusal proposes one.
pub(super) fn read_name(raw: Option<String>, url: Option<&BaseUrl>) -> Result<String, Refusal> {
    match raw {
        Some(name) => parse_name(name),
        None => Err(Refusal::new(
            "is missing",
            match url {
                Some(url) => format!("write name: {}", name_of(url)),
                None => "write the registry's name, such as docker.io".to_owned(),
            },
        )),
    }
}

/// A name that a path can hold.
pub(super) fn parse_name(name: String) -> Result<String, Refusal> {
    let is_alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_plain = |c: char| is_alphanumeric(c) || matches!(c, '.' | '-' | '_' | ':');
    if name.starts_with(is_alphanumeric) && name.chars().all(is_plain) && name.len() <= 255 {
        return Ok(name);
    }
    Err(Refusal::new(
        format!("{} can't stand in a path", quoted(&name)),
        "use lower-case letters, digits and `.-_:`, starting with a letter or digit",
    ))
}

/// What a registry is called when nobody names it: its preset's name, or its authority.
pub(super) fn name_of(url: &BaseUrl) -> String {
    // Clients say `docker.io` for a registry at registry-1.docker.io, and `library/` hangs on it.
    Preset::at(url).map_or_else(|| url.authority(), |preset| preset.name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{only_upstream, refused};

    #[test]
    fn a_missing_name_is_refused_with_a_proposal() {
        assert_eq!(
            refused("upstreams: [{ url: https://registry.corp:5000 }]"),
            "test.yaml: upstreams[0].name: is missing; write name: registry.corp:5000"
        );
    }

    #[test]
    fn a_name_must_fit_a_path_segment() {
        for name in ["a/b", "Docker", "..", "a b", "a%2f", "-a", "", "_catalog", "[::1]:5000"] {
            let line = refused(&format!("upstreams: [{{ name: \"{name}\", url: https://a.io }}]"));
            assert!(
                line.contains("upstreams[0].name: ") && line.contains("can't stand in a path"),
                "{line}"
            );
        }
        only_upstream("upstreams: [{ name: \"localhost:5000\", url: \"http://localhost:5000\" }]");
    }
}

//! The image that is pulled to see whether a client comes through Roadstead.

use std::{fmt, str::FromStr};

use super::super::server::Admin;
use crate::{
    inventory::{Image as Cached, State},
    protocol::{Repository, Tag},
};

/// Small, and Docker's own.
const SMALLEST: &str = "docker.io/library/hello-world:latest";

/// A tag of a registry's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli::doctor) struct Image {
    pub(in crate::cli::doctor) registry: String,
    pub(in crate::cli::doctor) repository: String,
    pub(in crate::cli::doctor) tag: String,
}

// === impl Image ===

impl FromStr for Image {
    type Err = String;

    /// As clients read a name: what has no registry is Docker Hub's, what has no tag is `latest`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no tag; write one such as docker.io/library/alpine:3.20");
        let (registry, rest) = match text.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
                (first, rest)
            }
            _ => ("docker.io", text),
        };
        let (repository, tag) = rest.rsplit_once(':').unwrap_or((rest, "latest"));
        let repository = match registry == "docker.io" && !repository.contains('/') {
            true => format!("library/{repository}"),
            false => repository.to_owned(),
        };
        let is_host = registry.chars().all(|c| c.is_ascii_alphanumeric() || ".:-_[]".contains(c));
        let fits = Repository::parse(&repository).is_ok() && Tag::parse(tag).is_ok();
        match fits && is_host && !registry.starts_with('-') {
            true => Ok(Self { registry: registry.to_owned(), repository, tag: tag.to_owned() }),
            false => Err(wrong()),
        }
    }
}

impl fmt::Display for Image {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}:{}", self.registry, self.repository, self.tag)
    }
}

impl Image {
    /// The smallest one of Docker Hub's that is cached for this machine, which costs nothing; else
    /// the smallest that there is.
    pub(super) fn choose(admin: Option<&Admin>) -> Self {
        let page = admin.and_then(|admin| admin.images("docker.io/**").ok());
        let images = page.map(|page| page.images).unwrap_or_default();
        let fitting = images.iter().filter(|image| is_for_us(image));
        let smallest = fitting.min_by_key(|image| image.bytes);
        let cached = smallest.and_then(|image| image.reference.parse().ok());
        cached.unwrap_or_else(|| SMALLEST.parse().expect("a constant that is a tag"))
    }
}

fn is_for_us(image: &Cached) -> bool {
    let ours = format!("linux/{}", architecture());
    let is_ours = |it: &crate::inventory::Platform| {
        it.state == State::Complete && it.platform.as_ref().is_some_and(|it| it.starts_with(&ours))
    };
    image.upstream == "docker.io"
        && image.state == State::Complete
        && image.platforms.iter().any(is_ours)
}

/// As images name it.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_clients_read_them() {
        for (text, full) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("grafana/grafana:11", "docker.io/grafana/grafana:11"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("ghcr.io/a/b:c", "ghcr.io/a/b:c"),
        ] {
            assert_eq!(text.parse::<Image>().unwrap().to_string(), full);
        }
        for wrong in ["", "-x", "a b", "A", "x.io/", "--help/a.b", "a@sha256:0", "-.x/a"] {
            assert!(wrong.parse::<Image>().is_err(), "{wrong}");
        }
    }
}

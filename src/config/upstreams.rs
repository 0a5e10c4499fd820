//! The list of upstreams: from the file, or from `--upstream` flags.
//!
//! Never empty, the first is the default; names and hosts are unique over the whole list,
//! so that a request selects at most one.

use super::base_url::BaseUrl;
use super::name::{name_of, parse_name};
use super::preset::Preset;
use super::problem::{Refusal, Scope};
use super::proxy::Proxy;
use super::raw::RawUpstream;
use super::upstream::Upstream;

/// Docker Hub, which is what most are here for.
pub(super) fn docker_hub(scope: &Scope<'_>) -> Vec<Upstream> {
    let raw = RawUpstream { name: Some("docker.io".to_owned()), ..RawUpstream::default() };
    Upstream::read(scope, raw).into_iter().collect()
}

/// The file's list.
pub(super) fn read_all(scope: &Scope<'_>, raw: Option<Vec<RawUpstream>>) -> Vec<Upstream> {
    let Some(raw) = raw else {
        return docker_hub(scope);
    };
    if raw.is_empty() {
        scope.refuse("the list is empty", "add `- name: docker.io`, or leave the key out");
    }
    let mut list = Vec::new();
    for (index, raw) in raw.into_iter().enumerate() {
        let scope = scope.item(index);
        if let Some(upstream) = Upstream::read(&scope, raw) {
            refuse_duplicates(&scope, &list, &upstream);
            list.push(upstream);
        }
    }
    list
}

/// The flags' list, which replaces the file's; each is `[NAME=]URL`, or a preset's name.
pub(super) fn from_flags(scope: &Scope<'_>, flags: &[String]) -> Vec<Upstream> {
    let mut list: Vec<Upstream> = Vec::new();
    for flag in flags {
        let Some((name, url)) = scope.check(split_flag(flag)) else {
            continue;
        };
        if list.iter().any(|other| other.name == name) {
            scope.refuse(
                format!("two upstreams are named {name}"),
                "write NAME=URL with another name",
            );
        }
        let proxy = Proxy::read(scope, None);
        list.push(Upstream { proxy, ..Upstream::new(name, url) });
    }
    list
}

fn split_flag(flag: &str) -> Result<(String, BaseUrl), Refusal> {
    if let Some(preset) = Preset::named(flag) {
        return Ok((preset.name.to_owned(), preset.url.parse()?));
    }
    match flag.split_once('=') {
        Some((name, url)) if !name.contains('/') => {
            let name = parse_name(name.to_owned())?;
            Ok((name, url.parse()?))
        }
        _ => {
            let url: BaseUrl = flag.parse()?;
            let name = parse_name(name_of(&url)).map_err(|refusal| {
                Refusal::new(refusal.what, "write NAME=URL with a name for it")
            })?;
            Ok((name, url))
        }
    }
}

fn refuse_duplicates(scope: &Scope<'_>, earlier: &[Upstream], upstream: &Upstream) {
    if earlier.iter().any(|other| other.name == upstream.name) {
        scope.at("name").refuse(
            format!("{} is already the name of another upstream", upstream.name),
            "give each its own",
        );
    }
    for (index, host) in upstream.hosts.iter().enumerate() {
        let earlier_here = upstream.hosts.iter().take(index);
        let mut taken = earlier.iter().flat_map(|other| &other.hosts).chain(earlier_here);
        if taken.any(|other| other == host) {
            scope.at("hosts").item(index).refuse(
                format!("{host} is listed before"),
                "a host selects one upstream: keep it in one list",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{parsed, refused};
    use super::super::{Config, Overrides};

    fn flags(upstreams: &[&str]) -> Result<Config, super::super::ConfigError> {
        let upstreams = upstreams.iter().map(|flag| (*flag).to_owned()).collect();
        Config::default_with(&Overrides { upstreams, ..Overrides::default() })
    }

    fn names(config: &Config) -> Vec<(&str, String)> {
        config.upstreams.iter().map(|u| (u.name.as_str(), u.url.to_string())).collect()
    }

    #[test]
    fn docker_hub_is_the_upstream_of_those_who_name_none() {
        assert_eq!(names(&parsed("")), [("docker.io", "https://registry-1.docker.io".to_owned())]);
        assert!(
            refused("upstreams: []")
                .contains("upstreams: the list is empty; add `- name: docker.io`")
        );
    }

    #[test]
    fn names_are_unique() {
        assert_eq!(
            refused("upstreams: [{ name: ghcr.io }, { name: ghcr.io }]"),
            "test.yaml: upstreams[1].name: ghcr.io is already the name of another upstream; give each its own"
        );
    }

    #[test]
    fn hosts_are_unique_over_all_upstreams() {
        let line = refused(
            "upstreams: [{ name: ghcr.io, hosts: [m.corp] }, { name: quay.io, hosts: [a.corp, M.corp] }]",
        );
        assert_eq!(
            line,
            "test.yaml: upstreams[1].hosts[1]: m.corp is listed before; a host selects one upstream: keep it in one list"
        );
        assert!(
            refused("upstreams: [{ name: ghcr.io, hosts: [a, a] }]")
                .contains("upstreams[0].hosts[1]: a is listed before")
        );
        assert!(
            refused("upstreams: [{ name: ghcr.io, hosts: [\"https://a\"] }]")
                .contains("is not a host or host:port")
        );
    }

    #[test]
    fn a_flag_names_its_upstream_or_the_url_does() {
        let config = flags(&["corp=https://registry.corp", "http://localhost:5000/", "ghcr.io"])
            .expect("valid flags");
        assert_eq!(
            names(&config),
            [
                ("corp", "https://registry.corp".to_owned()),
                ("localhost:5000", "http://localhost:5000".to_owned()),
                ("ghcr.io", "https://ghcr.io".to_owned()),
            ]
        );
    }

    #[test]
    fn docker_hub_by_its_url_is_still_docker_hub() {
        let config = flags(&["https://registry-1.docker.io"]).expect("a valid flag");
        assert!(config.upstreams.iter().all(|u| u.is_docker_hub() && u.token_realms.len() == 1));
    }

    #[test]
    fn a_bad_flag_is_refused() {
        for (flag, what) in [
            ("registry.corp", "has no http or https scheme"),
            ("a/b=https://a.io", "has no http or https scheme"),
            ("A=https://a.io", "`A` can't stand in a path"),
            ("a=", "has no http or https scheme"),
            ("http://[::1]:5000", "can't stand in a path; write NAME=URL"),
            ("a=https://me:hunter2@a.io", "the URL has a user in it"),
        ] {
            let line = flags(&[flag]).expect_err("a bad flag").to_string();
            assert!(
                line.starts_with("command line: --upstream: ") && line.contains(what),
                "{line}"
            );
        }
        let twice =
            flags(&["a=https://a.io", "a=https://b.io"]).expect_err("a name twice").to_string();
        assert!(twice.contains("two upstreams are named a"), "{twice}");
    }
}

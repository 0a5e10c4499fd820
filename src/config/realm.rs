//! Token realms: who may see an upstream's credentials besides the registry's own site.
//!
//! A preset's realms hold only at the preset's own URL. A pinned realm is https, or plain HTTP
//! on this machine or on the very authority of a plain-HTTP upstream.

use url::Url;

use super::base_url::{BaseUrl, is_exposed, parse_http_url};
use super::preset::Preset;
use super::problem::{Refusal, Scope, quoted};

/// The listed realms, after those of the preset.
pub(super) fn read_realms(
    scope: &Scope<'_>,
    raw: Option<Vec<String>>,
    name: &str,
    url: &BaseUrl,
) -> Vec<Url> {
    let mut realms = preset_realms(name, url);
    for realm in scope.each(&raw.unwrap_or_default(), |text| parse_realm(text, url)) {
        if !realms.contains(&realm) {
            realms.push(realm);
        }
    }
    realms
}

/// What the preset of this name brings, if the URL is the preset's.
pub(super) fn preset_realms(name: &str, url: &BaseUrl) -> Vec<Url> {
    let preset = Preset::named(name).filter(|preset| preset.url == url.to_string());
    let realms = preset.map_or(&[][..], |preset| preset.token_realms);
    realms.iter().filter_map(|realm| Url::parse(realm).ok()).collect()
}

fn parse_realm(text: &str, upstream: &BaseUrl) -> Result<Url, Refusal> {
    let realm = parse_http_url(text)?;
    if realm.query().is_some() {
        return Err(Refusal::new(
            format!("{} has a query", quoted(text)),
            "write the realm up to the `?`",
        ));
    }
    if is_exposed(&realm, upstream) {
        return Err(Refusal::new(
            format!("credentials would go to {} in plain text", quoted(text)),
            "use https://",
        ));
    }
    Ok(realm)
}

#[cfg(test)]
mod tests {
    use super::super::Upstream;
    use super::super::testing::{only_upstream, refused};
    use super::*;

    fn realms(upstream: &Upstream) -> Vec<&str> {
        upstream.token_realms.iter().map(Url::as_str).collect()
    }

    #[test]
    fn a_preset_brings_its_realm() {
        let hub = only_upstream("upstreams: [{ name: docker.io }]");
        assert_eq!(realms(&hub), ["https://auth.docker.io/token"]);
        let lscr = only_upstream("upstreams: [{ name: lscr.io }]");
        assert_eq!(realms(&lscr), ["https://ghcr.io/token"]);
    }

    #[test]
    fn a_preset_s_realms_stay_with_its_own_url() {
        let elsewhere =
            only_upstream("upstreams: [{ name: docker.io, url: \"http://localhost:5000\" }]");
        assert!(elsewhere.token_realms.is_empty() && elsewhere.is_docker_hub());
        let more = only_upstream(
            "upstreams: [{ name: docker.io, token_realms: [https://sso.corp/token] }]",
        );
        assert_eq!(realms(&more), ["https://auth.docker.io/token", "https://sso.corp/token"]);
    }

    #[test]
    fn a_pinned_realm_is_https_or_the_plain_upstream_itself() {
        let with = |realm: &str| {
            format!(
                "upstreams: [{{ name: a, url: \"http://hub:5000\", token_realms: [\"{realm}\"] }}]"
            )
        };
        for realm in
            ["https://auth.corp/token", "http://hub:5000/token", "http://127.0.0.1:9/token"]
        {
            assert_eq!(realms(&only_upstream(&with(realm))), [realm]);
        }
        assert!(
            refused(&with("http://auth.corp/token"))
                .contains("upstreams[0].token_realms[0]: credentials would go to")
        );
        assert!(refused(&with("https://a.io/token?x=1")).contains("has a query"));
        assert!(refused(&with("auth.corp/token")).contains("has no http or https scheme"));
    }
}

//! The server that runs with this configuration, as its admin listener shows it.

use std::time::Duration;

use http::header;
use serde::{Deserialize, de::DeserializeOwned};
use ureq::{Agent, unversioned::transport::DefaultConnector};

use super::http::{Http, Reply, Trust, settings};
use crate::{
    cli::cache::{access::Trouble, login},
    config,
    inventory::{ImagePage, Server},
};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The admin listener of a server that may run.
#[derive(Clone)]
pub(super) struct Admin {
    base: String,
    /// How it is addressed, where `base` has the name of its certificate instead.
    host: Option<String>,
    http: Http,
    authorization: Option<String>,
}

/// An upstream's state there.
#[derive(Debug, Deserialize)]
pub(super) struct UpstreamState {
    pub(super) name: String,
    pub(super) offline: bool,
    pub(super) held_back: Option<String>,
    #[serde(default)]
    pub(super) mirrors: Vec<MirrorState>,
}

/// A mirror's state there.
#[derive(Debug, Deserialize)]
pub(super) struct MirrorState {
    pub(super) url: String,
    pub(super) held_back: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Upstreams {
    upstreams: Vec<UpstreamState>,
}

/// A page of `/metrics`, sample by sample.
#[derive(Debug, Clone, Default)]
pub(super) struct Metrics(Vec<(String, f64)>);

// === impl Admin ===

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Admin {
    /// At `base`, a URL without a path. It is known by the system's authorities.
    pub(super) fn at(base: impl ToString) -> Result<Self, String> {
        let base = base.to_string().trim_end_matches('/').to_owned();
        Self::over(base, None, Http::new(PATIENCE, Trust::System(None)))
    }

    /// The one that is configured; who we are is in the environment.
    pub(super) fn configured(admin: &config::Admin) -> Result<Self, String> {
        let told = |trouble: Trouble| trouble.to_string();
        let address = login::address(admin);
        let Some(tls) = &admin.tls else { return Self::at(format!("http://{address}")) };
        let base = format!("https://{}", login::name(tls, address).map_err(told)?);
        let settings = settings(PATIENCE).tls_config(login::tls(tls).map_err(told)?).build();
        let there = login::There(address);
        let agent = Agent::with_parts(settings, DefaultConnector::default(), there);
        Self::over(base, Some(address.to_string()), Http::over(agent))
    }

    fn over(base: String, host: Option<String>, http: Http) -> Result<Self, String> {
        let authorization = login::authorization().map_err(|trouble| trouble.to_string())?;
        Ok(Self { base, host, http, authorization })
    }

    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// Which server this is.
    pub(super) fn server(&self) -> Result<Server, String> {
        self.json("/api/v1/")
    }

    pub(super) fn upstreams(&self) -> Result<Vec<UpstreamState>, String> {
        self.json::<Upstreams>("/api/v1/upstreams").map(|answer| answer.upstreams)
    }

    /// Some cached images whose names fit a pattern.
    pub(super) fn images(&self, matching: &str) -> Result<ImagePage, String> {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("match", matching).append_pair("limit", "200");
        self.json(&format!("/api/v1/images?{}", query.finish()))
    }

    /// The status and sentence of `/readyz`.
    pub(super) fn readiness(&self) -> Result<(u16, String), String> {
        let reply = self.get("/readyz")?;
        Ok((reply.status, reply.text()))
    }

    pub(super) fn metrics(&self) -> Result<Metrics, String> {
        Ok(Metrics::parse(&self.text("/metrics")?))
    }

    fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        let text = self.text(path)?;
        serde_json::from_str(&text)
            .map_err(|_| "what answers there is no Roadstead of this version".to_owned())
    }

    fn text(&self, path: &str) -> Result<String, String> {
        let reply = self.get(path)?;
        match reply.status {
            200 => Ok(reply.text()),
            401 => Err(
                "it asks for a login: name its user in ROADSTEAD_ADMIN_USER, and the file with \
                        the password in ROADSTEAD_ADMIN_PASSWORD_FILE"
                    .to_owned(),
            ),
            status => Err(format!("it answers {status} to {path}")),
        }
    }

    fn get(&self, path: &str) -> Result<Reply, String> {
        let host = self.host.as_deref().map(|it| (header::HOST, it));
        let authorization = self.authorization.as_deref().map(|it| (header::AUTHORIZATION, it));
        let headers: Vec<_> = host.into_iter().chain(authorization).collect();
        self.http.get(&format!("{}{path}", self.base), &headers)
    }
}

// === impl Metrics ===

impl Metrics {
    fn parse(page: &str) -> Self {
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self(samples.collect())
    }

    /// The samples of one family, by their labels as they are written.
    pub(super) fn family(&self, name: &str) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().filter_map(move |(sample, value)| {
            let labels = sample.strip_prefix(name)?;
            (labels.is_empty() || labels.starts_with('{')).then_some((labels, *value))
        })
    }

    /// The sum of a family's samples that have all of these labels; `None` if there are none.
    pub(super) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut fitting = self.family(name).filter(|(sample, _)| {
            labels.iter().all(|(label, value)| has_label(sample, label, value))
        });
        let (_, first) = fitting.next()?;
        Some(fitting.fold(first, |sum, (_, value)| sum + value))
    }
}

fn has_label(sample: &str, label: &str, value: &str) -> bool {
    let wanted = format!("{label}=\"{value}\"");
    let sample = sample.trim_start_matches('{').trim_end_matches('}');
    sample.split(',').any(|pair| pair == wanted)
}

/// The value of a label.
pub(super) fn label<'a>(sample: &'a str, label: &str) -> Option<&'a str> {
    let (_, rest) = sample.split_once(&format!("{label}=\""))?;
    rest.split_once('"').map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_by_label() {
        let page = "# HELP a b\na{kind=\"manifest\",upstream=\"x\"} 2\na{kind=\"blob\",upstream=\"x\"} 3\n\
                    ab 7\na{kind=\"manifest\",upstream=\"y\"} 4\n";
        let metrics = Metrics::parse(page);
        assert_eq!(metrics.sum("a", &[("kind", "manifest")]), Some(6.0));
        assert_eq!(metrics.sum("a", &[("kind", "manifest"), ("upstream", "x")]), Some(2.0));
        assert_eq!(metrics.sum("a", &[("kind", "none")]), None);
        assert_eq!(metrics.sum("ab", &[]), Some(7.0));
        assert_eq!(label("{kind=\"manifest\",upstream=\"y\"}", "upstream"), Some("y"));
    }
}

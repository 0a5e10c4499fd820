//! Where spans are sent, if anywhere.

use std::path::{Path, PathBuf};

use http::{HeaderName, HeaderValue};
use url::Url;

use super::base_url::{is_loopback_host, parse_http_url};
use super::files::unopenable;
use super::problem::{Refusal, Scope, quoted};
use super::raw::{RawOtlp, RawTelemetry, Scalar};

/// What OTLP has below a collector's address for spans.
const TRACES: &str = "v1/traces";

/// What is told to others than the log and the metrics page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Telemetry {
    /// The collector of spans. Default: none.
    pub otlp: Option<Otlp>,
}

/// A collector that speaks OTLP over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Otlp {
    /// The address that spans are posted to, as it was written; see [`Otlp::traces`].
    pub endpoint: Url,
    /// Headers for the collector, such as its login, one on each line; read again for each delivery.
    pub headers_file: Option<PathBuf>,
    /// The share of requests that get spans, in percent, unless a trusted proxy says; 1 to 100.
    /// Default: 10.
    pub sample_percent: u8,
    /// Who tells. Default: `roadstead`.
    pub service_name: String,
}

// === impl Telemetry ===

impl Telemetry {
    pub(super) fn read(scope: &Scope<'_>, raw: RawTelemetry) -> Self {
        Self { otlp: raw.otlp.and_then(|raw| Otlp::read(&scope.at("otlp"), raw)) }
    }

    pub(super) fn to_raw(&self) -> Option<RawTelemetry> {
        let otlp = self.otlp.as_ref()?;
        Some(RawTelemetry { otlp: Some(otlp.to_raw()) })
    }
}

// === impl Otlp ===

impl Otlp {
    /// Where spans are posted to: a collector's own path, or OTLP's below it.
    pub fn traces(&self) -> Url {
        let path = self.endpoint.path().trim_end_matches('/');
        let mut url = self.endpoint.clone();
        if !path.ends_with(TRACES) {
            url.set_path(&format!("{path}/{TRACES}"));
        }
        url
    }

    fn read(scope: &Scope<'_>, raw: RawOtlp) -> Option<Self> {
        let endpoint = match &raw.endpoint {
            Some(text) => scope.at("endpoint").check(endpoint(text)),
            None => {
                scope.refuse("has no endpoint", "add one, such as http://127.0.0.1:4318");
                None
            }
        };
        let headers = scope.at("headers_file");
        let headers_file = headers.file(raw.headers_file);
        if let Some(path) = &headers_file {
            headers.check(read_headers(path).map(drop));
        }
        if let Some(url) = endpoint.as_ref().filter(|_| headers_file.is_some())
            && url.scheme() == "http"
            && !is_loopback_host(url.host_str().unwrap_or_default())
        {
            headers.refuse(
                "would be sent over plain http, where anybody on the way can read it",
                "use an https endpoint, or a collector on this machine",
            );
        }
        let percent = raw.sample_percent.as_ref();
        let sample_percent = scope.count("sample_percent", percent, 10, 1..=100);
        let service_name = raw.service_name.unwrap_or_else(|| "roadstead".to_owned());
        if service_name.trim().is_empty() {
            scope.at("service_name").refuse("is empty", "write a name, such as roadstead");
        }
        Some(Self { endpoint: endpoint?, headers_file, sample_percent, service_name })
    }

    fn to_raw(&self) -> RawOtlp {
        RawOtlp {
            endpoint: Some(self.endpoint.to_string()),
            headers_file: self.headers_file.as_ref().map(|path| path.display().to_string()),
            sample_percent: Scalar::print(self.sample_percent),
            service_name: Some(self.service_name.clone()),
        }
    }
}

fn endpoint(text: &str) -> Result<Url, Refusal> {
    if text.contains('@') {
        let remedy = "put the login into headers_file, as `Authorization: Basic …`";
        return Err(Refusal::new("the URL has a user in it", remedy));
    }
    let url = parse_http_url(text)?;
    if url.query().is_some() {
        return Err(Refusal::new(format!("{} has a query", quoted(text)), "remove it"));
    }
    Ok(url)
}

/// The headers of a file with a `Name: value` on each line; empty lines and those that begin with #
/// don't count. An error shows no value.
pub fn read_headers(path: &Path) -> Result<Vec<(HeaderName, HeaderValue)>, Refusal> {
    let text = std::fs::read_to_string(path).map_err(|error| unopenable(Some(path), &error))?;
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line.trim()));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        let name = name.trim().parse::<HeaderName>().ok()?;
        let mut value = value.trim().parse::<HeaderValue>().ok()?;
        value.set_sensitive(true);
        Some((name, value))
    };
    lines
        .map(|(number, line)| {
            header(line).ok_or_else(|| {
                let remedy = "write `Name: value`, such as `Authorization: Bearer …`";
                Refusal::new(format!("line {number} is no header"), remedy)
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{parsed, refused, scratch_file};
    use super::*;

    fn otlp(yaml: &str) -> Otlp {
        parsed(&format!("telemetry: {{ otlp: {{ {yaml} }} }}")).telemetry.otlp.unwrap()
    }

    #[test]
    fn nothing_is_sent_unless_a_collector_is_named() {
        assert_eq!(parsed("").telemetry.otlp, None);
        let otlp = otlp("endpoint: 'http://127.0.0.1:4318'");
        assert_eq!((otlp.sample_percent, &*otlp.service_name), (10, "roadstead"));
    }

    #[test]
    fn spans_go_below_the_endpoint() {
        let traces = |endpoint: &str| otlp(&format!("endpoint: '{endpoint}'")).traces().to_string();
        assert_eq!(traces("http://c:4318"), "http://c:4318/v1/traces");
        assert_eq!(traces("https://c/otlp/"), "https://c/otlp/v1/traces");
        assert_eq!(traces("https://c/v1/traces"), "https://c/v1/traces");
    }

    #[test]
    fn what_can_not_be_is_refused_with_its_remedy() {
        let refused = |yaml: &str| refused(&format!("telemetry: {{ otlp: {{ {yaml} }} }}"));
        assert!(refused("sample_percent: 5").contains("telemetry.otlp: has no endpoint; add one"));
        assert!(refused("endpoint: 'grpc://c:4317'").contains("telemetry.otlp.endpoint: "));
        let user = refused("endpoint: 'https://me:pw@c'");
        assert!(user.contains("headers_file") && !user.contains("pw@"), "{user}");
        let zero = refused("endpoint: 'http://c', sample_percent: 0");
        assert!(zero.contains("telemetry.otlp.sample_percent: `0`"), "{zero}");
    }

    #[test]
    fn headers_are_read_and_never_shown_nor_sent_in_the_clear() {
        let (_file, path) = scratch_file("# the login\nAuthorization: Bearer s3cret\n\nX-Org: 7\n");
        let headers = read_headers(Path::new(&path)).unwrap();
        assert_eq!(headers.len(), 2);
        assert!(!format!("{headers:?}").contains("s3cret"));
        otlp(&format!("endpoint: 'http://localhost:4318', headers_file: '{path}'"));
        let exposed = refused(&format!(
            "telemetry: {{ otlp: {{ endpoint: 'http://c:4318', headers_file: '{path}' }} }}"
        ));
        assert!(exposed.contains("telemetry.otlp.headers_file: would be sent over plain http"));
        let (_file, path) = scratch_file("X-Org: 7\ns3cret\n");
        let wrong = read_headers(Path::new(&path)).unwrap_err().to_string();
        assert!(wrong.starts_with("line 2 is no header; ") && !wrong.contains("s3cret"), "{wrong}");
    }
}

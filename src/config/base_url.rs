//! The address of a registry: scheme, host and port, and nothing else.
//!
//! A path, query or user in it is refused here, so that `upstream` may append `/v2/…`
//! and compare authorities without looking twice.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use url::{Host, Url};

use super::problem::{Refusal, quoted};

/// A registry's `http://` or `https://` address without path; prints as `https://host[:port]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BaseUrl {
    /// Whether TLS is spoken.
    pub scheme: Scheme,
    /// Lower-case name or IP address; an IPv6 address is without its brackets.
    pub host: String,
    /// The port written, or the scheme's own.
    pub port: u16,
}

/// The two schemes of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain; credentials only ever go over it to a loopback address.
    Http,
    /// HTTP over TLS.
    Https,
}

// === impl Scheme ===

impl Scheme {
    /// The port that the scheme implies (RFC 9110 §4.2).
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// `http` or `https`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

// === impl BaseUrl ===

impl BaseUrl {
    /// `host[:port]` as a `Host` header has it: IPv6 in brackets, the scheme's own port left out.
    pub fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match self.port == self.scheme.default_port() {
            true => host,
            false => format!("{host}:{}", self.port),
        }
    }

    /// Whether the host is this machine by name or number: nothing on the way can listen.
    pub fn is_loopback(&self) -> bool {
        is_loopback_host(&self.host)
    }
}

impl FromStr for BaseUrl {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let url = parse_http_url(text)?;
        let base = Self::from_url(&url).ok_or_else(|| not_a_url(text))?;
        let surplus = [("path", url.path() != "/"), ("query", url.query().is_some())];
        for (part, present) in surplus {
            if present {
                return Err(Refusal::new(
                    format!("{} has a {part}", quoted(text)),
                    format!("write {base}"),
                ));
            }
        }
        Ok(base)
    }
}

impl BaseUrl {
    /// Where a URL leads that is one of http or https.
    pub(crate) fn from_url(url: &Url) -> Option<Self> {
        let scheme = match url.scheme() {
            "http" => Scheme::Http,
            _ => Scheme::Https,
        };
        let host = match url.host()? {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        Some(Self { scheme, host, port: url.port_or_known_default()? })
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}://{}", self.scheme.as_str(), self.authority())
    }
}

/// `localhost`, a name under it (RFC 6761 §6.3), 127.0.0.0/8 or ::1.
pub(super) fn is_loopback_host(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
        || host == "::1"
}

/// An `http://` or `https://` URL without user and fragment.
///
/// The URL standard forgives much (`https:host`, backslashes, spaces); a configuration shouldn't.
pub(super) fn parse_http_url(text: &str) -> Result<Url, Refusal> {
    let lower = text.to_ascii_lowercase();
    if !lower.starts_with("https://") && !lower.starts_with("http://") {
        return Err(missing_scheme(text));
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\') {
        return Err(not_a_url(text));
    }
    let url = Url::parse(text).map_err(|_| not_a_url(text))?;
    if !url.username().is_empty() || url.password().is_some() || text.contains('@') {
        return Err(Refusal::new(
            "the URL has a user in it",
            "remove the part before `@`, and put the account under credentials.accounts",
        ));
    }
    if url.fragment().is_some() {
        return Err(Refusal::new(
            format!("{} has a fragment", quoted(text)),
            "remove `#` and what follows",
        ));
    }
    Ok(url)
}

/// `http` to a host that isn't this machine and isn't the plain-HTTP upstream itself.
pub(super) fn is_exposed(url: &Url, upstream: &BaseUrl) -> bool {
    let target = BaseUrl::from_url(url);
    target.is_none_or(|target| {
        target.scheme == Scheme::Http && !target.is_loopback() && target != *upstream
    })
}

/// `host` or `host:port`, in lower case, IPv6 in brackets.
pub(super) fn parse_authority(text: &str) -> Result<String, Refusal> {
    let refusal = || {
        Refusal::new(
            format!("{} is not a host or host:port", quoted(text)),
            "write it as registry.example.com or registry.example.com:5000",
        )
    };
    let lower = text.to_ascii_lowercase();
    let is_plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    if lower.is_empty() || lower.ends_with(':') || !lower.chars().all(is_plain) {
        return Err(refusal());
    }
    Url::parse(&format!("http://{lower}/")).map_err(|_| refusal())?;
    Ok(lower)
}

fn missing_scheme(text: &str) -> Refusal {
    Refusal::new(
        format!("{} has no http or https scheme", quoted(text)),
        "start it with https:// (or http://)",
    )
}

fn not_a_url(text: &str) -> Refusal {
    Refusal::new(
        format!("{} is not a URL", quoted(text)),
        "write it as https://registry.example.com",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(text: &str) -> BaseUrl {
        text.parse().expect("a valid base URL")
    }

    fn refusal(text: &str) -> String {
        text.parse::<BaseUrl>().expect_err("a bad base URL").to_string()
    }

    #[test]
    fn the_authority_leaves_out_the_scheme_s_own_port() {
        for (text, authority) in [
            ("https://Registry-1.docker.io", "registry-1.docker.io"),
            ("https://registry-1.docker.io:443/", "registry-1.docker.io"),
            ("http://localhost:5000", "localhost:5000"),
            ("http://[::1]:5000", "[::1]:5000"),
            ("https://a:80", "a:80"),
        ] {
            assert_eq!(base(text).authority(), authority);
        }
        assert_eq!(base("http://[::1]:80").host, "::1");
    }

    #[test]
    fn a_base_url_prints_as_it_parses() {
        for text in ["https://ghcr.io", "http://127.0.0.1:5000", "https://[2001:db8::1]:8443"] {
            assert_eq!(base(text).to_string(), text);
        }
    }

    #[test]
    fn all_but_scheme_host_and_port_is_refused() {
        assert_eq!(
            refusal("https://a.io/v2/"),
            "`https://a.io/v2/` has a path; write https://a.io"
        );
        assert_eq!(
            refusal("https://a.io/?x=1"),
            "`https://a.io/?x=1` has a query; write https://a.io"
        );
        assert!(refusal("https://a.io/#x").contains("has a fragment"));
        assert!(refusal("ftp://a.io").contains("no http or https scheme"));
        assert!(refusal("a.io:5000").contains("no http or https scheme"));
        for text in ["https://", "https://a b", "https://a\\b", "https://a:99999"] {
            assert!(refusal(text).contains("is not a URL"), "{text}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_not_repeated() {
        for text in ["https://user:hunter2@a.io", "user:hunter2@a.io", "https://user:hunter2@a b"] {
            assert!(!refusal(text).contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn loopback_is_known_by_name_and_number() {
        for (text, expected) in [
            ("http://localhost", true),
            ("http://hub.localhost", true),
            ("http://127.8.8.8", true),
            ("http://[::1]", true),
            ("http://10.0.0.1", false),
            ("http://localhost.example.com", false),
        ] {
            assert_eq!(base(text).is_loopback(), expected, "{text}");
        }
    }

    #[test]
    fn authorities_are_hosts_with_an_optional_port() {
        assert_eq!(parse_authority("Mirror.Corp:5000"), Ok("mirror.corp:5000".into()));
        assert_eq!(parse_authority("[::1]:80"), Ok("[::1]:80".into()));
        for text in ["", "https://a", "a/b", "a:", "a:x", "*.corp", "a b", "::1", "ü.de"] {
            assert!(parse_authority(text).is_err(), "{text}");
        }
    }
}

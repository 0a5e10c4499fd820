//! Who the client is, behind proxies that are trusted to say so, and which host it asked for.
//!
//! `Forwarded` (RFC 7239) or `X-Forwarded-For` is read from the right, hop by
//! hop, as long as the hop is trusted. Anybody else's word is ignored.

use std::net::IpAddr;

use async_trait::async_trait;
use http::{
    HeaderMap,
    header::{FORWARDED, HeaderName},
    request::Parts,
    uri::Authority,
};
use ipnet::IpNet;

use super::hops::{self, Element};
use super::{Context, Flow, Refusal, RequestFilter};

/// The filter.
#[derive(Debug)]
pub struct Forwarded {
    trusted: Vec<IpNet>,
}

/// The end of the hops that are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reached {
    client: IpAddr,
    /// How many of the header's elements were believed, counted from the right.
    hops: usize,
}

// === impl Forwarded ===

impl Forwarded {
    /// Believes proxies in `trusted`.
    pub fn new(trusted: Vec<IpNet>) -> Self {
        Self { trusted }
    }

    pub(super) fn is_trusted(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|net| net.contains(&address))
    }

    /// Whether a request says whom a proxy asks for.
    pub(super) fn has_hops(headers: &HeaderMap) -> bool {
        [&FORWARDED, &X_FORWARDED_FOR, &X_FORWARDED_HOST]
            .iter()
            .any(|name| headers.contains_key(*name))
    }

    /// The client behind `peer`, as one header's hops tell it: the rightmost that is not trusted, or
    /// else the first. `unknown` and names that hide an address (RFC 7239 §6.2 and §6.3) can't be
    /// held against `access.allow`, so they are refused where a trusted proxy says them.
    fn client(&self, peer: IpAddr, hops: &[Option<IpAddr>]) -> Result<Reached, Refusal> {
        let mut reached = Reached { client: peer, hops: 0 };
        for hop in hops.iter().rev() {
            if !self.is_trusted(reached.client) {
                break;
            }
            let unreadable =
                Refusal::Malformed("a trusted proxy names a client that is no address");
            reached.client = hop.ok_or(unreadable)?.to_canonical();
            reached.hops += 1;
        }
        Ok(reached)
    }

    /// A proxy writes one of the headers and passes the other as its client sent it. Which one it
    /// writes can't be seen; where both are there, they must agree.
    fn behind(&self, peer: IpAddr, told: &Told<'_>) -> Result<Reached, Refusal> {
        let usual: Vec<_> = told.addresses.iter().map(|text| hops::address(text)).collect();
        // A last element without `for` is a proxy's that says who it is, or over what it was asked.
        let names_clients = told.elements.last().is_some_and(Element::names_client);
        let standard = told.elements.iter().filter(|_| names_clients);
        let standard: Vec<_> = standard.map(Element::client).collect();
        if usual.is_empty() {
            return self.client(peer, &standard);
        }
        let reached = self.client(peer, &usual)?;
        if !standard.is_empty() && self.client(peer, &standard)?.client != reached.client {
            return Err(Refusal::Malformed("Forwarded and X-Forwarded-For name different clients"));
        }
        Ok(reached)
    }
}

/// What the headers say, each first to last.
struct Told<'a> {
    addresses: Vec<&'a [u8]>,
    hosts: Vec<&'a [u8]>,
    elements: Vec<Element<'a>>,
}

// === impl Told ===

impl<'a> Told<'a> {
    fn read(headers: &'a HeaderMap) -> Result<Self, Refusal> {
        let unbalanced = Refusal::Malformed("a quote in Forwarded is left open");
        Ok(Self {
            addresses: hops::list(headers, &X_FORWARDED_FOR),
            hosts: hops::list(headers, &X_FORWARDED_HOST),
            elements: hops::elements(headers).ok_or(unbalanced)?,
        })
    }

    /// The `Host` of the client's own request, as the outermost of the believed proxies wrote it. An
    /// element of `Forwarded` that names no client may be the client's own, so its host is not taken.
    fn host(&self, hops: usize) -> Option<Authority> {
        let outermost = |count: usize| count.saturating_sub(hops.max(1));
        if !self.hosts.is_empty() {
            let host = self.hosts.get(outermost(self.hosts.len())).copied();
            return host.and_then(|host| Authority::try_from(host).ok());
        }
        let element = self.elements.get(outermost(self.elements.len()))?;
        element.host().filter(|_| element.names_client())
    }
}

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

#[async_trait]
impl RequestFilter for Forwarded {
    fn name(&self) -> &'static str {
        "forwarded"
    }

    async fn filter(&self, request: &Parts, context: &mut Context) -> Result<Flow, Refusal> {
        if let Some(peer) = context.client.peer
            && self.is_trusted(peer)
        {
            let told = Told::read(&request.headers)?;
            let reached = self.behind(peer, &told)?;
            context.client.address = Some(reached.client);
            context.client.host = told.host(reached.hops);
        }
        Ok(Flow::Continue)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn client(trusted: &str, peer: &str, headers: &[(&'static str, &'static str)]) -> String {
        let bytes: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        address(read(trusted, peer, &bytes))
    }

    fn address(read: Result<crate::filter::Client, Refusal>) -> String {
        match read {
            Ok(client) => client.address.unwrap().to_string(),
            Err(refusal) => refusal.to_string(),
        }
    }

    fn read(
        trusted: &str,
        peer: &str,
        headers: &[(&'static str, &[u8])],
    ) -> Result<crate::filter::Client, Refusal> {
        let filter = Forwarded::new(trusted.split(',').map(|net| net.parse().unwrap()).collect());
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        let peer = peer.parse().unwrap();
        let request = http::Request::get("/v2/").body(()).unwrap();
        let (mut parts, ()) = request.into_parts();
        parts.headers = map;
        let mut context = Context::new(Some(peer));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(filter.filter(&parts, &mut context)).map(|_| context.client)
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_a_stranger_is_not() {
        let header = [("x-forwarded-for", "203.0.113.9")];
        assert_eq!(client("10.0.0.0/8", "10.0.0.1", &header), "203.0.113.9");
        assert_eq!(client("10.0.0.0/8", "192.0.2.1", &header), "192.0.2.1");
    }

    #[test]
    fn what_a_client_wrote_itself_lies_left_of_what_the_proxy_added() {
        let header = [("x-forwarded-for", "1.1.1.1, 203.0.113.9, 10.0.0.2")];
        assert_eq!(client("10.0.0.0/8", "10.0.0.1", &header), "203.0.113.9");
    }

    #[test]
    fn a_header_that_only_the_client_wrote_gains_nothing() {
        let header = [("forwarded", "for=10.9.9.9"), ("x-forwarded-for", "203.0.113.9")];
        assert!(client("10.0.0.0/8", "10.0.0.1", &header).contains("different clients"));
        let header = [("forwarded", "for=203.0.113.9"), ("x-forwarded-for", "203.0.113.9")];
        assert_eq!(client("10.0.0.0/8", "10.0.0.1", &header), "203.0.113.9");
    }

    #[test]
    fn the_standard_header_is_read_with_ports_and_brackets() {
        let header = [("forwarded", "for=192.0.2.60;proto=http, for=\"[2001:db8::1]:4711\"")];
        assert_eq!(client("10.0.0.0/8", "10.0.0.1", &header), "2001:db8::1");
        let header = [("forwarded", "for=unknown")];
        assert!(client("10.0.0.0/8", "10.0.0.1", &header).contains("no address"));
    }

    #[test]
    fn several_proxies_are_followed_to_the_first_address_that_is_not_theirs() {
        let trusted = "10.0.0.0/8,2001:db8:1::/48";
        for (header, expected) in [
            ("1.1.1.1, 203.0.113.9, 2001:db8:1::7, 10.0.0.2", "203.0.113.9"),
            ("203.0.113.9:4711, [2001:db8:1::7]:80, 10.0.0.2:80", "203.0.113.9"),
            ("1.1.1.1, [2001:db8:2::9], 10.0.0.2", "2001:db8:2::9"),
            ("::ffff:203.0.113.9, , 10.0.0.2,", "203.0.113.9"),
            // All of them are ours: the first of them asked.
            ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
            // What lies beyond the client is not looked at, whatever it is.
            ("unknown, \"x, 203.0.113.9", "203.0.113.9"),
        ] {
            assert_eq!(client(trusted, "10.0.0.1", &[("x-forwarded-for", header)]), expected);
        }
        let lines = [("x-forwarded-for", "203.0.113.9"), ("x-forwarded-for", "10.0.0.2")];
        assert_eq!(client(trusted, "10.0.0.1", &lines), "203.0.113.9");
    }

    #[test]
    fn what_hides_an_address_is_refused_from_a_proxy_and_ignored_from_a_client() {
        for hidden in
            ["for=_hidden", "for=unknown", "for=\"_gazonk\"", "for=\"[1.2.3.4]\"", "for=1.2.3.4:x"]
        {
            let said = client("10.0.0.0/8", "10.0.0.1", &[("forwarded", hidden)]);
            assert!(said.contains("no address"), "{hidden}: {said}");
            assert_eq!(client("10.0.0.0/8", "192.0.2.1", &[("forwarded", hidden)]), "192.0.2.1");
        }
        for (header, expected) in [
            ("for=_hidden, for=192.0.2.60", "192.0.2.60"),
            ("For=\"[2001:db8::1]:_port\";by=10.0.0.1", "2001:db8::1"),
            ("proto=https;for=\"192.0.2.60:_http\"", "192.0.2.60"),
        ] {
            assert_eq!(client("10.0.0.0/8", "10.0.0.1", &[("forwarded", header)]), expected);
        }
    }

    #[test]
    fn what_a_client_writes_hides_no_element_of_the_proxy_s() {
        for name in ["forwarded", "x-forwarded-for"] {
            for junk in [&b"\xff"[..], b"\xff=\xff;for=10.9.9.9", b"for=\xff", b",\xff"] {
                let for_it =
                    if name == "forwarded" { &b"for=203.0.113.9"[..] } else { b"203.0.113.9" };
                let line = [junk, b", ", for_it].concat();
                assert_eq!(
                    address(read("10.0.0.0/8", "10.0.0.1", &[(name, &line)])),
                    "203.0.113.9"
                );
                let said = address(read("10.0.0.0/8", "10.0.0.1", &[(name, junk)]));
                assert!(said.contains("no address"), "{name}: {said}");
            }
        }
        let headers = [("forwarded", &b"\xff"[..]), ("x-forwarded-for", b"203.0.113.9")];
        let said = address(read("10.0.0.0/8", "10.0.0.1", &headers));
        assert!(said.contains("no address"), "{said}");
    }

    #[test]
    fn a_host_that_a_proxy_repeats_in_quotes_forges_nothing() {
        for header in [
            "for=203.0.113.9;host=\"x, for=10.9.9.9;y=\";proto=https",
            "host=\"x;for=10.9.9.9;y=\";for=203.0.113.9",
            "host=\"x\\\", for=10.9.9.9\";for=203.0.113.9",
        ] {
            let header = [("forwarded", header)];
            assert_eq!(client("10.0.0.0/8", "10.0.0.1", &header), "203.0.113.9");
        }
        for (header, why) in [
            ("for=\"x, for=203.0.113.9", "left open"),
            ("for=\"x, for=203.0.113.9;host=\", for=10.9.9.9;y=\"", "left open"),
            ("for=203.0.113.9;host=\"x\\\"", "left open"),
            ("for=10.9.9.9;for=203.0.113.9", "no address"),
        ] {
            let said = client("10.0.0.0/8", "10.0.0.1", &[("forwarded", header)]);
            assert!(said.contains(why), "{header}: {said}");
            assert_eq!(client("10.0.0.0/8", "192.0.2.1", &[("forwarded", header)]), "192.0.2.1");
        }
    }

    #[test]
    fn a_forwarded_that_names_no_client_does_not_speak_against_the_other_header() {
        let headers = [("forwarded", "proto=https;host=m"), ("x-forwarded-for", "203.0.113.9")];
        assert_eq!(client("10.0.0.0/8", "10.0.0.1", &headers), "203.0.113.9");
    }

    #[test]
    fn the_host_is_the_one_that_the_outermost_trusted_proxy_was_asked_for() {
        let host = |peer, headers: &[(&'static str, &str)]| {
            let bytes: Vec<_> =
                headers.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
            read("10.0.0.0/8", peer, &bytes).unwrap().host.map(|host| host.to_string())
        };
        let forwarded_for = |hops| ("x-forwarded-for", hops);
        let one = [forwarded_for("203.0.113.9"), ("x-forwarded-host", "evil, mirror.corp:5000")];
        assert_eq!(host("10.0.0.1", &one).as_deref(), Some("mirror.corp:5000"));
        assert_eq!(host("192.0.2.1", &one), None);
        let two = [
            forwarded_for("203.0.113.9, 10.0.0.2"),
            ("x-forwarded-host", "evil, mirror.corp, inner"),
        ];
        assert_eq!(host("10.0.0.1", &two).as_deref(), Some("mirror.corp"));
        let standard = [("forwarded", "for=1.1.1.1;host=evil, for=203.0.113.9;host=\"m.corp:80\"")];
        assert_eq!(host("10.0.0.1", &standard).as_deref(), Some("m.corp:80"));
        assert_eq!(host("10.0.0.1", &[("x-forwarded-host", "a b")]), None);
        // Who writes X-Forwarded-For alone passes what its client says of the host.
        let not_its = [forwarded_for("203.0.113.9"), ("forwarded", "host=evil;proto=https")];
        assert_eq!(host("10.0.0.1", &not_its), None);
    }
}

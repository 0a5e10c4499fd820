//! Who the client is, behind proxies that are trusted to say so.
//!
//! `Forwarded` (RFC 7239) or `X-Forwarded-For` is read from the right, hop by
//! hop, as long as the hop is trusted. Anybody else's word is ignored.

use std::net::{IpAddr, SocketAddr};

use async_trait::async_trait;
use http::{HeaderMap, header, request::Parts};
use ipnet::IpNet;

use super::{Context, Flow, Refusal, RequestFilter};

/// The filter.
#[derive(Debug)]
pub struct Forwarded {
    trusted: Vec<IpNet>,
}

// === impl Forwarded ===

impl Forwarded {
    /// Believes proxies in `trusted`.
    pub fn new(trusted: Vec<IpNet>) -> Self {
        Self { trusted }
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|net| net.contains(&address))
    }

    /// The client behind `peer`, as one header's hops tell it.
    fn client(&self, peer: IpAddr, hops: &[Option<IpAddr>]) -> Result<IpAddr, Refusal> {
        let mut client = peer;
        for hop in hops.iter().rev() {
            if !self.is_trusted(client) {
                break;
            }
            let unreadable =
                Refusal::Malformed("a trusted proxy names a client that is no address");
            client = hop.ok_or(unreadable)?.to_canonical();
        }
        Ok(client)
    }

    /// A proxy writes one of the headers and passes the other as its client sent it. Which one it
    /// writes can't be seen; where both are there, they must agree.
    fn behind(&self, peer: IpAddr, headers: &HeaderMap) -> Result<IpAddr, Refusal> {
        let standard: Vec<_> = list(headers, &header::FORWARDED)
            .map(|element| element.and_then(forwarded_for))
            .collect();
        let usual: Vec<_> =
            list(headers, &X_FORWARDED_FOR).map(|hop| hop.and_then(address)).collect();
        if usual.is_empty() {
            return self.client(peer, &standard);
        }
        let client = self.client(peer, &usual)?;
        if !standard.is_empty() && self.client(peer, &standard)? != client {
            return Err(Refusal::Malformed("Forwarded and X-Forwarded-For name different clients"));
        }
        Ok(client)
    }
}

static X_FORWARDED_FOR: header::HeaderName = header::HeaderName::from_static("x-forwarded-for");

#[async_trait]
impl RequestFilter for Forwarded {
    fn name(&self) -> &'static str {
        "forwarded"
    }

    async fn filter(&self, request: &Parts, context: &mut Context) -> Result<Flow, Refusal> {
        if let Some(peer) = context.client.peer
            && self.is_trusted(peer)
        {
            context.client.address = Some(self.behind(peer, &request.headers)?);
        }
        Ok(Flow::Continue)
    }
}

/// The elements of a list header, first to last; `None` for a line that is not text.
fn list<'a>(
    headers: &'a HeaderMap,
    name: &header::HeaderName,
) -> impl Iterator<Item = Option<&'a str>> {
    headers.get_all(name).iter().flat_map(|value| match value.to_str() {
        Ok(line) => line.split(',').map(|element| Some(element.trim())).collect(),
        Err(_) => vec![None],
    })
}

fn forwarded_for(element: &str) -> Option<IpAddr> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        name.eq_ignore_ascii_case("for").then(|| address(value.trim_matches('"')))?
    })
}

/// An address, with or without port and brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(trusted: &str, peer: &str, headers: &[(&'static str, &'static str)]) -> String {
        let filter = Forwarded::new(trusted.split(',').map(|net| net.parse().unwrap()).collect());
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let peer = peer.parse().unwrap();
        let request = http::Request::get("/v2/").body(()).unwrap();
        let (mut parts, ()) = request.into_parts();
        parts.headers = map;
        let mut context = Context::new(Some(peer));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        match runtime.block_on(filter.filter(&parts, &mut context)) {
            Ok(_) => context.client.address.unwrap().to_string(),
            Err(refusal) => refusal.to_string(),
        }
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
}

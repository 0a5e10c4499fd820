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

    fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer;
        for hop in hops(headers).into_iter().rev() {
            // An unreadable hop ends what can be known: the last one that vouched is the client.
            let Some(hop) = hop.filter(|_| self.is_trusted(client)) else {
                return client;
            };
            client = hop.to_canonical();
        }
        client
    }
}

#[async_trait]
impl RequestFilter for Forwarded {
    fn name(&self) -> &'static str {
        "forwarded"
    }

    async fn filter(&self, request: &Parts, context: &mut Context) -> Result<Flow, Refusal> {
        if let Some(peer) = context.client.peer
            && self.is_trusted(peer)
        {
            context.client.address = Some(self.client(peer, &request.headers));
        }
        Ok(Flow::Continue)
    }
}

/// The hops that the headers name, first to last.
fn hops(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let forwarded = list(headers, &header::FORWARDED);
    if !forwarded.is_empty() {
        return forwarded
            .iter()
            .map(|element| forwarded_for(element))
            .collect();
    }
    let name = header::HeaderName::from_static("x-forwarded-for");
    list(headers, &name)
        .iter()
        .map(|hop| address(hop))
        .collect()
}

fn list<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Vec<&'a str> {
    let lines = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok());
    lines
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .collect()
}

fn forwarded_for(element: &str) -> Option<IpAddr> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        name.eq_ignore_ascii_case("for")
            .then(|| address(value.trim_matches('"')))?
    })
}

/// An address, with or without port and brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.parse()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
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
        if !filter.is_trusted(peer) {
            return peer.to_string();
        }
        filter.client(peer, &map).to_string()
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
    fn the_standard_header_is_read_with_ports_and_brackets() {
        let header = [(
            "forwarded",
            "for=192.0.2.60;proto=http, for=\"[2001:db8::1]:4711\"",
        )];
        assert_eq!(client("10.0.0.0/8", "10.0.0.1", &header), "2001:db8::1");
        let header = [("forwarded", "for=unknown")];
        assert_eq!(client("10.0.0.0/8", "10.0.0.1", &header), "10.0.0.1");
    }
}

//! Who may change something: programs, and pages of this very listener.
//!
//! On loopback the listener asks for no password, and a browser that knows one
//! sends it by itself, so that any web page which the operator has open can send
//! requests here. What keeps them out: a header of our own needs a preflight
//! before another site may send it, and no preflight is ever granted; `Origin`
//! and `Sec-Fetch-Site` say where a page is from; and a host name that somebody
//! points to this machine (DNS rebinding) is no address and not configured.

use std::net::IpAddr;

use http::{HeaderMap, Method, header, request::Parts};

use super::reply::Refused;

/// The header, and its value.
pub(super) const HEADER: (&str, &str) = ("x-roadstead", "1");

/// Whether a request asks for a change; no other method than these is answered.
pub(super) fn is_change(method: &Method) -> bool {
    [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(method)
}

/// Whether it asks for no change.
pub(super) fn is_read(method: &Method) -> bool {
    [Method::GET, Method::HEAD].contains(method)
}

/// Refuses a request that reaches us by a name that is none of `hosts`: whoever owns that name may
/// have pointed it here, and reads what his page is answered.
pub(super) fn check_host(head: &Parts, hosts: &[String]) -> Result<(), Refused> {
    let host = host_of(head);
    if is_address(host) || hosts.iter().any(|known| known.eq_ignore_ascii_case(bare(host))) {
        return Ok(());
    }
    Err(Refused::forbidden(format!(
        "{host:?} is not an address; reach the admin listener by its address or as localhost, or \
         list the name under admin.hosts"
    )))
}

/// Refuses a request for a change that may be another site's.
pub(super) fn check(head: &Parts, hosts: &[String]) -> Result<(), Refused> {
    let headers = &head.headers;
    if text(headers, HEADER.0) != Some(HEADER.1) {
        return Err(Refused::forbidden(
            "what changes something must carry the header `X-Roadstead: 1`; add it",
        ));
    }
    check_host(head, hosts)?;
    let host = host_of(head);
    let foreign = || {
        Refused::forbidden("another site's page may not change anything here; use the command line")
    };
    // `none`: the operator's own doing, such as an address typed in.
    match text(headers, "sec-fetch-site") {
        None | Some("same-origin" | "none") => {}
        Some(_) => return Err(foreign()),
    }
    match headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or_default()) {
        None => Ok(()),
        Some(origin) if is_at(origin, host) => Ok(()),
        Some(_) => Err(foreign()),
    }
}

fn host_of(head: &Parts) -> &str {
    let host = text(&head.headers, "host");
    host.or_else(|| head.uri.authority().map(|it| it.as_str())).unwrap_or_default()
}

/// Whether a page's origin has this host; TLS may be somebody else's, before us.
fn is_at(origin: &str, host: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| origin.strip_prefix(scheme) == Some(host))
}

/// A host without its port.
fn bare(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((bare, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => bare,
        _ => host,
    }
}

/// Whether a `Host` is an IP address or `localhost`, with or without a port.
fn is_address(host: &str) -> bool {
    let bare = bare(host);
    let unbracketed = bare.strip_prefix('[').and_then(|bare| bare.strip_suffix(']'));
    bare.eq_ignore_ascii_case("localhost") || unbracketed.unwrap_or(bare).parse::<IpAddr>().is_ok()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: (&str, &str) = ("host", "127.0.0.1:5001");

    fn passes(headers: &[(&str, &str)]) -> bool {
        let mut request = http::Request::post("/api/v1/purge");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let hosts = ["cache.corp".to_owned()];
        check(&request.body(()).unwrap().into_parts().0, &hosts).is_ok()
    }

    #[test]
    fn the_header_is_needed() {
        assert!(passes(&[HOST, HEADER]));
        assert!(!passes(&[HOST]));
        assert!(!passes(&[HOST, ("x-roadstead", "0")]));
    }

    #[test]
    fn pages_of_other_sites_are_refused_and_our_own_are_not() {
        for (headers, expected) in [
            ([("origin", "http://127.0.0.1:5001"), ("sec-fetch-site", "same-origin")], true),
            ([("origin", "http://127.0.0.1:5001"), ("sec-fetch-site", "none")], true),
            ([("origin", "http://evil.example"), ("sec-fetch-site", "cross-site")], false),
            ([("origin", "http://127.0.0.1:5001"), ("sec-fetch-site", "cross-site")], false),
            ([("origin", "http://127.0.0.1:8080"), ("sec-fetch-site", "same-site")], false),
            ([("origin", "https://127.0.0.1:5001"), ("sec-fetch-site", "same-origin")], true),
            ([("origin", "null"), ("sec-fetch-site", "none")], false),
        ] {
            let headers = [HOST, HEADER, headers[0], headers[1]];
            assert_eq!(passes(&headers), expected, "{headers:?}");
        }
    }

    #[test]
    fn a_name_that_points_here_is_refused() {
        for (host, expected) in [
            ("localhost:5001", true),
            ("127.0.0.1", true),
            ("[::1]:5001", true),
            ("[::1]", true),
            ("evil.example:5001", false),
            ("evil.example", false),
            ("cache.corp:5001", true),
            ("Cache.Corp", true),
            ("x.cache.corp", false),
            ("", false),
        ] {
            assert_eq!(passes(&[("host", host), HEADER]), expected, "{host}");
        }
    }
}

//! Who may change something: programs, and pages of this very listener.
//!
//! The listener is on loopback and asks for no password, so that any web page
//! which the operator's browser has open can send requests to it. What keeps
//! them out: a header of our own needs a preflight before another site may send
//! it, and no preflight is ever granted; `Origin` and `Sec-Fetch-Site` say where
//! a page is from; and a host name that somebody points to this machine (DNS
//! rebinding) is not an address.

use std::net::IpAddr;

use http::{HeaderMap, Method, header, request::Parts};

use super::reply::Refused;

/// The header, and its value.
pub(super) const HEADER: (&str, &str) = ("x-roadstead", "1");

/// Refuses a request that would change something and may be another site's.
pub(super) fn check(head: &Parts) -> Result<(), Refused> {
    // No other method is answered.
    let changes = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    if !changes.contains(&head.method) {
        return Ok(());
    }
    let headers = &head.headers;
    if text(headers, HEADER.0) != Some(HEADER.1) {
        return Err(Refused::forbidden(
            "what changes something must carry the header `X-Roadstead: 1`; add it",
        ));
    }
    let host = text(headers, "host").or_else(|| head.uri.authority().map(|it| it.as_str()));
    let host = host.unwrap_or_default();
    if !is_address(host) {
        return Err(Refused::forbidden(format!(
            "{host:?} is not an address; reach the admin listener by its address or as localhost"
        )));
    }
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
        Some(origin) if origin.strip_prefix("http://") == Some(host) => Ok(()),
        Some(_) => Err(foreign()),
    }
}

/// Whether a `Host` is an IP address or `localhost`, with or without a port.
fn is_address(host: &str) -> bool {
    let bare = match host.rsplit_once(':') {
        Some((bare, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => bare,
        _ => host,
    };
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
        check(&request.body(()).unwrap().into_parts().0).is_ok()
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
            ("", false),
        ] {
            assert_eq!(passes(&[("host", host), HEADER]), expected, "{host}");
        }
    }
}

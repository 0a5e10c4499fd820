//! What Pingora would forward and a registry's proxy must not.
//!
//! Ambiguous heads are how requests are smuggled past filters (RFC 9112 §11.2),
//! so they are refused before any filter reads them.

use http::{HeaderMap, Method, Version, header};
use pingora::proxy::Session;

/// The rule that a request breaks, if it breaks one.
pub(super) fn check(session: &Session) -> Result<(), &'static str> {
    let head = session.req_header();
    if let Some(h1) = session.as_downstream().as_http1() {
        check_raw(&h1.get_headers_raw_bytes())?;
    }
    // Pingora has encoded spaces and control characters by now; nothing that a registry serves has
    // one in its name.
    if head.raw_path().windows(3).any(is_encoded_control) {
        return Err("a space or control character in the target");
    }
    check_head(&head.method, head.uri.path(), head.version, &head.headers)
}

/// What parsing has already thrown away: line ends and framing headers.
fn check_raw(raw: &[u8]) -> Result<(), &'static str> {
    let mut before = 0;
    for byte in raw {
        match (before, *byte) {
            (b'\r', b'\n') => {}
            (_, b'\n') => return Err("a line ends without CR"),
            (b'\r', _) => return Err("a CR stands alone"),
            (_, 0) => return Err("a NUL in the head"),
            _ => {}
        }
        before = *byte;
    }
    let mut lines = raw.split(|byte| *byte == b'\n');
    let spaces = lines.next().unwrap_or_default().iter().filter(|byte| **byte == b' ').count();
    if spaces != 2 {
        return Err("a space in the target");
    }
    // Pingora drops Content-Length where both are there (RFC 9112 §6.1).
    let (mut length, mut encoding) = (0, 0);
    for line in lines {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        length += usize::from(name.eq_ignore_ascii_case(b"content-length"));
        encoding += usize::from(name.eq_ignore_ascii_case(b"transfer-encoding"));
    }
    match (length, encoding) {
        (0 | 1, 0) | (0, 1) => Ok(()),
        _ => Err("Content-Length or Transfer-Encoding more than once, or both"),
    }
}

fn check_head(
    method: &Method,
    path: &str,
    version: Version,
    headers: &HeaderMap,
) -> Result<(), &'static str> {
    let hosts = headers.get_all(header::HOST).iter().count();
    if hosts > 1 || (hosts == 0 && version == Version::HTTP_11) {
        return Err("there must be one Host header");
    }
    if path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err("a space or control character in the target");
    }
    if path.contains("%00") || path.split('/').any(is_dots) {
        return Err("'..' or NUL in the path");
    }
    if *method == Method::TRACE || *method == Method::CONNECT {
        return Err("the method is not one of a registry");
    }
    if headers.contains_key(header::UPGRADE) {
        return Err("there is nothing to upgrade to");
    }
    let has_body = headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    if has_body && (*method == Method::GET || *method == Method::HEAD) {
        return Err("a GET or HEAD with a body");
    }
    Ok(())
}

/// `%00` to `%20`, and `%7f`.
fn is_encoded_control(part: &[u8]) -> bool {
    matches!(part, [b'%', b'0' | b'1', _] | [b'%', b'2', b'0'] | [b'%', b'7', b'f' | b'F'])
}

/// `.` and `..`, encoded or not.
fn is_dots(part: &str) -> bool {
    let mut rest = part;
    let mut dots = 0;
    while let Some(next) = [".", "%2e", "%2E"].iter().find_map(|dot| rest.strip_prefix(dot)) {
        rest = next;
        dots += 1;
    }
    rest.is_empty() && matches!(dots, 1 | 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[u8] = b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";

    #[test]
    fn raw_heads_with_two_readings_are_refused() {
        assert_eq!(check_raw(GOOD), Ok(()));
        for raw in [
            b"GET /v2/ HTTP/1.1\nHost: x\r\n\r\n".as_slice(),
            b"GET /v2/ HTTP/1.1\r\nHost: x\rY: z\r\n\r\n",
            b"GET /v2/\0 HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /v2/ x HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /v2/ HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"GET /v2/ HTTP/1.1\r\nContent-Length: 1\r\ncontent-length: 1\r\n\r\n",
        ] {
            assert!(check_raw(raw).is_err(), "{}", String::from_utf8_lossy(raw));
        }
    }

    fn head(method: &str, path: &str, headers: &[(&'static str, &'static str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        check_head(&method.parse().unwrap(), path, Version::HTTP_11, &map).is_ok()
    }

    #[test]
    fn parsed_heads_that_no_registry_client_sends_are_refused() {
        let host = [("host", "x")];
        assert!(head("GET", "/v2/a/manifests/1..2", &host));
        assert!(head("GET", "/v2/a/blobs/sha256:00", &[("host", "x"), ("content-length", "0")]));
        assert!(!head("GET", "/v2/", &[]));
        assert!(!head("GET", "/v2/", &[("host", "x"), ("host", "y")]));
        assert!(!head("GET", "/v2/../etc", &host));
        assert!(!head("GET", "/v2/%2e%2E/etc", &host));
        assert!(!head("GET", "/v2/%00", &host));
        assert!(!head("TRACE", "/v2/", &host));
        assert!(!head("GET", "/v2/", &[("host", "x"), ("upgrade", "h2c")]));
        assert!(!head("GET", "/v2/", &[("host", "x"), ("content-length", "3")]));
        assert!(!head("HEAD", "/v2/", &[("host", "x"), ("transfer-encoding", "chunked")]));
        assert!(head("PUT", "/v2/", &[("host", "x"), ("content-length", "3")]));
    }
}

//! Access lines in Apache's combined format, for GoAccess and its like.
//!
//! What a client chose (path, user, referrer, agent) is escaped as Apache does it, so that no line
//! can be made to look like two, or its fields like others.

use std::{io::Write as _, time::SystemTime};

use super::{Line, number};
use crate::proxy::clock;

/// Writes `client - user [time] "request" status bytes "referrer" "agent"`.
pub(super) fn write(line: &Line<'_>, now: SystemTime, out: &mut Vec<u8>) {
    // A vector takes all that is written.
    match line.client {
        Some(client) => drop(write!(out, "{client} - ")),
        None => out.extend_from_slice(b"- - "),
    }
    match line.user {
        Some(user) if !user.is_empty() => escaped(out, user.as_bytes(), |byte| byte != b' '),
        _ => out.push(b'-'),
    }
    out.extend_from_slice(b" [");
    clock::apache_stamp(now, out);
    out.extend_from_slice(b"] \"");
    escaped(out, line.method.as_bytes(), |_| true);
    out.push(b' ');
    escaped(out, line.path.as_bytes(), |byte| byte != b' ');
    out.push(b' ');
    out.extend_from_slice(line.version.as_bytes());
    out.extend_from_slice(b"\" ");
    number(out, line.status.into());
    out.push(b' ');
    match line.bytes {
        0 => out.push(b'-'),
        bytes => number(out, bytes),
    }
    for text in [line.referer, line.agent] {
        out.extend_from_slice(b" \"");
        match text {
            b"" => out.push(b'-'),
            text => escaped(out, text, |_| true),
        }
        out.push(b'"');
    }
}

/// Printable ASCII as it is, as far as `is_plain` allows; quotes and backslashes behind a backslash,
/// everything else as `\xhh`.
fn escaped(out: &mut Vec<u8>, text: &[u8], is_plain: impl Fn(u8) -> bool) {
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b' '..=b'~' if is_plain(byte) => out.push(byte),
            _ => drop(write!(out, "\\x{byte:02x}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn written(line: &Line<'_>) -> String {
        let mut out = Vec::new();
        write(line, UNIX_EPOCH + Duration::from_secs(784_111_777), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_looks_as_apache_would_write_it() {
        let line = Line {
            client: Some([192, 0, 2, 1].into()),
            method: "GET",
            path: "/v2/library/alpine/manifests/latest",
            version: "HTTP/1.1",
            status: 200,
            bytes: 528,
            agent: b"docker/28.5",
            user: Some("ann"),
            ..Line::default()
        };
        assert_eq!(
            written(&line),
            "192.0.2.1 - ann [06/Nov/1994:08:49:37 +0000] \"GET /v2/library/alpine/manifests/latest HTTP/1.1\" 200 528 \"-\" \"docker/28.5\""
        );
    }

    #[test]
    fn nothing_that_a_client_sends_breaks_out_of_its_field() {
        let line = Line {
            method: "GET",
            path: "/v2/\"x y\n\u{e9}",
            version: "HTTP/1.1",
            status: 404,
            user: Some("a b]"),
            referer: b"\\\"",
            agent: b"\x1b[31m\" 200 0 \"-\" \"evil\xff",
            ..Line::default()
        };
        assert_eq!(
            written(&line),
            "- - a\\x20b] [06/Nov/1994:08:49:37 +0000] \"GET /v2/\\\"x\\x20y\\x0a\\xc3\\xa9 HTTP/1.1\" 404 - \"\\\\\\\"\" \"\\x1b[31m\\\" 200 0 \\\"-\\\" \\\"evil\\xff\""
        );
    }
}

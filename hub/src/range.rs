//! Blob answers and their `Range` (RFC 9110 §14): one range, whole body otherwise.

use bytes::Bytes;
use http::header::{ACCEPT_RANGES, CONTENT_RANGE, ETAG, IF_RANGE, RANGE};
use http::{HeaderMap, StatusCode};

use crate::answer::Answer;

/// What a `Range` header asks of a body.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Whole,
    /// From, and up to but without.
    Part(usize, usize),
    Unsatisfiable,
}

/// 200, 206 or 416 for this blob.
pub(crate) fn answer(blob: &Bytes, digest: &str, headers: &HeaderMap) -> Answer {
    let etag = format!("\"{digest}\"");
    let octets = "application/octet-stream";
    let answer = match wanted(headers, &etag, blob.len()) {
        Wanted::Whole => Answer::new(StatusCode::OK, octets, blob.clone()),
        Wanted::Part(from, to) => {
            let range = format!("bytes {from}-{}/{}", to - 1, blob.len());
            Answer::new(StatusCode::PARTIAL_CONTENT, octets, blob.slice(from..to))
                .with(CONTENT_RANGE, &range)
        }
        Wanted::Unsatisfiable => Answer::empty(StatusCode::RANGE_NOT_SATISFIABLE)
            .with(CONTENT_RANGE, &format!("bytes */{}", blob.len())),
    };
    answer.with(ACCEPT_RANGES, "bytes").with(ETAG, &etag)
}

fn wanted(headers: &HeaderMap, etag: &str, length: usize) -> Wanted {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if text(IF_RANGE).is_some_and(|validator| validator != etag) {
        return Wanted::Whole;
    }
    text(RANGE).map_or(Wanted::Whole, |range| parse(range, length))
}

/// A header that is malformed, or asks for several ranges, is as good as none (RFC 9110 §14.2).
fn parse(range: &str, length: usize) -> Wanted {
    let Some((from, to)) = range.strip_prefix("bytes=").and_then(|set| set.split_once('-')) else {
        return Wanted::Whole;
    };
    let part = match (from.parse::<usize>(), to.parse::<usize>()) {
        (Ok(from), Ok(to)) if from <= to => (from, length.min(to.saturating_add(1))),
        (Ok(from), Err(_)) if to.is_empty() => (from, length),
        (Err(_), Ok(suffix)) if from.is_empty() => (length.saturating_sub(suffix), length),
        _ => return Wanted::Whole,
    };
    if part.0 < part.1 { Wanted::Part(part.0, part.1) } else { Wanted::Unsatisfiable }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_range_is_read() {
        assert_eq!(parse("bytes=0-3", 10), Wanted::Part(0, 4));
        assert_eq!(parse("bytes=4-", 10), Wanted::Part(4, 10));
        assert_eq!(parse("bytes=-4", 10), Wanted::Part(6, 10));
        assert_eq!(parse("bytes=4-99", 10), Wanted::Part(4, 10));
        assert_eq!(parse("bytes=10-", 10), Wanted::Unsatisfiable);
        assert_eq!(parse("bytes=-0", 10), Wanted::Unsatisfiable);
    }

    #[test]
    fn what_is_not_one_range_is_ignored() {
        for range in ["bytes=0-1,3-4", "bytes=5-3", "items=0-1", "bytes=", "bytes=a-b"] {
            assert_eq!(parse(range, 10), Wanted::Whole, "{range}");
        }
    }
}

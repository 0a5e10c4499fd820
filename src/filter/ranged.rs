//! The part of a blob that a client asks for (RFC 9110 §14), as an answer.

use http::{HeaderValue, StatusCode, header, request::Parts};

use super::{Answer, Body};
use crate::{
    blob::{Feed, Stream},
    protocol::{
        Digest, Requested,
        conditional::if_range,
        multipart::Multipart,
        range::{content_range, content_range_unsatisfied, resolve},
    },
};

/// The media type of every blob: what it is, its manifest says.
pub(super) const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// The `Range` header, unless `If-Range` makes it void.
pub(super) fn range_header<'a>(request: &'a Parts, digest: &Digest) -> Option<&'a str> {
    let range = request.headers.get(header::RANGE)?.to_str().ok()?;
    match request.headers.get(header::IF_RANGE) {
        Some(value) => value.to_str().ok().filter(|value| if_range(value, digest)).map(|_| range),
        None => Some(range),
    }
}

/// Completes `answer`, which describes the blob, with the bytes that `wanted` asks for.
pub(super) fn ranged(
    wanted: Option<&str>,
    answer: Answer,
    feed: Feed,
    size: Option<u64>,
) -> Answer {
    let Some(size) = size else {
        return answer.with(header::CONTENT_TYPE, OCTETS).body(blob(Stream::whole(feed), None));
    };
    match resolve(wanted, size) {
        // An empty blob has no range that could be satisfied, and clients that always send
        // `bytes=0-` want it all the same.
        Requested::Unsatisfiable if size > 0 => unsatisfiable(answer, size),
        Requested::Whole | Requested::Unsatisfiable => whole(answer, feed, size),
        Requested::Single(range) => {
            let body = blob(Stream::range(feed, range), Some(range.len()));
            let answer = answer
                .with(header::CONTENT_TYPE, OCTETS)
                .with_text(header::CONTENT_RANGE, &content_range(range, size))
                .body(body);
            Answer { status: StatusCode::PARTIAL_CONTENT, ..answer }
        }
        Requested::Multiple(ranges) => {
            // Unlike anything in a blob that was chosen before us: 128 random bits.
            let boundary = format!("{:032x}", fastrand::u128(..));
            let multipart = Multipart::new(&boundary, "application/octet-stream", size);
            let length = multipart.content_length(&ranges);
            let stream = Stream::multipart(feed, &ranges, &multipart);
            let answer = answer
                .with_text(header::CONTENT_TYPE, &multipart.content_type())
                .body(blob(stream, Some(length)));
            Answer { status: StatusCode::PARTIAL_CONTENT, ..answer }
        }
    }
}

fn whole(answer: Answer, feed: Feed, size: u64) -> Answer {
    answer.with(header::CONTENT_TYPE, OCTETS).body(blob(Stream::whole(feed), Some(size)))
}

fn unsatisfiable(mut answer: Answer, size: u64) -> Answer {
    // It is about the range, not about the object.
    answer.headers.remove(header::CACHE_CONTROL);
    answer.headers.remove(header::ETAG);
    let status = StatusCode::RANGE_NOT_SATISFIABLE;
    let answer = answer.with_text(header::CONTENT_RANGE, &content_range_unsatisfied(size));
    Answer { status, ..answer }
}

fn blob(stream: Stream, length: Option<u64>) -> Body {
    Body::Blob(Box::new(stream), length)
}

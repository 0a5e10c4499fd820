//! The span of a request: whether it has one, and what it says in the end.

use std::{
    net::IpAddr,
    time::{Instant, SystemTime},
};

use http::request::Parts;

use super::log::Line;
use crate::{
    filter::Chain,
    trace::{self, Answered, Span},
};

/// A span for a request, if it is to have one. Only who is trusted to say who the client is may
/// say which trace it belongs to.
pub(super) fn begin(
    chain: &Chain,
    request: &Parts,
    peer: Option<IpAddr>,
    started: Instant,
) -> Option<Span> {
    if !trace::is_on() {
        return None;
    }
    let is_trusted = peer.is_some_and(|peer| chain.trusts(peer));
    trace::request(is_trusted.then_some(&request.headers), SystemTime::now() - started.elapsed())
}

/// What a span says of the request of an access line.
pub(super) fn of<'a>(line: &Line<'a>, method: &'static str, kind: &'static str) -> Answered<'a> {
    Answered {
        method,
        path: line.path,
        kind,
        upstream: line.upstream,
        status: line.status,
        bytes: line.bytes,
        cache: line.cache,
        is_counted: line.spent.is_some(),
    }
}

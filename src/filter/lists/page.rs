//! A page of a list of our own, as the distribution spec has it: `n`, `last`, and a `Link`.

use http::{HeaderName, HeaderValue, StatusCode, header, request::Parts};
use serde_json::Value;

use crate::{
    filter::{Answer, Body, parameter},
    protocol::cache_status::CacheStatus,
};

/// Names on a page where the client does not say.
const USUAL: usize = 100;

/// The most that it may say.
const MOST: usize = 1000;

/// The page that a client wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Behind this name; empty for the first page.
    pub(super) last: String,
    /// At most so many names.
    pub(super) count: usize,
}

/// A page.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) names: Vec<String>,
    /// More follow.
    has_next: bool,
    count: usize,
}

// === impl Wanted ===

impl Wanted {
    pub(super) fn of(query: Option<&str>) -> Self {
        let count = parameter(query, "n").and_then(|n| n.parse().ok()).unwrap_or(USUAL);
        Self { last: parameter(query, "last").unwrap_or_default(), count: count.min(MOST) }
    }
}

// === impl Page ===

impl Page {
    /// The page, of names that are one more than wanted if there are more.
    pub(super) fn cut(mut names: Vec<String>, wanted: &Wanted) -> Self {
        let has_next = names.len() > wanted.count;
        names.truncate(wanted.count);
        Self { names, has_next, count: wanted.count }
    }

    pub(super) fn answer(&self, request: &Parts, body: &Value, status: &CacheStatus) -> Answer {
        let answer = Answer::new(StatusCode::OK)
            .with(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .with_text(HeaderName::from_static("cache-status"), &status.to_string())
            .body(Body::Bytes(body.to_string().into()));
        match self.names.last() {
            Some(last) if self.has_next => {
                answer.with_text(header::LINK, &self.next(request, last))
            }
            _ => answer,
        }
    }

    fn next(&self, request: &Parts, last: &str) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("last", last).append_pair("n", &self.count.to_string());
        if let Some(namespace) = parameter(request.uri.query(), "ns") {
            query.append_pair("ns", &namespace);
        }
        format!("<{}?{}>; rel=\"next\"", request.uri.path(), query.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_where_the_next_one_is() {
        let wanted = Wanted::of(Some("n=2&last=a&ns=ghcr.io"));
        assert_eq!(wanted, Wanted { last: "a".to_owned(), count: 2 });
        let request = http::Request::get("/v2/x/tags/list?n=2&ns=ghcr.io").body(()).unwrap();
        let request = request.into_parts().0;
        let names = |all: &[&str]| all.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let page = Page::cut(names(&["b/c", "d", "e"]), &wanted);
        assert_eq!(page.names, ["b/c", "d"]);
        let answer = page.answer(&request, &Value::Null, &CacheStatus::hit());
        let link = "</v2/x/tags/list?last=d&n=2&ns=ghcr.io>; rel=\"next\"";
        assert_eq!(answer.headers[header::LINK], link);
        let last = Page::cut(names(&["b", "d"]), &wanted);
        let answer = last.answer(&request, &Value::Null, &CacheStatus::hit());
        assert!(!answer.headers.contains_key(header::LINK));
        assert_eq!(Wanted::of(Some("n=100000")).count, MOST);
        assert_eq!(Wanted::of(None).count, USUAL);
    }
}

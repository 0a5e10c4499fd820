//! Queries and links on their way up and back: `ns` is for us alone, `from` is named as upstream does.

use std::borrow::Cow;

use super::{Mount, Target};
use crate::protocol::encoded;

/// The query of a request as upstream is to get it; all that is not for us passes byte by byte, for
/// an upload's state is opaque.
pub fn query_there(query: Option<&str>, target: &Target) -> Option<String> {
    let mut kept = Vec::new();
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        match (&*name_of(pair), &target.mount) {
            ("ns", _) => {}
            ("from", Mount::Named(from)) => {
                kept.push(format!("from={}", target.upstream.name_there(from)));
            }
            // Without its source it is no mount, and begins an upload, as where a mount fails.
            ("from" | "mount", Mount::Elsewhere) => {}
            _ => kept.push(pair.to_owned()),
        }
    }
    (!kept.is_empty()).then(|| kept.join("&"))
}

/// The name of a parameter as upstream reads it.
fn name_of(pair: &str) -> Cow<'_, str> {
    let mut pairs = url::form_urlencoded::parse(pair.as_bytes());
    pairs.next().map(|(name, _)| name).unwrap_or_default()
}

/// Whether a query has more than one of a parameter: which of them upstream takes, nobody knows.
pub(super) fn is_given_twice(query: Option<&str>, name: &str) -> bool {
    let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs.filter(|(key, _)| key == name).count() > 1
}

/// The first value of a query's parameter, decoded.
pub fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// Upstream's `Link` to the next page, as a client of ours must follow it: on the path that it asked
/// for, with the query that upstream wants.
pub fn own_link(link: &str, asked: &http::Uri) -> Option<String> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let (_, query) = target.split_once('?')?;
    let namespace = parameter(asked.query(), "ns").map(|name| format!("&ns={}", encoded(&name)));
    Some(format!("<{}?{query}{}>{parameters}", asked.path(), namespace.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_back_to_us() {
        let asked = "/v2/ghcr.io/org/app/tags/list?n=2&ns=ghcr.io".parse().unwrap();
        let link = "<https://ghcr.io/v2/org/app/tags/list?n=2&last=b>; rel=\"next\"";
        assert_eq!(
            own_link(link, &asked).unwrap(),
            "</v2/ghcr.io/org/app/tags/list?n=2&last=b&ns=ghcr.io>; rel=\"next\""
        );
        assert_eq!(own_link("nonsense", &asked), None);
        let asked = "/v2/app/tags/list?ns=a%26last=%3E%0A".parse().unwrap();
        let own = own_link("</v2/app/tags/list?last=b>", &asked).unwrap();
        assert_eq!(own, "</v2/app/tags/list?last=b&ns=a%26last%3D%3E%0A>");
    }

    #[test]
    fn a_parameter_is_known_however_it_is_written() {
        assert_eq!(name_of("%66rom=a"), "from");
        assert_eq!(name_of("mount"), "mount");
        assert_eq!(name_of("=a"), "");
        assert!(is_given_twice(Some("from=a&fro%6d=b"), "from"));
        assert!(!is_given_twice(Some("from=a&mount=b"), "from"));
    }
}

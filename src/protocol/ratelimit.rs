//! An upstream's budget: `RateLimit-*` as Docker Hub sends them, and `Retry-After`.
//!
//! Values that cannot be read count as not sent, and no duration is so long that adding it to a
//! clock could overflow. Keeping the account is left to `upstream/budget`.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::RETRY_AFTER;

use super::list::trim_ows;

/// The budget that an upstream reported in one answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// How many requests a window allows.
    pub limit: Option<u64>,
    /// How many of them are left.
    pub remaining: Option<u64>,
    /// How long a window is.
    pub window: Option<Duration>,
    /// Whom upstream charges: an address or an account id (`Docker-RateLimit-Source`).
    pub source: Option<String>,
}

/// The longest window believed.
const MAX_WINDOW: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// The longest wait believed from a `Retry-After`; a longer one is cut to this.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

// === impl RateLimit ===

impl RateLimit {
    /// Reads `ratelimit-limit: 100;w=21600`, `ratelimit-remaining: 20;w=21600` and
    /// `docker-ratelimit-source` (Docker's documentation, "Docker Hub pull usage and limits");
    /// `None` if neither a limit nor a remainder can be read.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let (limit, limit_window) = quota(headers, "ratelimit-limit");
        let (remaining, remaining_window) = quota(headers, "ratelimit-remaining");
        if limit.is_none() && remaining.is_none() {
            return None;
        }
        let source = text(headers, "docker-ratelimit-source").filter(|source| !source.is_empty());
        Some(Self {
            limit,
            remaining,
            window: limit_window.or(remaining_window),
            source: source.map(str::to_owned),
        })
    }
}

/// How long a 429 or 503 asks us to wait from `now` (RFC 9110 §10.2.3): seconds, or a date, which
/// is no wait at all once it has passed. At most [`MAX_RETRY_AFTER`].
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = text(headers, RETRY_AFTER.as_str())?;
    let wait = if is_digits(value) {
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let date = httpdate::parse_http_date(value).ok()?;
        date.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

fn quota(headers: &HeaderMap, name: &str) -> (Option<u64>, Option<Duration>) {
    text(headers, name).map(parse_quota).unwrap_or_default()
}

/// `100;w=21600`; of a list, the first. Docker Hub also sends `;w=21600`, a window without a
/// number.
fn parse_quota(value: &str) -> (Option<u64>, Option<Duration>) {
    let first = value.split(',').next().unwrap_or_default();
    let mut parts = first.split(';').map(trim_ows);
    let count = parts.next().and_then(number);
    // A window without a length is none.
    let window = parts.find_map(|part| {
        let (key, seconds) = part.split_once('=')?;
        trim_ows(key).eq_ignore_ascii_case("w").then(|| number(trim_ows(seconds))).flatten()
    });
    let window = window.filter(|seconds| *seconds > 0);
    (count, window.map(|seconds| Duration::from_secs(seconds).min(MAX_WINDOW)))
}

fn number(text: &str) -> Option<u64> {
    is_digits(text).then(|| text.parse().ok()).flatten()
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(trim_ows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let value = |text: &str| HeaderValue::from_str(text).expect("a legal value");
        pairs
            .iter()
            .map(|&(name, text)| (http::HeaderName::from_static(name), value(text)))
            .collect()
    }

    fn wait(value: &str) -> Option<Duration> {
        // Sun, 06 Nov 1994 08:49:37 GMT
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        retry_after(&headers(&[("retry-after", value)]), now)
    }

    #[test]
    fn docker_hubs_headers_are_read() {
        let headers = headers(&[
            ("ratelimit-limit", "100;w=21600"),
            ("ratelimit-remaining", "20;w=21600"),
            ("docker-ratelimit-source", "192.0.2.7"),
        ]);
        let expected = RateLimit {
            limit: Some(100),
            remaining: Some(20),
            window: Some(Duration::from_secs(21_600)),
            source: Some("192.0.2.7".to_owned()),
        };
        assert_eq!(RateLimit::from_headers(&headers), Some(expected));
    }

    #[test]
    fn a_window_without_a_number_is_no_limit() {
        assert_eq!(RateLimit::from_headers(&headers(&[("ratelimit-limit", ";w=21600")])), None);
        assert_eq!(parse_quota(";w=21600"), (None, Some(Duration::from_secs(21_600))));
        assert_eq!(RateLimit::from_headers(&HeaderMap::new()), None);
    }

    #[test]
    fn a_number_without_a_window_is_enough() {
        let lone = RateLimit::from_headers(&headers(&[("ratelimit-remaining", " 7 ")]));
        assert_eq!(lone, Some(RateLimit { remaining: Some(7), ..RateLimit::default() }));
    }

    #[test]
    fn odd_spellings_are_tolerated_and_nonsense_is_not_sent() {
        assert_eq!(parse_quota("5 ; W = 60, 9;w=1"), (Some(5), Some(Duration::from_secs(60))));
        for value in ["", "-1", "+1", "1.5", "abc", "99999999999999999999", ";;;"] {
            assert_eq!(parse_quota(value), (None, None), "{value:?}");
        }
        assert_eq!(parse_quota("1;w=18446744073709551615"), (Some(1), Some(MAX_WINDOW)));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(wait("120"), Some(Duration::from_secs(120)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:37 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("soon"), None);
        assert_eq!(wait("-5"), None);
        assert_eq!(wait(""), None);
    }

    #[test]
    fn an_endless_wait_is_cut() {
        assert_eq!(wait("99999999999999999999999"), Some(MAX_RETRY_AFTER));
        assert_eq!(wait("Fri, 31 Dec 9999 23:59:59 GMT"), Some(MAX_RETRY_AFTER));
    }

    proptest! {
        #[test]
        fn no_value_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut headers = HeaderMap::new();
                headers.insert("ratelimit-limit", value.clone());
                headers.insert(RETRY_AFTER, value);
                let _ = RateLimit::from_headers(&headers);
                let _ = retry_after(&headers, SystemTime::UNIX_EPOCH);
            }
        }

        #[test]
        fn what_is_printed_parses_back(limit: u64, window in 0..=MAX_WINDOW.as_secs()) {
            let parsed = parse_quota(&format!("{limit};w={window}"));
            prop_assert_eq!(parsed, (Some(limit), Some(Duration::from_secs(window))));
        }
    }
}

//! `Cache-Status` (RFC 9211): how this cache came to its answer, one member per response.
//!
//! What is printed is always a valid structured field (RFC 9651), whatever text was given. Whether
//! the statement is true is left to whoever builds it.

use std::fmt;

use http::StatusCode;

/// The name under which this cache reports.
const CACHE: &str = "roadstead";

/// The member for one response: made by [`CacheStatus::hit`] or [`CacheStatus::fwd`], then refined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheStatus {
    outcome: Outcome,
    fwd_status: Option<StatusCode>,
    stored: bool,
    collapsed: bool,
    ttl: Option<i64>,
    key: Option<String>,
    detail: Option<String>,
}

/// Why a request went upstream (RFC 9211 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Forward {
    /// The cache was configured not to handle the request.
    Bypass,
    /// The method requires it.
    Method,
    /// Nothing is stored under this URI.
    UriMiss,
    /// Something is stored under this URI, but nothing for these header fields.
    VaryMiss,
    /// Nothing fitting is stored, without saying more.
    Miss,
    /// What is stored is fresh, but the request asked otherwise.
    Request,
    /// What is stored is stale.
    Stale,
    /// Only parts of the answer are stored.
    Partial,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Hit,
    Forwarded(Forward),
}

/// The largest structured-field integer (RFC 9651 §3.3.1).
const MAX_INTEGER: i64 = 999_999_999_999_999;

// === impl Forward ===

impl Forward {
    /// The token as it stands after `fwd=`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Miss => "miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

// === impl CacheStatus ===

impl CacheStatus {
    /// Answered from the cache without going upstream (§2.1).
    pub fn hit() -> Self {
        Self::new(Outcome::Hit)
    }

    /// Went upstream because of `reason` (§2.2).
    pub fn fwd(reason: Forward) -> Self {
        Self::new(Outcome::Forwarded(reason))
    }

    /// The status that upstream answered (§2.3); not said of a hit, which asked nobody.
    #[must_use]
    pub fn fwd_status(mut self, status: StatusCode) -> Self {
        self.fwd_status = Some(status);
        self
    }

    /// The answer was stored (§2.5); not said of a hit.
    #[must_use]
    pub fn stored(mut self) -> Self {
        self.stored = true;
        self
    }

    /// The request shared another's upstream request (§2.6); not said of a hit.
    #[must_use]
    pub fn collapsed(mut self) -> Self {
        self.collapsed = true;
        self
    }

    /// How many seconds the answer stays fresh; negative once it is stale (§2.4).
    #[must_use]
    pub fn ttl(mut self, seconds: i64) -> Self {
        self.ttl = Some(seconds);
        self
    }

    /// The cache key, always printed as a string (§2.7).
    #[must_use]
    pub fn key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    /// A further explanation (§2.8), printed as a token if it is one, else as a string.
    #[must_use]
    pub fn detail(mut self, detail: &str) -> Self {
        self.detail = Some(detail.to_owned());
        self
    }

    /// Whether it was answered without going upstream.
    pub fn is_hit(&self) -> bool {
        self.outcome == Outcome::Hit
    }

    fn new(outcome: Outcome) -> Self {
        Self {
            outcome,
            fwd_status: None,
            stored: false,
            collapsed: false,
            ttl: None,
            key: None,
            detail: None,
        }
    }
}

impl fmt::Display for CacheStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(CACHE)?;
        match self.outcome {
            Outcome::Hit => f.write_str("; hit")?,
            Outcome::Forwarded(reason) => self.fmt_forwarded(reason, f)?,
        }
        if let Some(ttl) = self.ttl {
            write!(f, "; ttl={}", ttl.clamp(-MAX_INTEGER, MAX_INTEGER))?;
        }
        if let Some(key) = &self.key {
            write!(f, "; key={}", sf_string(key))?;
        }
        if let Some(detail) = &self.detail {
            let item = if is_sf_token(detail) { detail.clone() } else { sf_string(detail) };
            write!(f, "; detail={item}")?;
        }
        Ok(())
    }
}

impl CacheStatus {
    fn fmt_forwarded(&self, reason: Forward, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "; fwd={}", reason.as_str())?;
        if let Some(status) = self.fwd_status {
            write!(f, "; fwd-status={}", status.as_u16())?;
        }
        if self.stored {
            f.write_str("; stored")?;
        }
        if self.collapsed {
            f.write_str("; collapsed")?;
        }
        Ok(())
    }
}

// === structured fields ===

/// RFC 9651 §3.3.4: a letter or `*`, then token characters, `:` and `/`.
fn is_sf_token(text: &str) -> bool {
    let in_token = |c: char| super::list::is_token_char(c) || matches!(c, ':' | '/');
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '*') && text.chars().all(in_token)
}

/// RFC 9651 §3.3.3: printable ASCII in quotes; anything else has no spelling and becomes `?`.
fn sf_string(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='~' => quoted.push(c),
            _ => quoted.push('?'),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_hit_says_so_and_how_long_it_stays() {
        assert_eq!(CacheStatus::hit().to_string(), "roadstead; hit");
        assert_eq!(
            CacheStatus::hit().ttl(-12).detail("upstream-timeout").to_string(),
            "roadstead; hit; ttl=-12; detail=upstream-timeout"
        );
    }

    #[test]
    fn a_forwarded_request_says_why_and_what_came_of_it() {
        let status =
            CacheStatus::fwd(Forward::UriMiss).fwd_status(StatusCode::OK).stored().collapsed();
        assert_eq!(
            status.to_string(),
            "roadstead; fwd=uri-miss; fwd-status=200; stored; collapsed"
        );
    }

    #[test]
    fn a_hit_never_claims_what_only_a_forwarded_request_can() {
        let hit = CacheStatus::hit().fwd_status(StatusCode::OK).stored().collapsed();
        assert_eq!(hit.to_string(), "roadstead; hit");
        assert!(hit.is_hit());
    }

    #[test]
    fn details_that_are_no_token_are_quoted() {
        let say = |detail| CacheStatus::hit().detail(detail).to_string();
        assert_eq!(say("a b"), "roadstead; hit; detail=\"a b\"");
        assert_eq!(say("5xx"), "roadstead; hit; detail=\"5xx\"");
        assert_eq!(say("say \"no\"\\"), r#"roadstead; hit; detail="say \"no\"\\""#);
        assert_eq!(say("\r\né"), "roadstead; hit; detail=\"???\"");
        assert_eq!(say(""), "roadstead; hit; detail=\"\"");
    }

    #[test]
    fn a_key_is_always_a_string() {
        assert_eq!(CacheStatus::hit().key("a").to_string(), "roadstead; hit; key=\"a\"");
    }

    #[test]
    fn an_endless_ttl_stays_a_legal_integer() {
        assert_eq!(
            CacheStatus::hit().ttl(i64::MIN).to_string(),
            "roadstead; hit; ttl=-999999999999999"
        );
    }

    proptest! {
        #[test]
        fn whatever_is_said_makes_one_legal_header(key: String, detail: String, ttl: i64) {
            let text = CacheStatus::fwd(Forward::Stale).key(&key).detail(&detail).ttl(ttl).to_string();
            prop_assert!(text.bytes().all(|b| (b' '..=b'~').contains(&b)));
            prop_assert!(http::HeaderValue::from_str(&text).is_ok());
        }
    }
}

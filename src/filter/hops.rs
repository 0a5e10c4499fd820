//! How proxies write down the hops of a request: the elements of `Forwarded` and `X-Forwarded-*`.
//!
//! A client writes on the same lines, and parts of what a proxy writes (its `Host`) are the client's
//! too. So elements are told apart byte by byte, and none that can't be read hides another.

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, header, header::HeaderName, uri::Authority};

/// One element of `Forwarded` (RFC 7239 §4): pairs of a name and a value, out of its quotes.
#[derive(Debug)]
pub(super) struct Element<'a> {
    pairs: Vec<(&'a [u8], &'a [u8])>,
    /// Some of it is not text.
    is_garbled: bool,
}

/// The elements of a list header without quotes, first to last, empty ones left out (RFC 9110
/// §5.6.1).
pub(super) fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a [u8]> {
    let lines = headers.get_all(name).iter().map(http::HeaderValue::as_bytes);
    let elements = lines.flat_map(|line| line.split(|byte| *byte == b','));
    elements.map(<[u8]>::trim_ascii).filter(|element| !element.is_empty()).collect()
}

/// The elements of `Forwarded`, first to last; `None` where a line leaves a quote open, so that
/// nobody knows who wrote what follows it.
pub(super) fn elements(headers: &HeaderMap) -> Option<Vec<Element<'_>>> {
    let mut elements = Vec::new();
    for line in headers.get_all(header::FORWARDED) {
        elements.extend(split(line.as_bytes(), b',')?.into_iter().map(Element::read));
    }
    Some(elements)
}

/// The parts between `end`s, which count outside of quotes only (RFC 9110 §5.6.4); empty ones are
/// left out. `None` where a quote is left open.
fn split(text: &[u8], end: u8) -> Option<Vec<&[u8]>> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let parts = text.split(|byte| {
        let is_end = *byte == end && !is_quoted;
        match *byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_quoted,
            b'"' => is_quoted = !is_quoted,
            _ => {}
        }
        is_end
    });
    let parts = parts.map(<[u8]>::trim_ascii).filter(|part| !part.is_empty()).collect();
    (!is_quoted).then_some(parts)
}

// === impl Element ===

impl<'a> Element<'a> {
    /// No quote is open in `text`.
    fn read(text: &'a [u8]) -> Self {
        let pairs = split(text, b';').unwrap_or_default().into_iter().filter_map(|pair| {
            let equals = pair.iter().position(|byte| *byte == b'=')?;
            let (name, value) = (pair.get(..equals)?, pair.get(equals + 1..)?);
            let bare = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
            Some((name, bare.unwrap_or(value)))
        });
        Self { pairs: pairs.collect(), is_garbled: !text.is_ascii() }
    }

    /// The value of a parameter, which may stand once (RFC 7239 §4); the error is one that stands
    /// more often.
    fn parameter(&self, wanted: &str) -> Result<Option<&'a [u8]>, ()> {
        let is_it = |name: &[u8]| name.eq_ignore_ascii_case(wanted.as_bytes());
        let mut values = self.pairs.iter().filter(|(name, _)| is_it(name)).map(|(_, value)| *value);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(()),
        }
    }

    /// Whether it says who asked, or can't be read, so that it may.
    pub(super) fn names_client(&self) -> bool {
        self.is_garbled || self.parameter("for") != Ok(None)
    }

    /// Who asked, where that is an address.
    pub(super) fn client(&self) -> Option<IpAddr> {
        let value = self.parameter("for").ok().flatten();
        value.filter(|_| !self.is_garbled).and_then(address)
    }

    /// What the client asked for.
    pub(super) fn host(&self) -> Option<Authority> {
        let value = self.parameter("host").ok().flatten()?;
        Authority::try_from(value).ok()
    }
}

/// An address, with or without a port, which may be hidden (`_x`); IPv6 with or without brackets.
pub(super) fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Some(rest) = text.strip_prefix('[') {
        let (bare, port) = rest.split_once(']')?;
        let bare: Ipv6Addr = bare.parse().ok()?;
        return (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
            .then_some(bare.into());
    }
    match text.split_once(':') {
        // More than one colon: an IPv6 address by itself.
        Some((bare, port)) if !port.contains(':') => {
            is_port(port).then(|| bare.parse().ok().map(IpAddr::V4)).flatten()
        }
        _ => text.parse().ok(),
    }
}

/// RFC 7239 §6: up to five digits, or `_` and a name.
fn is_port(text: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || b"._-".contains(&c))
    };
    match text.strip_prefix('_') {
        Some(name) => is_name(name),
        None => (1..=5).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_digit()),
    }
}

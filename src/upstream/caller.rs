//! On whose behalf upstream is asked.

use http::HeaderValue;

use crate::protocol::{Algorithm, Digest};

/// Whose credentials a request to upstream carries (`credentials.mode`).
#[derive(Debug, Clone)]
pub enum Caller {
    /// Ours: the configured account, or none. The client's are never sent.
    Shared,
    /// The client's own `Authorization`, as it came; upstream's answer is for it alone.
    Client {
        /// The header, marked sensitive.
        authorization: Option<HeaderValue>,
        /// Tells callers apart without keeping what they sent.
        identity: Digest,
    },
}

// === impl Caller ===

impl Caller {
    /// The client itself, with what it sent (or sent not) as `Authorization`.
    pub fn client(authorization: Option<&HeaderValue>) -> Self {
        let bytes = authorization.map(HeaderValue::as_bytes).unwrap_or_default();
        let identity = Digest::of(Algorithm::Sha256, bytes);
        let authorization = authorization.cloned().map(|mut value| {
            value.set_sensitive(true);
            value
        });
        Self::Client { authorization, identity }
    }

    /// A key that differs between callers whom upstream may answer differently.
    pub fn identity(&self) -> Option<Digest> {
        match self {
            Self::Shared => None,
            Self::Client { identity, .. } => Some(*identity),
        }
    }
}

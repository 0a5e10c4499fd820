//! The YAML file as it is written: key names and nesting, nothing of meaning.
//!
//! All keys are optional and unknown ones are refused. Scalars stay text here and are
//! parsed by their domain type, which knows the unit, the default and the remedy.
//! Nothing here derives `Debug`, for accounts carry passwords. The comments of the keys, and the forms
//! of their values, are those of the schema that editors use.

mod forms;
mod limits;
mod services;
mod upstream;

use std::fmt;

use schemars::JsonSchema;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

pub(super) use self::limits::{RawDownstream, RawFill, RawShutdown, RawStore};
pub(super) use self::services::{RawOtlp, RawTelemetry, RawWarm};
pub(super) use self::upstream::{
    RawAccount, RawBreaker, RawBudget, RawCredentials, RawMirror, RawTags, RawTimeouts, RawUpstream,
};

/// A plain value: kept as written, and printed as a number where it is one.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub(super) struct Scalar(pub(super) String);

/// One value for all, or one for each pattern; in the order, and with the repetitions, in which
/// they were written.
pub(super) enum RawByPattern {
    All(Scalar),
    Each(Vec<(String, Scalar)>),
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a mapping of keys")]
pub(super) struct RawConfig {
    /// Where clients connect.
    pub(super) listen: Option<Vec<RawListen>>,
    /// Where the operator connects: health, metrics, API, dashboard.
    pub(super) admin: Option<RawAdmin>,
    /// Networks of the reverse proxies whose Forwarded, X-Forwarded-* and PROXY headers are believed.
    pub(super) trusted_proxies: Option<Vec<String>>,
    /// Who may pull.
    pub(super) access: Option<RawAccess>,
    /// The registries that are cached; the first is the default.
    pub(super) upstreams: Option<Vec<RawUpstream>>,
    /// The cache: its place and its hard limits.
    pub(super) store: Option<RawStore>,
    /// How blobs are fetched, and what becomes of a download once every client has left.
    pub(super) fill: Option<RawFill>,
    /// What a client may demand.
    pub(super) downstream: Option<RawDownstream>,
    /// How the process ends.
    pub(super) shutdown: Option<RawShutdown>,
    /// What is told to a collector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) telemetry: Option<RawTelemetry>,
    /// What is fetched before a client asks for it. Default: nothing
    pub(super) warm: Option<Vec<RawWarm>>,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { address: 0.0.0.0:5000 }")]
pub(super) struct RawListen {
    /// An IP address and a port, or a Unix socket: 0.0.0.0:5000, unix:/run/roadstead.sock
    pub(super) address: Option<String>,
    /// The permissions of a Unix socket, as chmod takes them: "0660"
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mode: Option<String>,
    /// Each connection begins with a PROXY header of a trusted proxy. Default: false
    pub(super) proxy_protocol: Option<bool>,
    /// Speak TLS here: PEM files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls: Option<RawListenTls>,
    /// For clients that go to the registries themselves: answer in their place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) transparent: Option<RawTransparent>,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { certificate: FILE, key: FILE }")]
pub(super) struct RawListenTls {
    /// The certificate with its chain, PEM.
    pub(super) certificate: Option<String>,
    /// Its private key, PEM.
    pub(super) key: Option<String>,
    /// Clients must show a certificate that one of these authorities has signed, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client_ca: Option<String>,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { mode: connect, ca: { … } }")]
pub(super) struct RawTransparent {
    /// connect: clients use it as their HTTPS proxy. sni: DNS or the network leads them here.
    #[schemars(extend("enum" = ["connect","sni"]))]
    pub(super) mode: Option<String>,
    /// The authority that signs the certificates; `roadstead client ca` makes it.
    pub(super) ca: Option<RawTls>,
    /// What becomes of other hosts. Default: refuse
    #[schemars(extend("enum" = ["refuse","tunnel"]))]
    pub(super) others: Option<String>,
    /// Hosts that are reached in any case, wherever they are.
    pub(super) tunnel_hosts: Option<Vec<String>>,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { certificate: FILE, key: FILE }")]
pub(super) struct RawTls {
    /// The certificate with its chain, PEM.
    pub(super) certificate: Option<String>,
    /// Its private key, PEM.
    pub(super) key: Option<String>,
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { address: 127.0.0.1:5001 }")]
pub(super) struct RawAdmin {
    /// An IP address and a port. Default: 127.0.0.1:5001
    pub(super) address: Option<String>,
    /// Each request must carry the password of a user of this file (htpasswd -B).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) htpasswd: Option<String>,
    /// Speak TLS here: PEM files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls: Option<RawListenTls>,
    /// Names by which browsers and programs reach it, besides its addresses.
    pub(super) hosts: Option<Vec<String>>,
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { allow: [10.0.0.0/8] }")]
pub(super) struct RawAccess {
    /// Networks of the clients that may pull. Default: everyone
    pub(super) allow: Option<Vec<String>>,
    /// Clients must also log in as a user of this file (htpasswd -B).
    pub(super) htpasswd: Option<String>,
}

// === impl Scalar ===

impl Scalar {
    pub(super) fn print(value: impl ToString) -> Option<Self> {
        Some(Self(value.to_string()))
    }
}

impl Serialize for Scalar {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.parse::<u64>() {
            Ok(number) => serializer.serialize_u64(number),
            Err(_) => serializer.serialize_str(&self.0),
        }
    }
}

// === impl RawByPattern ===

impl<'de> Deserialize<'de> for RawByPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ByPattern)
    }
}

/// By hand, since serde's untagged enums know neither the key nor the kind of what is wrong.
struct ByPattern;

impl<'de> Visitor<'de> for ByPattern {
    type Value = RawByPattern;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one duration such as 1m, or a mapping such as { latest: 30s, \"**\": 1h }")
    }

    fn visit_str<E>(self, text: &str) -> Result<RawByPattern, E> {
        Ok(RawByPattern::All(Scalar(text.to_owned())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<RawByPattern, E> {
        Ok(RawByPattern::All(Scalar(number.to_string())))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawByPattern, A::Error> {
        let mut each = Vec::new();
        while let Some(entry) = map.next_entry()? {
            each.push(entry);
        }
        Ok(RawByPattern::Each(each))
    }
}

impl Serialize for RawByPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All(scalar) => scalar.serialize(serializer),
            Self::Each(each) => {
                serializer.collect_map(each.iter().map(|(pattern, value)| (pattern, value)))
            }
        }
    }
}

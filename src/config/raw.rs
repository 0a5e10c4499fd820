//! The YAML file as it is written: key names and nesting, nothing of meaning.
//!
//! All keys are optional and unknown ones are refused. Scalars stay text here and are
//! parsed by their domain type, which knows the unit, the default and the remedy.
//! Nothing here derives `Debug`, for accounts carry passwords.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

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

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a mapping of keys")]
pub(super) struct RawConfig {
    pub(super) listen: Option<Vec<RawListen>>,
    pub(super) admin: Option<RawAdmin>,
    pub(super) trusted_proxies: Option<Vec<String>>,
    pub(super) access: Option<RawAccess>,
    pub(super) upstreams: Option<Vec<RawUpstream>>,
    pub(super) store: Option<RawStore>,
    pub(super) fill: Option<RawFill>,
    pub(super) downstream: Option<RawDownstream>,
    pub(super) shutdown: Option<RawShutdown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) telemetry: Option<RawTelemetry>,
    pub(super) warm: Option<Vec<RawWarm>>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { address: 0.0.0.0:5000 }")]
pub(super) struct RawListen {
    pub(super) address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mode: Option<String>,
    pub(super) proxy_protocol: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls: Option<RawListenTls>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) transparent: Option<RawTransparent>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { certificate: FILE, key: FILE }")]
pub(super) struct RawListenTls {
    pub(super) certificate: Option<String>,
    pub(super) key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client_ca: Option<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { mode: connect, ca: { … } }")]
pub(super) struct RawTransparent {
    pub(super) mode: Option<String>,
    pub(super) ca: Option<RawTls>,
    pub(super) others: Option<String>,
    pub(super) tunnel_hosts: Option<Vec<String>>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { certificate: FILE, key: FILE }")]
pub(super) struct RawTls {
    pub(super) certificate: Option<String>,
    pub(super) key: Option<String>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { address: 127.0.0.1:5001 }")]
pub(super) struct RawAdmin {
    pub(super) address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) htpasswd: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls: Option<RawListenTls>,
    pub(super) hosts: Option<Vec<String>>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { allow: [10.0.0.0/8] }")]
pub(super) struct RawAccess {
    pub(super) allow: Option<Vec<String>>,
    pub(super) htpasswd: Option<String>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { name: docker.io }")]
pub(super) struct RawUpstream {
    pub(super) name: Option<String>,
    pub(super) url: Option<String>,
    pub(super) hosts: Option<Vec<String>>,
    pub(super) credentials: Option<RawCredentials>,
    pub(super) tags: Option<RawTags>,
    pub(super) allow: Option<Vec<String>>,
    pub(super) deny: Option<Vec<String>>,
    pub(super) writes: Option<String>,
    pub(super) catalog: Option<String>,
    pub(super) token_realms: Option<Vec<String>>,
    pub(super) redirect_hosts: Option<Vec<String>>,
    pub(super) ca_file: Option<String>,
    pub(super) client_certificate: Option<RawTls>,
    pub(super) proxy: Option<String>,
    pub(super) timeouts: Option<RawTimeouts>,
    pub(super) breaker: Option<RawBreaker>,
    pub(super) max_connections: Option<Scalar>,
    pub(super) max_requests_per_second: Option<Scalar>,
    pub(super) max_bandwidth: Option<Scalar>,
    pub(super) budget: Option<RawBudget>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prefix: Option<String>,
    pub(super) offline: Option<bool>,
    pub(super) mirrors: Option<Vec<RawMirror>>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { url: https://mirror.example.com }")]
pub(super) struct RawMirror {
    pub(super) url: Option<String>,
    pub(super) order: Option<String>,
    pub(super) credentials: Option<RawCredentials>,
    pub(super) token_realms: Option<Vec<String>>,
    pub(super) redirect_hosts: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ca_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prefix: Option<String>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { reserve: 10% }")]
pub(super) struct RawBudget {
    pub(super) reserve: Option<Scalar>,
    pub(super) stretch: Option<Scalar>,
    pub(super) probe: Option<String>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { mode: shared, accounts: [] }")]
pub(super) struct RawCredentials {
    pub(super) mode: Option<String>,
    pub(super) accounts: Option<Vec<RawAccount>>,
    pub(super) anonymous: Option<bool>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a mapping such as { username: NAME, password_file: FILE }"
)]
pub(super) struct RawAccount {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) password: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) password_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) password_env: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) docker_config: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) helper: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) server: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) timeout: Option<Scalar>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { fresh_for: 1m }")]
pub(super) struct RawTags {
    pub(super) fresh_for: Option<RawByPattern>,
    pub(super) serve_stale_for: Option<Scalar>,
    pub(super) immutable: Option<Vec<String>>,
    pub(super) cooldown: Option<Scalar>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { connect: 3s }")]
pub(super) struct RawTimeouts {
    pub(super) connect: Option<Scalar>,
    pub(super) response: Option<Scalar>,
    pub(super) validate: Option<Scalar>,
    pub(super) fetch: Option<Scalar>,
    pub(super) read: Option<Scalar>,
    pub(super) idle: Option<Scalar>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { failures: 3, open_for: 5s }")]
pub(super) struct RawBreaker {
    pub(super) failures: Option<Scalar>,
    pub(super) open_for: Option<Scalar>,
    pub(super) retries_percent: Option<Scalar>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { directory: DIR, disk: 100GiB }")]
pub(super) struct RawStore {
    pub(super) directory: Option<String>,
    pub(super) disk: Option<Scalar>,
    pub(super) memory: Option<Scalar>,
    pub(super) evict_above_percent: Option<Scalar>,
    pub(super) evict_to_percent: Option<Scalar>,
    pub(super) scrub_rate: Option<Scalar>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { finish_below: 32MiB }")]
pub(super) struct RawFill {
    pub(super) finish_below: Option<Scalar>,
    pub(super) finish_above_percent: Option<Scalar>,
    pub(super) retries: Option<Scalar>,
    pub(super) retry_backoff: Option<Scalar>,
    pub(super) chunk: Option<Scalar>,
    pub(super) max_active: Option<Scalar>,
    pub(super) max_readers: Option<Scalar>,
    pub(super) memory: Option<Scalar>,
    pub(super) max_manifest: Option<Scalar>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { head: 30s }")]
pub(super) struct RawDownstream {
    pub(super) head: Option<Scalar>,
    pub(super) keepalive: Option<Scalar>,
    pub(super) write: Option<Scalar>,
    pub(super) max_connections: Option<Scalar>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { drain: 30s }")]
pub(super) struct RawShutdown {
    pub(super) drain: Option<Scalar>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { otlp: { … } }")]
pub(super) struct RawTelemetry {
    pub(super) otlp: Option<RawOtlp>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { endpoint: http://127.0.0.1:4318 }")]
pub(super) struct RawOtlp {
    pub(super) endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) headers_file: Option<String>,
    pub(super) sample_percent: Option<Scalar>,
    pub(super) service_name: Option<String>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { every: 6h, images: [alpine] }")]
pub(super) struct RawWarm {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) every: Option<Scalar>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) at: Option<String>,
    pub(super) images: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) list: Option<String>,
    pub(super) platforms: Option<Vec<String>>,
    pub(super) parallel: Option<Scalar>,
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

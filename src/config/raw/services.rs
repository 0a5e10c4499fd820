//! The keys of what runs beside the cache, as they are written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Scalar;
use super::forms::{Count, Time};

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { otlp: { … } }")]
pub(in crate::config) struct RawTelemetry {
    /// Spans of requests, posted by OTLP over HTTP. Default: none
    pub(in crate::config) otlp: Option<RawOtlp>,
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { endpoint: http://127.0.0.1:4318 }")]
pub(in crate::config) struct RawOtlp {
    /// The collector's base URL: http://127.0.0.1:4318
    pub(in crate::config) endpoint: Option<String>,
    /// A file of headers that the collector wants, one `name: value` a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) headers_file: Option<String>,
    /// The share of requests that get a span where nobody else decided.
    #[schemars(with = "Option<Count>")]
    pub(in crate::config) sample_percent: Option<Scalar>,
    /// What the collector calls this server. Default: roadstead
    pub(in crate::config) service_name: Option<String>,
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { every: 6h, images: [alpine] }")]
pub(in crate::config) struct RawWarm {
    /// How long from one time to the next; or else `at`.
    #[schemars(with = "Option<Time>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) every: Option<Scalar>,
    /// A time of the day: "03:00"
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) at: Option<String>,
    /// References, as docker takes them.
    pub(in crate::config) images: Option<Vec<String>>,
    /// A file with one reference a line, read each time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) list: Option<String>,
    /// Platforms such as linux/amd64, or all. Default: the server's
    pub(in crate::config) platforms: Option<Vec<String>>,
    /// Layers fetched at the same time.
    #[schemars(with = "Option<Count>")]
    pub(in crate::config) parallel: Option<Scalar>,
}

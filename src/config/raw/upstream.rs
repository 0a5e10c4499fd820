//! The keys of an upstream, as they are written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::forms::{Count, Reserve, Size, Time};
use super::{RawByPattern, RawTls, Scalar};

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { name: docker.io }")]
pub(in crate::config) struct RawUpstream {
    /// Selects this upstream, in ?ns= and in /v2/NAME/...; also its label in metrics.
    pub(in crate::config) name: Option<String>,
    /// http:// or https://, host and port. The well-known names need none.
    pub(in crate::config) url: Option<String>,
    /// Host names (host or host:port) of requests that are meant for this upstream.
    pub(in crate::config) hosts: Option<Vec<String>>,
    /// Whose credentials upstream sees.
    pub(in crate::config) credentials: Option<RawCredentials>,
    /// How long tags may be used.
    pub(in crate::config) tags: Option<RawTags>,
    /// Repositories that may be pulled, as globs. Default: all
    pub(in crate::config) allow: Option<Vec<String>>,
    /// Repositories that may not, though allowed, as globs.
    pub(in crate::config) deny: Option<Vec<String>>,
    /// Pushes and deletions: answered with 405, or passed on. Default: deny
    #[schemars(extend("enum" = ["deny","forward"]))]
    pub(in crate::config) writes: Option<String>,
    /// What answers /v2/_catalog where upstream refuses. Default: forward
    #[schemars(extend("enum" = ["forward","cached"]))]
    pub(in crate::config) catalog: Option<String>,
    /// Token realms that may see the credentials, besides those on the registry's own site.
    pub(in crate::config) token_realms: Option<Vec<String>>,
    /// Redirect targets (host or host:port) that may be private addresses or plain http.
    pub(in crate::config) redirect_hosts: Option<Vec<String>>,
    /// PEM file with the authorities to trust for this upstream. Default: the system's
    pub(in crate::config) ca_file: Option<String>,
    /// Shown to a registry that asks who connects: PEM files.
    pub(in crate::config) client_certificate: Option<RawTls>,
    /// Reach its hosts through this proxy: http://[USER:PASSWORD@]HOST:PORT, https://…, or none. Default: what the environment says
    pub(in crate::config) proxy: Option<String>,
    /// How long upstream may take.
    pub(in crate::config) timeouts: Option<RawTimeouts>,
    /// When it is left alone for a while.
    pub(in crate::config) breaker: Option<RawBreaker>,
    /// Requests under way to one of its hosts at the same time. Default: 256
    #[schemars(with = "Option<Count>")]
    pub(in crate::config) max_connections: Option<Scalar>,
    /// Requests sent to all of its hosts per second. Default: no limit
    #[schemars(with = "Option<Count>")]
    pub(in crate::config) max_requests_per_second: Option<Scalar>,
    /// Bytes per second of all bodies from its hosts. Default: no limit
    #[schemars(with = "Option<Size>")]
    pub(in crate::config) max_bandwidth: Option<Scalar>,
    /// How its rate limit is lived with.
    pub(in crate::config) budget: Option<RawBudget>,
    /// Put before every repository's name there: the proxy project of a Harbor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) prefix: Option<String>,
    /// Never ask it, serve only what is cached. Default: false
    pub(in crate::config) offline: Option<bool>,
    /// Other registries that have the same.
    pub(in crate::config) mirrors: Option<Vec<RawMirror>>,
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { url: https://mirror.example.com }")]
pub(in crate::config) struct RawMirror {
    /// Where it is.
    pub(in crate::config) url: Option<String>,
    /// Asked before the upstream, or where that is in trouble. Default: before
    #[schemars(extend("enum" = ["before","after"]))]
    pub(in crate::config) order: Option<String>,
    /// Its own; upstream's never go there.
    pub(in crate::config) credentials: Option<RawCredentials>,
    /// Token realms that may see its credentials.
    pub(in crate::config) token_realms: Option<Vec<String>>,
    /// Redirect targets that may be private addresses or plain http.
    pub(in crate::config) redirect_hosts: Option<Vec<String>>,
    /// PEM file with the authorities to trust for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) ca_file: Option<String>,
    /// Put before every repository's name there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) prefix: Option<String>,
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { reserve: 10% }")]
pub(in crate::config) struct RawBudget {
    /// Below this share (10%) or number (20) of pulls the budget is spared. Default: 10%
    #[schemars(with = "Option<Reserve>")]
    pub(in crate::config) reserve: Option<Scalar>,
    /// By what fresh_for is multiplied meanwhile. Default: 10
    #[schemars(with = "Option<Count>")]
    pub(in crate::config) stretch: Option<Scalar>,
    /// The tag whose HEAD tells what is left, or none: ratelimitpreview/test:latest
    pub(in crate::config) probe: Option<String>,
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { mode: shared, accounts: [] }")]
pub(in crate::config) struct RawCredentials {
    /// shared: those below, for every client. client: the client's own. Default: shared
    #[schemars(extend("enum" = ["shared","client"]))]
    pub(in crate::config) mode: Option<String>,
    /// The logins, one of which asks next.
    pub(in crate::config) accounts: Option<Vec<RawAccount>>,
    /// Ask without an account when all are spent or fail. Default: true
    pub(in crate::config) anonymous: Option<bool>,
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(
    deny_unknown_fields,
    expecting = "a mapping such as { username: NAME, password_file: FILE }"
)]
pub(in crate::config) struct RawAccount {
    /// The account's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) username: Option<String>,
    /// Its password or access token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) password: Option<String>,
    /// A file with the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) password_file: Option<String>,
    /// An environment variable with the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) password_env: Option<String>,
    /// A config.json as `docker login` left it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) docker_config: Option<String>,
    /// A credential helper: NAME for docker-credential-NAME, or a path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) helper: Option<String>,
    /// What the helper is asked for. Default: docker's name for the registry
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) server: Option<String>,
    /// How long the helper may take. Default: 10s
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Time>")]
    pub(in crate::config) timeout: Option<Scalar>,
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { fresh_for: 1m }")]
pub(in crate::config) struct RawTags {
    /// A tag this young is served without asking upstream; or a duration for each pattern. Default: 1m
    pub(in crate::config) fresh_for: Option<RawByPattern>,
    /// While upstream is in trouble a tag is served up to this age. Default: 30d
    #[schemars(with = "Option<Time>")]
    pub(in crate::config) serve_stale_for: Option<Scalar>,
    /// Tags that never move, as globs.
    pub(in crate::config) immutable: Option<Vec<String>>,
    /// A minimum age of what a tag moves to. Default: 0s
    #[schemars(with = "Option<Time>")]
    pub(in crate::config) cooldown: Option<Scalar>,
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { connect: 3s }")]
pub(in crate::config) struct RawTimeouts {
    /// TCP and TLS, until a connection can be used. Default: 3s
    #[schemars(with = "Option<Time>")]
    pub(in crate::config) connect: Option<Scalar>,
    /// Until the head of the answer. Default: 10s
    #[schemars(with = "Option<Time>")]
    pub(in crate::config) response: Option<Scalar>,
    /// A whole check of a tag; then the stale copy is served. Default: 4s
    #[schemars(with = "Option<Time>")]
    pub(in crate::config) validate: Option<Scalar>,
    /// All until the head of an unseen object's answer; then 504. Default: 14s
    #[schemars(with = "Option<Time>")]
    pub(in crate::config) fetch: Option<Scalar>,
    /// Between two reads of a body. Default: 20s
    #[schemars(with = "Option<Time>")]
    pub(in crate::config) read: Option<Scalar>,
    /// An unused connection is closed after this. Default: 60s
    #[schemars(with = "Option<Time>")]
    pub(in crate::config) idle: Option<Scalar>,
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { failures: 3, open_for: 5s }")]
pub(in crate::config) struct RawBreaker {
    /// Failures in a row that open it; a timeout does at once. Default: 3
    #[schemars(with = "Option<Count>")]
    pub(in crate::config) failures: Option<Scalar>,
    /// How long it is open before a probe. Default: 5s
    #[schemars(with = "Option<Time>")]
    pub(in crate::config) open_for: Option<Scalar>,
    /// HEADs that are sent again, as a share of all requests. Default: 20
    #[schemars(with = "Option<Count>")]
    pub(in crate::config) retries_percent: Option<Scalar>,
}

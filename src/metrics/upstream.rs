//! What upstream is asked, what it costs, and what is left of the budget.

use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};

use super::{counters, declare, gauges, latencies};

declare! {
    /// Requests sent upstream; `counted` says whether the registry's rate limit counts them.
    UPSTREAM_REQUESTS: IntCounterVec = counters(
        "roadstead_upstream_requests_total",
        "Requests sent upstream; counted=\"true\" are those that a pull rate limit counts.",
        &["upstream", "kind", "method", "status", "counted"],
    );

    /// Time from when a request may be sent until the head of its answer.
    UPSTREAM_SECONDS: HistogramVec = latencies(
        "roadstead_upstream_request_seconds",
        "Seconds from when a request may be sent upstream, connecting included, until the head of its answer.",
        &["upstream", "kind"],
    );

    /// Requests to upstream whose answer's head has not come yet.
    UPSTREAM_IN_FLIGHT: IntGaugeVec = gauges(
        "roadstead_upstream_requests_in_flight",
        "Requests to upstream that wait for the head of their answer.",
        &["upstream"],
    );

    /// Requests that upstream did not answer, by why.
    UPSTREAM_ERRORS: IntCounterVec = counters(
        "roadstead_upstream_errors_total",
        "Requests that upstream gave no answer to, by what went wrong; answers with an error status are in roadstead_upstream_requests_total.",
        &["upstream", "kind", "error"],
    );

    /// Body bytes received from upstream.
    UPSTREAM_BYTES: IntCounterVec = counters(
        "roadstead_upstream_bytes_total",
        "Body bytes received from upstream.",
        &["upstream", "kind"],
    );

    /// What the registry last said is left of the budget.
    RATELIMIT_REMAINING: IntGaugeVec = gauges(
        "roadstead_ratelimit_remaining",
        "Pulls left in the present window, as the registry last said.",
        &["upstream", "account"],
    );

    /// What the registry last said is the budget's size.
    RATELIMIT_LIMIT: IntGaugeVec = gauges(
        "roadstead_ratelimit_limit",
        "Pulls allowed per window, as the registry last said.",
        &["upstream", "account"],
    );

    /// Counted requests that were answered, by the account that paid.
    PULLS_SPENT: IntCounterVec = counters(
        "roadstead_pulls_spent_total",
        "Requests that the registry's rate limit counts, by the account that paid.",
        &["upstream", "account"],
    );

    /// Manifest GETs of clients that were answered without a counted request.
    PULLS_SAVED: IntCounterVec = counters(
        "roadstead_pulls_saved_total",
        "Manifest requests of clients answered without a request that the registry counts.",
        &["upstream"],
    );

    /// Whether an account is used: 0 while it stands aside because it is refused.
    ACCOUNT_USABLE: IntGaugeVec = gauges(
        "roadstead_account_usable",
        "1 while the account is used, 0 while it stands aside because it is refused or has no login.",
        &["upstream", "account"],
    );

    /// 1 while an upstream is never asked.
    OFFLINE: IntGaugeVec = gauges(
        "roadstead_upstream_offline",
        "1 while the upstream is not asked because it is switched offline.",
        &["upstream"],
    );

    /// 1 while requests to a host are held back because it failed; a host that answers again is
    /// no longer shown, for upstream names the hosts.
    BREAKER_OPEN: IntGaugeVec = gauges(
        "roadstead_breaker_open",
        "1 while requests to this upstream host are held back because it failed; absent otherwise.",
        &["host"],
    );
}

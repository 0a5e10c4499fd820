//! Probes of a host that failed or asked to be left alone: one at a time, until it answers.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{Method, StatusCode};
use url::Url;

use super::{
    Exchange, Kind, Request, is_gateway_trouble,
    wire::{authority, timeout},
};
use crate::{
    config,
    protocol::ratelimit::retry_after,
    upstream::{
        Failure,
        breaker::{Opening, Probing},
    },
};

/// Probes of a silent host before it is left alone.
const PROBES: u32 = 720;

/// What a probe learnt.
enum Probed {
    Answered,
    Failed,
    /// It is to be left alone for so long.
    Paused(Duration),
}

// === impl Exchange ===

impl Exchange {
    /// Leaves `host` alone, if that is what its failure asks for.
    pub(in crate::upstream) fn hold_off(&self, host: &Arc<str>, failure: &Failure) {
        let Failure::RateLimited { message, retry_after } = failure else { return };
        let wait = self.hold_off_after(*retry_after);
        let Some(opening) = self.breakers.pause(host, wait, message) else { return };
        let scheme = self.registry.scheme();
        match Url::parse(&format!("{scheme}://{host}/v2/")) {
            Ok(url) => self.start_probing(Arc::clone(host), url, opening, Some(wait)),
            // Nothing that was just asked can be no URL; and then nobody waits for a probe.
            Err(_) => self.breakers.close(host, opening),
        }
    }

    /// As long as a host asks for and up to a tenth more, so that not all who were told come at
    /// once; one that says nothing is probed as one that failed.
    fn hold_off_after(&self, wait: Option<Duration>) -> Duration {
        wait.unwrap_or(self.probe_every).mul_f64(1.0 + fastrand::f64() / 10.0)
    }

    /// Probes what failed. Where that is the registry's, and fails again, the ping tells whether
    /// the rest of it is well: one broken repository must not hold up all others.
    async fn probe_host(&self, host: &Arc<str>, url: &Url) -> Probed {
        let probed = self.probe(host, url).await;
        if !matches!(probed, Probed::Failed) || *host != authority(&self.registry) {
            return probed;
        }
        let mut ping = self.registry.clone();
        ping.set_path("/v2/");
        if *url == ping { probed } else { self.probe(host, &ping).await }
    }

    async fn probe(&self, host: &Arc<str>, url: &Url) -> Probed {
        let request =
            Request { method: Method::HEAD, url, kind: Kind::Probe, headers: &[], is_retry: false };
        let answer = self.attempt(&request, host);
        let result = match tokio::time::timeout(self.timeouts.response, answer).await {
            Ok(result) => result,
            Err(_) => Err(timeout(host, "a probe")),
        };
        self.count(&request, &result);
        match result {
            Ok(reply) if reply.status == StatusCode::TOO_MANY_REQUESTS => {
                let wait = retry_after(&reply.headers, SystemTime::now());
                Probed::Paused(self.hold_off_after(wait))
            }
            Ok(reply) if !is_gateway_trouble(reply.status) => Probed::Answered,
            _ => Probed::Failed,
        }
    }
}

impl Probing for Exchange {
    fn start_probing(&self, host: Arc<str>, url: Url, opening: Opening, after: Option<Duration>) {
        let (this, every) = (self.this.clone(), self.probe_every);
        let mut next = after.unwrap_or_else(|| jittered(every));
        tokio::spawn(async move {
            for _ in 0..PROBES {
                tokio::time::sleep(next).await;
                let Some(exchange) = this.upgrade() else { return };
                if !exchange.breakers.is_since(&host, opening) {
                    return;
                }
                if exchange.is_offline() {
                    next = jittered(every);
                    continue;
                }
                next = match exchange.probe_host(&host, &url).await {
                    Probed::Answered => break,
                    Probed::Failed => jittered(every),
                    Probed::Paused(wait) => {
                        exchange.breakers.prolong(&host, wait);
                        wait
                    }
                };
            }
            // A host that stayed silent for so long may be one that nobody asks for any more, a
            // CDN's of yesterday; the next request for it finds out.
            if let Some(exchange) = this.upgrade() {
                exchange.breakers.close(&host, opening);
            }
        });
    }
}

/// What a host must have been given before its silence counts.
pub(super) fn fair_wait(timeouts: &config::Timeouts) -> Duration {
    timeouts.connect.min(timeouts.validate / 2)
}

/// Between 0.75 and 1.25 of `duration`.
fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(0.75 + fastrand::f64() / 2.0)
}

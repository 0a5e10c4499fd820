//! Probes of a host that failed: one at a time, until it answers.

use std::{sync::Arc, time::Duration};

use http::Method;
use url::Url;

use super::{Exchange, Kind, Request, is_gateway_trouble, wire::timeout};
use crate::upstream::breaker::Probing;

/// Probes of a silent host before it is left alone.
const PROBES: u32 = 720;

// === impl Exchange ===

impl Exchange {
    async fn probe(&self, host: &Arc<str>, url: &Url) -> bool {
        let request = Request { method: Method::HEAD, url, kind: Kind::Probe, headers: &[] };
        let answer = self.attempt(&request, host);
        let result = match tokio::time::timeout(self.timeouts.response, answer).await {
            Ok(result) => result,
            Err(_) => Err(timeout(host, "a probe")),
        };
        self.count(&request, &result);
        result.is_ok_and(|reply| !is_gateway_trouble(reply.status))
    }
}

impl Probing for Exchange {
    fn start_probing(&self, host: Arc<str>, url: Url) {
        let (this, every) = (self.this.clone(), self.probe_every);
        tokio::spawn(async move {
            for _ in 0..PROBES {
                tokio::time::sleep(jittered(every)).await;
                let Some(exchange) = this.upgrade() else { return };
                if exchange.probe(&host, &url).await {
                    break;
                }
            }
            // A host that stayed silent for so long may be one that nobody asks for any more, a
            // CDN's of yesterday; the next request for it finds out.
            if let Some(exchange) = this.upgrade() {
                exchange.breakers.close(&host);
            }
        });
    }
}

/// Between 0.75 and 1.25 of `duration`.
fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(0.75 + fastrand::f64() / 2.0)
}

//! An upstream and its mirrors: who is asked first, and who instead.
//!
//! A client's own credentials are for the upstream alone; its mirrors are asked
//! only on our own behalf (P5).

use std::{
    pin::Pin,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use super::{Caller, Error, Failure, conversation::Conversation, ledger::Ledger};
use crate::config::{self, Mirror, Order};

/// The registries that have what one upstream has.
#[derive(Debug)]
pub(super) struct Registries {
    /// The upstream itself.
    pub(super) upstream: Arc<Conversation>,
    pub(super) before: Vec<Arc<Conversation>>,
    pub(super) after: Vec<Arc<Conversation>>,
}

// === impl Registries ===

impl Registries {
    /// `before`: those under the configuration before, of which what has not changed goes on.
    pub(super) fn new(
        config: &config::Upstream,
        offline: &Arc<AtomicBool>,
        ledger: &Arc<Ledger>,
        before: Option<&Self>,
    ) -> Result<Self, String> {
        let mirrors = |order| {
            let mirrors = config.mirrors.iter().filter(move |mirror| mirror.order == order);
            mirrors.map(|mirror| of_mirror(mirror, config, offline, ledger, before))
        };
        let upstream = before.map(|before| &before.upstream);
        Ok(Self {
            upstream: Conversation::new(config, None, offline, ledger, upstream)?,
            before: mirrors(Order::Before).collect::<Result<_, _>>()?,
            after: mirrors(Order::After).collect::<Result<_, _>>()?,
        })
    }

    /// All of them, in the order in which they are asked.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Conversation>> {
        self.before.iter().chain([&self.upstream]).chain(&self.after)
    }

    /// Whether all are the very same, in the same order.
    pub(super) fn are(&self, others: &Self) -> bool {
        self.all().count() == others.all().count()
            && self.all().zip(others.all()).all(|(one, other)| Arc::ptr_eq(one, other))
    }

    /// Why none of them is asked now, if none is.
    pub(super) fn held_back(&self) -> Option<Failure> {
        let why = self.upstream.held_back()?;
        self.all().all(|registry| registry.held_back().is_some()).then_some(why)
    }

    /// Does `work` with one after the other until one has an answer, for at most `patience`. A
    /// mirror's no is no answer; the upstream's is.
    pub(super) async fn ask<T, W>(
        &self,
        caller: &Caller,
        patience: Duration,
        work: impl Fn(Arc<Conversation>) -> W,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        W: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let deadline = Instant::now() + patience;
        let left = || deadline.saturating_duration_since(Instant::now());
        let are_mirrors_asked = matches!(caller, Caller::Shared);
        let ask = async |registry: &Arc<Conversation>, patience| {
            // Of a type of its own: those inside one another are more than the compiler follows.
            let work: Pin<Box<dyn Future<Output = _> + Send>> =
                Box::pin(work(Arc::clone(registry)));
            registry.detached(patience, work).await
        };
        if are_mirrors_asked {
            for mirror in self.before.iter().filter(|mirror| mirror.held_back().is_none()) {
                // What follows needs time too.
                match ask(mirror, left() / 2).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => tracing::debug!(mirror = %mirror.place(), %error, "passed over"),
                }
            }
        }
        let has_others = are_mirrors_asked && !self.after.is_empty();
        let share = if has_others { left() / 2 } else { left() };
        let failure = match ask(&self.upstream, share).await {
            Err(Error::Trouble(failure)) if has_others => failure,
            answer => return answer,
        };
        for mirror in self.after.iter().filter(|mirror| mirror.held_back().is_none()) {
            match ask(mirror, left()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => tracing::debug!(mirror = %mirror.place(), %error, "passed over"),
            }
        }
        Err(failure.into())
    }
}

fn of_mirror(
    mirror: &Mirror,
    upstream: &config::Upstream,
    offline: &Arc<AtomicBool>,
    ledger: &Arc<Ledger>,
    before: Option<&Registries>,
) -> Result<Arc<Conversation>, String> {
    // What is said of the upstream's patience holds for its mirrors.
    let config = config::Upstream {
        timeouts: upstream.timeouts.clone(),
        breaker: upstream.breaker.clone(),
        max_connections: upstream.max_connections,
        max_requests_per_second: upstream.max_requests_per_second,
        max_bandwidth: upstream.max_bandwidth,
        proxy: upstream.proxy.clone(),
        ..mirror.registry.clone()
    };
    let place = config.url.authority();
    let mut mirrors = before.into_iter().flat_map(Registries::all);
    let before = mirrors.find(|other| {
        let is_there = other.place().as_str().trim_end_matches('/') == config.url.to_string();
        other.mirror == Some(mirror.order) && is_there
    });
    Conversation::new(&config, Some((&place, mirror.order)), offline, ledger, before)
}

//! What goes on without a request: learning the budget, and looking after accounts that stand aside.

use std::time::{Duration, Instant, SystemTime};

use super::Upstream;
use crate::{config::Mode, protocol::Reference};

/// How often accounts that stand aside are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How often the budget is asked for, where a tag to ask by is known.
const ASK_EVERY: Duration = Duration::from_secs(600);

/// The same, while little or nothing is left.
const ASK_SPARING_EVERY: Duration = Duration::from_secs(60);

// === impl Upstream ===

impl Upstream {
    /// Looks after its accounts, for ever.
    pub async fn watch(&self) {
        if self.config().credentials.mode == Mode::Client {
            // The accounts are the clients', who tell us when they come.
            return;
        }
        let accounts = || self.registries.all().flat_map(|registry| registry.accounts.all());
        accounts().for_each(|account| account.prepare());
        let mut asked: Option<Instant> = None;
        loop {
            let every = if self.talk().accounts.spares() { ASK_SPARING_EVERY } else { ASK_EVERY };
            if asked.is_none_or(|asked| asked.elapsed() >= every) && self.held_back().is_none() {
                asked = Some(Instant::now());
                self.learn_budget().await;
            }
            tokio::time::sleep(LOOK_EVERY).await;
            for registry in self.registries.all() {
                registry.accounts.look_again().await;
                registry.accounts.look_ahead(SystemTime::now());
            }
        }
    }

    async fn learn_budget(&self) {
        let Some(probe) = &self.config().budget.probe else { return };
        let (repository, tag) = (&probe.repository, Reference::Tag(probe.tag.clone()));
        let patience = self.config().timeouts.fetch;
        let learning = self.talk().learn_budget(repository, &tag);
        if tokio::time::timeout(patience, learning).await.is_err() {
            tracing::debug!(upstream = %self.name(), "what is left of the budget was not told in time");
        }
    }
}

//! Which repositories and tags are known here, for lists that upstream can't give.

use std::sync::Arc;

use super::{Manifests, obtain::logged};
use crate::{
    protocol::Repository,
    store::{LinkKey, TagRecord},
    upstream::Upstream,
};

/// Names looked at in one go.
const PAGE: usize = 1000;

// === impl Manifests ===

impl Manifests {
    /// Up to `count` tags of a repository, in order, behind `after`; none where the store can't be
    /// read. A tag counts if the repository is known to have what it names by more than a push: that
    /// may have been one with credentials of its own.
    pub async fn known_tags(
        &self,
        upstream: &Upstream,
        repository: &Repository,
        after: &str,
        count: usize,
    ) -> Vec<String> {
        let mut found = Vec::new();
        let mut after = after.to_owned();
        while found.len() < count {
            let (name, repository) = (Arc::clone(upstream.name()), repository.clone());
            let page = self.store.tags_of(name, repository.clone(), after.clone(), PAGE).await;
            let page = logged(page).unwrap_or_default();
            let Some((last, _)) = page.last() else { break };
            after = last.to_string();
            for (tag, record) in page {
                if !record.is_gone() && self.was_pulled(upstream, &repository, &record).await {
                    found.push(tag.to_string());
                }
            }
        }
        found.truncate(count);
        found
    }

    async fn was_pulled(
        &self,
        upstream: &Upstream,
        repository: &Repository,
        record: &TagRecord,
    ) -> bool {
        for digest in [Some(record.digest), record.previous].into_iter().flatten() {
            let (upstream, repository) = (Arc::clone(upstream.name()), repository.clone());
            let linked = self.store.linked(LinkKey { upstream, repository, digest }).await;
            if logged(linked).flatten().is_some() {
                return true;
            }
        }
        false
    }

    /// Up to `count` names of repositories of which something is cached, in order, behind `after`,
    /// as far as they may be pulled.
    pub async fn known_repositories(
        &self,
        upstream: &Upstream,
        after: &str,
        count: usize,
    ) -> Vec<String> {
        let config = upstream.config();
        let mut found = Vec::new();
        let mut after = after.to_owned();
        while found.len() < count {
            let name = Arc::clone(upstream.name());
            let page = self.store.repositories(name, after.clone(), PAGE).await;
            let page = logged(page).unwrap_or_default();
            let Some(last) = page.last() else { break };
            after.clone_from(last);
            let may_be_pulled =
                |name: &String| config.allow.matches(name) && !config.deny.matches(name);
            found.extend(page.into_iter().filter(may_be_pulled));
        }
        found.truncate(count);
        found
    }
}

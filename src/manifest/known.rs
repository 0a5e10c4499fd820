//! Which repositories and tags are known here, for lists that upstream can't give.

use std::sync::Arc;

use super::{Manifests, obtain::logged};
use crate::{
    protocol::{Repository, Tag},
    store::{self, LinkKey, TagRecord},
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
        while let Some(page) = self.next_tags(upstream, repository, &mut after).await {
            for (tag, record) in page {
                if found.len() == count {
                    return found;
                }
                if !record.is_gone() && self.was_pulled(upstream, repository, &record).await {
                    found.push(tag.to_string());
                }
            }
        }
        found
    }

    /// The next page of a repository's tags behind `after`, which goes on to its end; `None` where
    /// there is none, or the store can't be read.
    pub(super) async fn next_tags(
        &self,
        upstream: &Upstream,
        repository: &Repository,
        after: &mut String,
    ) -> Option<Vec<(Tag, TagRecord)>> {
        let (name, repository) = (Arc::clone(upstream.name()), repository.clone());
        let page = self.store.tags_of(name, repository, after.clone(), PAGE).await;
        turned(page, after, |(tag, _)| tag.as_str())
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
            let Some(page) = turned(page, &mut after, String::as_str) else { break };
            found.extend(page.into_iter().filter(|name| config.admits(name)));
        }
        found.truncate(count);
        found
    }
}

/// What is on a page, and `after` its last name; `None` where nothing is.
fn turned<T>(
    page: Result<Vec<T>, store::Error>,
    after: &mut String,
    name: impl Fn(&T) -> &str,
) -> Option<Vec<T>> {
    let page = logged(page)?;
    *after = name(page.last()?).to_owned();
    Some(page)
}

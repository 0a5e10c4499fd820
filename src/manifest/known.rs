//! Which repositories and tags are known here, for lists that upstream can't give.

use std::sync::Arc;

use super::{Manifests, obtain::logged};
use crate::{protocol::Repository, upstream::Upstream};

/// Names looked at in one go.
const PAGE: usize = 1000;

// === impl Manifests ===

impl Manifests {
    /// Up to `count` tags of a repository, in order, behind `after`; none where the store can't be
    /// read.
    pub async fn known_tags(
        &self,
        upstream: &Upstream,
        repository: &Repository,
        after: &str,
        count: usize,
    ) -> Vec<String> {
        let (name, repository) = (Arc::clone(upstream.name()), repository.clone());
        let tags = self.store.tags_of(name, repository, after.to_owned(), count).await;
        logged(tags).unwrap_or_default().into_iter().map(|(tag, _)| tag.to_string()).collect()
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

//! Manifests in the store: kept, linked to the repositories that have them, and found again.

use std::sync::Arc;

use super::{Ask, Manifest, Manifests, obtain::logged};
use crate::{
    protocol::{Digest, media_type::inspect},
    store::{Kind, Link},
    upstream::{self, ManifestHead},
};

// === impl Manifests ===

impl Manifests {
    /// Stores a verified manifest. A store that fails costs a later fetch, not this answer.
    pub(super) async fn keep(&self, ask: &Ask, fetched: upstream::ManifestBody) -> Manifest {
        let upstream::ManifestBody { digest, media_type, body } = fetched;
        let media_type: Arc<str> = media_type.into();
        let link = Link { media_type: Some(Arc::clone(&media_type)) };
        let (stored, linked) = tokio::join!(
            self.store.put(digest, body.clone(), Kind::Manifest),
            self.link(ask, digest, link)
        );
        if let Err(error) = stored.and(linked) {
            tracing::warn!(%error, %digest, "a manifest could not be stored");
        }
        Manifest { digest, media_type, body }
    }

    async fn link(&self, ask: &Ask, digest: Digest, link: Link) -> Result<(), crate::store::Error> {
        if ask.upstream.is_superseded() {
            return Ok(());
        }
        self.store.link(ask.link_key(digest), link).await
    }

    /// Links a manifest that another repository brought, once upstream has said that this
    /// repository has it too.
    pub(super) async fn adopt(
        &self,
        ask: &Ask,
        digest: Digest,
        head: Option<&ManifestHead>,
    ) -> Option<Manifest> {
        let body = self.store.read(digest, self.max_manifest()).await.ok().flatten()?;
        // What was deleted through us since does not come back.
        if let Some(head) = head {
            let is_current = || ask.upstream.writes() == head.writes;
            self.store.relink_if(&ask.link_key(digest), is_current);
        }
        let content_type = head.and_then(|head| head.media_type.as_deref());
        let media_type: Arc<str> = inspect(content_type, &body).ok()?.media_type.into();
        let link = Link { media_type: Some(Arc::clone(&media_type)) };
        if let Err(error) = self.link(ask, digest, link).await {
            tracing::warn!(%error, %digest, "a manifest could not be linked");
        }
        Some(Manifest { digest, media_type, body })
    }

    /// The manifest, if it is stored and this repository is known to have it. Asks nobody.
    pub async fn cached(&self, ask: &Ask, digest: Digest) -> Option<Manifest> {
        let linked = self.store.linked(ask.link_key(digest)).await;
        let media_type = logged(linked).flatten()?.media_type?;
        let body = logged(self.store.read(digest, self.max_manifest()).await).flatten()?;
        Some(Manifest { digest, media_type, body })
    }

    /// Whether the manifest is stored, whichever repository it is of: to have it costs no more than a
    /// free HEAD. Asks nobody.
    pub async fn holds(&self, digest: Digest) -> bool {
        logged(self.store.contains(digest).await).unwrap_or(false)
    }
}

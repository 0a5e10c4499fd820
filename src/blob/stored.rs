//! Blobs in the store, and for whom they are.

use bytes::Bytes;

use super::{Ask, Blobs, Error, Source};
use crate::{
    protocol::Digest,
    store::{self, Held, Link, SMALL_BYTES},
    upstream,
};

// === impl Blobs ===

impl Blobs {
    /// The body of a small blob, for who asks over and over, if it and all that lets it be sent is in
    /// memory. Never blocks.
    pub fn same(&self, ask: &Ask, held: &Held) -> Option<Bytes> {
        if !ask.upstream.is_authorised(&ask.caller, &ask.repository) {
            return None;
        }
        self.store.recall(held).map(|(_, body)| body)
    }

    /// Whether the blob is stored, whichever repository it is of. Asks nobody.
    pub async fn holds(&self, digest: Digest) -> bool {
        self.store.contains(digest).await.unwrap_or(false)
    }

    /// Waits until nobody writes the blob, and says whether it is stored then: who reads a fill has
    /// its last byte a moment before it is, and has it too where the disk does not take it.
    pub async fn is_kept(&self, digest: Digest) -> bool {
        self.store.unclaimed(&digest).await;
        self.holds(digest).await
    }

    /// Bytes that earlier fills of the blob have left, and that the next one need not fetch.
    pub fn left_over(&self, digest: &Digest) -> u64 {
        self.store.left_over(digest)
    }

    /// Why blobs of so many bytes together would not be kept, if that is known beforehand.
    pub fn cannot_keep(&self, bytes: u64) -> Option<String> {
        let capacity = self.store.capacity();
        if bytes > capacity {
            return Some(format!("{bytes} bytes are more than store.disk ({capacity} bytes)"));
        }
        self.store.is_unavailable().then(|| {
            self.store.trouble().unwrap_or_else(|| "the store is being handed over".to_owned())
        })
    }

    /// A blob known from elsewhere is served only once upstream has said, by a free HEAD, that
    /// this repository has it too, and has it for this caller. False if it is known not to be stored.
    pub(super) async fn admit(&self, ask: &Ask) -> Result<bool, Error> {
        let authorised = ask.upstream.is_authorised(&ask.caller, &ask.repository);
        if authorised && self.is_linked(ask).await {
            return Ok(true);
        }
        let filling = self.fills.get(&ask.digest);
        let same_origin = filling.as_ref().is_some_and(|fill| fill.is_from(&ask.origin()));
        let was_there = same_origin && !self.store.is_unlinked(&ask.link_key());
        if authorised && was_there {
            return Ok(true);
        }
        let contained = self.store.contains(ask.digest).await;
        let known = filling.is_some() || *contained.as_ref().unwrap_or(&false);
        if known || !authorised {
            let before = ask.upstream.writes();
            self.head_upstream(ask).await?;
            ask.upstream.authorise(&ask.caller, &ask.repository);
            // What was deleted through us since does not come back.
            self.store.relink_if(&ask.link_key(), || ask.upstream.writes() == before);
            self.link(ask, Link { media_type: None }).await;
        }
        // What can't be read may be there.
        Ok(filling.is_some() || contained.unwrap_or(true))
    }

    pub(super) async fn head_upstream(&self, ask: &Ask) -> Result<upstream::BlobHead, Error> {
        Ok(ask.upstream.head_blob(&ask.repository, &ask.digest, &ask.caller).await?)
    }

    /// A store that can't be read knows nothing: it costs a free HEAD.
    async fn is_linked(&self, ask: &Ask) -> bool {
        matches!(self.store.linked(ask.link_key()).await, Ok(Some(_)))
    }

    /// The stored blob; an error, which is logged, where that can't be told.
    pub(super) async fn stored(
        &self,
        digest: Digest,
    ) -> Result<Option<(Source, u64)>, store::Error> {
        let small = |body: Bytes| {
            let size = body.len() as u64;
            (Source::Memory(body), size)
        };
        if let Some(body) = self.store.in_memory(&digest) {
            return Ok(Some(small(body)));
        }
        let logged = |error: &store::Error| {
            tracing::warn!(%error, %digest, "the store could not be read");
        };
        let Some(lease) = self.store.get(digest).await.inspect_err(logged)? else {
            return Ok(None);
        };
        if lease.len() > SMALL_BYTES {
            let size = lease.len();
            return Ok(Some((Source::Stored(lease), size)));
        }
        // Reading it checks it; a small blob that went bad on disk is absent from here on.
        Ok(self.store.read(digest, SMALL_BYTES).await.inspect_err(logged)?.map(small))
    }
}

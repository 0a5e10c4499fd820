//! The first bytes of a fill, for one client: what goes wrong before them has a status.

use std::sync::Arc;

use super::{Ask, Error, Reader, Source};
use crate::{
    metrics,
    protocol::{Requested, range::resolve},
    upstream::{self, Failure},
};

/// Waits for a fill's first bytes, for as long as an unseen object may take.
pub(super) async fn started(
    ask: &Ask,
    mut reader: Reader,
    range: Option<&str>,
    must_be_known: bool,
) -> Result<(Source, Option<u64>), Error> {
    let wait = async {
        if range.is_none() {
            return match reader.ready(0, None).await? {
                None if must_be_known => reader.total().await.map(Some),
                size => Ok(size),
            };
        }
        let size = reader.total().await?;
        match resolve(range, size) {
            Requested::Whole => reader.ready(0, None).await?,
            Requested::Single(range) => reader.ready(range.start, Some(range.end)).await?,
            Requested::Multiple(ranges) => match ranges.first() {
                Some(range) => reader.ready(range.start, Some(range.end)).await?,
                None => Some(size),
            },
            // Of an empty blob there is nothing to wait for but the word that it is right.
            Requested::Unsatisfiable if size == 0 => reader.ready(0, None).await?,
            Requested::Unsatisfiable => Some(size),
        };
        Ok(Some(size))
    };
    match tokio::time::timeout(ask.upstream.config().timeouts.fetch, wait).await {
        Ok(size) => Ok((Source::Filling(reader), size?)),
        Err(_) if reader.is_waiting() => Err(busy("fills", "downloads at the same time")),
        Err(_) => {
            let host = Arc::clone(ask.upstream.name());
            let failure = Failure::Timeout { host, waiting_for: "the first bytes of a blob" };
            Err(upstream::Error::from(failure).into())
        }
    }
}

/// A limit is reached.
pub(super) fn busy(limit: &'static str, what: &'static str) -> Error {
    metrics::LIMITED.with_label_values(&[limit]).inc();
    Error::Busy(what)
}

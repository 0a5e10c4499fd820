//! What the cache asks of a registry's blobs, by HEAD and by GET.
//!
//! Their bytes are verified by the fill that receives them.

use std::sync::Arc;

use http::{Method, StatusCode, header};

use super::{
    Body, Caller, Error, Failure, Upstream,
    ask::Ask,
    conversation::Conversation,
    reply::{content_range, expect_ok, number},
};
use crate::protocol::{ByteRange, Digest, Repository};

/// A blob of a repository, and for whom.
pub(super) type Question = (Repository, Digest, Option<Digest>);

/// What a HEAD said of a blob.
#[derive(Debug, Clone, Copy)]
pub struct BlobHead {
    /// Its length in bytes.
    pub size: Option<u64>,
}

/// A blob's bytes, on their way and not yet verified.
#[derive(Debug)]
pub struct BlobBody {
    /// Where in the blob the body begins.
    pub start: u64,
    /// The whole blob's length, where upstream says it.
    pub total: Option<u64>,
    /// The bytes.
    pub body: Body,
}

// === impl Upstream ===

impl Upstream {
    /// HEAD of a blob: free, and it moves no bytes of it.
    pub async fn head_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        caller: &Caller,
    ) -> Result<BlobHead, Error> {
        let ask = Ask::blob(Method::HEAD, repository, digest, caller);
        let question = (repository.clone(), *digest, caller.identity());
        if let Some(error) = self.absent.get(&question) {
            return Err(error);
        }
        let before = self.writes();
        let work = |talk: Arc<Conversation>| head_blob(talk, ask.clone());
        let head = self.registries.ask(caller, self.config.timeouts.fetch, work).await;
        head.inspect_err(|error| self.remember_absent(question, error, before))
    }

    /// GET of a blob from the byte `from` on, up to and not including `until`, or to its end. An
    /// upstream that ignores the range starts at 0. A range that begins behind the blob's end is
    /// [`Error::Refused`] with 416.
    pub async fn get_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        from: u64,
        until: Option<u64>,
        caller: &Caller,
    ) -> Result<BlobBody, Error> {
        let mut ask = Ask::blob(Method::GET, repository, digest, caller);
        ask.range = match until {
            Some(until) => ByteRange::new(from, until).header(),
            None => (from > 0).then(|| format!("bytes={from}-")),
        };
        let question = (repository.clone(), *digest, caller.identity());
        if let Some(error) = self.absent.get(&question) {
            return Err(error);
        }
        let before = self.writes();
        let work = |talk: Arc<Conversation>| get_blob(talk, ask.clone(), from, until);
        let body = self.registries.ask(caller, self.config.timeouts.fetch, work).await;
        body.inspect_err(|error| self.remember_absent(question, error, before))
    }

    /// `before`: how many writes the registry had taken when it was asked.
    fn remember_absent(&self, question: Question, error: &Error, before: u64) {
        if !matches!(error, Error::NotFound { .. }) {
            return;
        }
        self.absent.insert(question.clone(), error.clone());
        // Afterwards: a write is counted first, and then what was said is forgotten.
        if self.writes() != before {
            self.absent.invalidate(&question);
        }
    }
}

pub(super) async fn head_blob(talk: Arc<Conversation>, mut ask: Ask) -> Result<BlobHead, Error> {
    let answer = match talk.ask(&ask).await {
        Ok(reply) => expect_ok(reply).await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(reply) => {
            let size = number(&reply.headers, &header::CONTENT_LENGTH);
            reply.body.dismiss().await;
            return Ok(BlobHead { size });
        }
        // A URL signed for GET refuses HEAD in its own ways; one byte of the blob tells as much.
        Err(Error::Denied { .. } | Error::Refused { .. }) => {}
        Err(error) => return Err(error),
    }
    ask.method = Method::GET;
    ask.range = Some("bytes=0-0".to_owned());
    let reply = talk.ask(&ask).await?;
    // An empty blob has no first byte.
    if reply.status == StatusCode::RANGE_NOT_SATISFIABLE {
        return Ok(BlobHead { size: Some(0) });
    }
    let reply = expect_ok(reply).await?;
    let ranged = content_range(&reply.headers).and_then(|(_, total)| total);
    let size = ranged.or_else(|| number(&reply.headers, &header::CONTENT_LENGTH));
    Ok(BlobHead { size })
}

async fn get_blob(
    talk: Arc<Conversation>,
    ask: Ask,
    from: u64,
    until: Option<u64>,
) -> Result<BlobBody, Error> {
    let reply = expect_ok(talk.ask(&ask).await?).await?;
    if reply.status != StatusCode::PARTIAL_CONTENT {
        let total = reply.body.expected();
        return Ok(BlobBody { start: 0, total, body: reply.body });
    }
    let (range, total) = content_range(&reply.headers)
        .filter(|(range, _)| range.start == from)
        .ok_or_else(|| Failure::invalid("a 206 with another range than was asked for"))?;
    // Where the whole rest was asked for, its end is the blob's.
    let total = total.or(if until.is_none() { Some(range.end) } else { None });
    let mut body = reply.body;
    body.expect(range.len());
    Ok(BlobBody { start: from, total, body })
}

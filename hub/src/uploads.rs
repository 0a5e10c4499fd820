//! Uploads under way: what has come of each blob so far.

use std::collections::HashMap;

use crate::random::{Random, unpredictable};

/// Uploads by session.
#[derive(Debug)]
pub(crate) struct Uploads {
    random: Random,
    under_way: HashMap<String, Upload>,
}

/// One blob on its way.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    pub(crate) repository: String,
    /// Opaque to clients, who must send it back: it changes with each piece.
    pub(crate) state: String,
    pub(crate) bytes: Vec<u8>,
}

/// A piece that does not follow what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutOfOrder;

// === impl Uploads ===

impl Default for Uploads {
    fn default() -> Self {
        Self { random: Random::new(unpredictable()), under_way: HashMap::new() }
    }
}

impl Uploads {
    /// Begins an upload; gives its session.
    pub(crate) fn begin(&mut self, repository: &str) -> (String, Upload) {
        let (session, state) = (self.word(), self.word());
        let upload = Upload { repository: repository.to_owned(), state, bytes: Vec::new() };
        self.under_way.insert(session.clone(), upload.clone());
        (session, upload)
    }

    /// The upload of this session in this repository, if the client sent its state back.
    pub(crate) fn find(
        &self,
        repository: &str,
        session: &str,
        state: Option<&str>,
    ) -> Option<&Upload> {
        let upload = self.under_way.get(session)?;
        (upload.repository == repository && state == Some(&upload.state)).then_some(upload)
    }

    /// Appends a piece that `range` says to be bytes so and so of the blob.
    pub(crate) fn append(
        &mut self,
        session: &str,
        range: Option<&str>,
        piece: &[u8],
    ) -> Result<Option<Upload>, OutOfOrder> {
        let state = self.word();
        let Some(upload) = self.under_way.get_mut(session) else { return Ok(None) };
        if let Some(range) = range
            && !follows(range, upload.bytes.len(), piece.len())
        {
            return Err(OutOfOrder);
        }
        upload.bytes.extend_from_slice(piece);
        upload.state = state;
        Ok(Some(upload.clone()))
    }

    /// Ends an upload, and gives what came.
    pub(crate) fn end(&mut self, session: &str) -> Option<Upload> {
        self.under_way.remove(session)
    }

    fn word(&mut self) -> String {
        crate::digest::hex(&self.random.bytes(12))
    }
}

/// `FIRST-LAST`, as the spec has it, without a unit.
fn follows(range: &str, there: usize, len: usize) -> bool {
    let ends = range.split_once('-').map(|(first, last)| (first.parse(), last.parse()));
    let Some((Ok(first), Ok(last))) = ends else { return false };
    let (first, last): (usize, usize) = (first, last);
    first == there && last.checked_sub(first) == len.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_must_follow_the_one_before() {
        assert!(follows("0-2", 0, 3) && follows("3-3", 3, 1));
        for (range, there, len) in [("3-5", 0, 3), ("0-3", 0, 3), ("0-2", 3, 3), ("x", 0, 1)] {
            assert!(!follows(range, there, len), "{range} at {there}");
        }
    }
}

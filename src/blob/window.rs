//! Where a fill's bytes are: in memory until they are on disk, then in the map
//! of the staged file.
//!
//! What upstream sends is here before it is on disk, so that a slow disk slows
//! no reader. While a fill is stored, a piece leaves memory once it is written;
//! while it is not, once all readers that will come to it have had it, or when
//! there is no room and the slowest must go on by themselves.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    metrics,
    protocol::{ByteRange, Coverage, Hasher},
    store::Map,
};

/// Bytes of one fill that are in memory at the most.
pub(super) const WINDOW_BYTES: u64 = 8 << 20;

/// What a reader is about to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interest {
    /// The next byte that it wants.
    pub(super) at: u64,
    /// Where it stops; `None`: at the blob's end, wherever that is.
    pub(super) until: Option<u64>,
    /// It wants all of the blob.
    pub(super) is_whole: bool,
}

/// The hash of a blob's first bytes.
#[derive(Debug, Clone)]
pub(super) struct Frontier {
    /// How many they are.
    pub(super) at: u64,
    pub(super) hasher: Hasher,
}

/// Bytes that a reader asked for.
#[derive(Debug)]
pub(super) enum Found {
    Here(Bytes),
    /// So many of them are in the file, whose pages may have to be brought in.
    OnDisk(Map, u64),
    /// They were here, and had to make room.
    Gone,
}

/// The bytes of one fill.
#[derive(Debug)]
pub(super) struct Window {
    /// By where they begin.
    pieces: BTreeMap<u64, Piece>,
    /// Bytes of `pieces`.
    len: u64,
    on_disk: Coverage,
    map: Option<Map>,
    is_stored: bool,
    /// What has been hashed of the blob from its beginning, when it was last said.
    frontier: Frontier,
    /// Hashes of an unstored fill's beginnings, for readers that go on by themselves.
    marks: Vec<Frontier>,
    readers: HashMap<u64, Interest>,
    next_reader: u64,
}

/// Some bytes in memory; they count as memory of fills while this lives.
#[derive(Debug)]
struct Piece {
    bytes: Bytes,
    _permit: Option<OwnedSemaphorePermit>,
}

// === impl Window ===

impl Window {
    pub(super) fn new(frontier: Frontier) -> Self {
        Self {
            pieces: BTreeMap::new(),
            len: 0,
            on_disk: Coverage::default(),
            map: None,
            is_stored: false,
            marks: vec![frontier.clone()],
            frontier,
            readers: HashMap::new(),
            next_reader: 0,
        }
    }

    /// The bytes of `on_disk` can be read from `map`, and what comes is written there too.
    pub(super) fn store(&mut self, map: Map, on_disk: Coverage) {
        self.map = Some(map);
        self.on_disk = on_disk;
        self.is_stored = true;
    }

    /// What comes from now on is not written. What is on disk can still be read.
    pub(super) fn stop_storing(&mut self) {
        self.is_stored = false;
        self.marks.push(self.frontier.clone());
    }

    pub(super) fn is_stored(&self) -> bool {
        self.is_stored
    }

    pub(super) fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// Bytes in memory.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// True if `len` more bytes fit.
    pub(super) fn has_room(&self, len: u64) -> bool {
        self.len == 0 || self.len + len <= WINDOW_BYTES
    }

    pub(super) fn insert(
        &mut self,
        start: u64,
        bytes: Bytes,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        self.len += bytes.len() as u64;
        metrics::FILL_MEMORY.add(bytes.len() as i64);
        self.pieces.insert(start, Piece { bytes, _permit: permit });
        if !self.is_stored {
            self.drop_unwanted();
        }
    }

    /// These pieces are on disk; all before `frontier` is hashed.
    pub(super) fn written(&mut self, pieces: &[(u64, u64)], frontier: Frontier) {
        self.frontier = frontier;
        for (start, len) in pieces {
            self.on_disk.add(ByteRange::new(*start, start + len));
            self.remove(*start);
        }
    }

    /// All before `frontier` is hashed, and none of it was written.
    pub(super) fn hashed(&mut self, frontier: Frontier) {
        self.marks.push(frontier.clone());
        self.frontier = frontier;
        self.drop_unwanted();
    }

    /// The pieces that are not hashed yet, from the frontier on.
    pub(super) fn unhashed(&self) -> Vec<(u64, Bytes)> {
        let pieces = self.pieces.range(self.frontier.at..);
        pieces.map(|(start, piece)| (*start, piece.bytes.clone())).collect()
    }

    /// Bytes from `start` on, which have been received: up to `limit` of them, though never less
    /// than a piece of what is only in memory. So a reader always stands where a piece ends, and
    /// all before it is hashed by itself.
    pub(super) fn read(&self, start: u64, limit: u64) -> Found {
        let on_disk = self.on_disk.end_of(start).saturating_sub(start).min(limit);
        if let (Some(map), true) = (&self.map, on_disk > 0) {
            return Found::OnDisk(map.clone(), on_disk);
        }
        let piece = self.pieces.range(..=start).next_back();
        let rest = piece.and_then(|(begin, piece)| {
            let skip = usize::try_from(start - begin).ok()?;
            (skip < piece.bytes.len()).then(|| piece.bytes.slice(skip..))
        });
        match rest {
            Some(rest) if self.is_stored => {
                let len = rest.len().min(usize::try_from(limit).unwrap_or(usize::MAX));
                Found::Here(rest.slice(..len))
            }
            Some(rest) => Found::Here(rest),
            None => Found::Gone,
        }
    }

    /// True if a reader that comes now finds what was received from `start` on.
    pub(super) fn can_serve(&self, start: u64, received: u64) -> bool {
        start >= received || !matches!(self.read(start, 1), Found::Gone)
    }

    /// Makes room for `len` bytes at the expense of the readers that are furthest behind.
    pub(super) fn make_room(&mut self, len: u64) {
        while !self.has_room(len) {
            let Some((start, piece)) = self.pieces.first_key_value() else { return };
            let (start, end) = (*start, start + piece.bytes.len() as u64);
            // Where nobody is further, all are as slow as this one; and what is not hashed yet can't
            // be gone on from.
            let is_behind = self.readers.values().any(|reader| reader.at >= end);
            if !is_behind || end > self.frontier.at {
                return;
            }
            self.remove(start);
        }
    }

    /// The latest hash of a beginning that ends at `at` or before.
    pub(super) fn mark(&self, at: u64) -> Option<Frontier> {
        let behind = self.marks.partition_point(|mark| mark.at <= at);
        self.marks.get(behind.checked_sub(1)?).cloned()
    }

    fn remove(&mut self, start: u64) {
        if let Some(piece) = self.pieces.remove(&start) {
            self.len -= piece.bytes.len() as u64;
        }
    }

    /// Drops what no reader will come to.
    fn drop_unwanted(&mut self) {
        let unwanted: Vec<u64> = self
            .pieces
            .iter()
            .filter(|(start, piece)| {
                let end = *start + piece.bytes.len() as u64;
                end <= self.frontier.at
                    && !self.readers.values().any(|reader| reader.comes_to(**start, end))
            })
            .map(|(start, _)| *start)
            .collect();
        unwanted.into_iter().for_each(|start| self.remove(start));
    }
}

// === impl Window: readers ===

impl Window {
    pub(super) fn join(&mut self, interest: Interest) -> u64 {
        let id = self.next_reader;
        self.next_reader += 1;
        self.readers.insert(id, interest);
        id
    }

    pub(super) fn leave(&mut self, id: u64) {
        self.readers.remove(&id);
        if !self.is_stored {
            self.drop_unwanted();
        }
    }

    /// A reader goes on; true if that is news to who plans what to fetch.
    pub(super) fn moved(&mut self, id: u64, interest: Interest) {
        self.readers.insert(id, interest);
        if !self.is_stored {
            self.drop_unwanted();
        }
    }

    pub(super) fn readers(&self) -> impl Iterator<Item = &Interest> {
        self.readers.values()
    }

    pub(super) fn count_readers(&self) -> usize {
        self.readers.len()
    }
}

// === impl Piece ===

impl Drop for Piece {
    fn drop(&mut self) {
        metrics::FILL_MEMORY.sub(self.bytes.len() as i64);
    }
}

// === impl Interest ===

impl Interest {
    fn comes_to(&self, start: u64, end: u64) -> bool {
        // One that ends at 0 does not know yet what it wants.
        self.at < end && self.until.is_none_or(|until| until > start || until == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Algorithm;

    fn frontier(at: u64) -> Frontier {
        Frontier { at, hasher: Hasher::new(Algorithm::Sha256) }
    }

    fn reader(at: u64, until: Option<u64>) -> Interest {
        Interest { at, until, is_whole: until.is_none() }
    }

    fn piece(len: usize) -> Bytes {
        Bytes::from(vec![7; len])
    }

    /// What a read brings; `None` where it had to make room.
    fn read(window: &Window, start: u64, limit: u64) -> Option<Bytes> {
        match window.read(start, limit) {
            Found::Here(bytes) => Some(bytes),
            Found::OnDisk(map, len) => Some(map.slice(start, len)),
            Found::Gone => None,
        }
    }

    #[test]
    fn an_unstored_piece_stays_until_all_have_had_it() {
        let mut window = Window::new(frontier(0));
        let (one, two) = (window.join(reader(0, None)), window.join(reader(15, Some(20))));
        window.insert(0, piece(10), None);
        window.insert(10, piece(10), None);
        window.hashed(frontier(20));
        assert_eq!(read(&window, 5, 100), Some(piece(5)));
        window.moved(one, reader(10, None));
        assert_eq!(read(&window, 5, 100), None);
        window.moved(one, reader(20, None));
        assert_eq!(read(&window, 15, 2), Some(piece(5)));
        window.leave(two);
        assert_eq!(window.len, 0);
    }

    #[test]
    fn a_stored_piece_stays_until_it_is_on_disk() {
        use std::io::Write;
        let mut file = tempfile::tempfile().unwrap();
        let mut window = Window::new(frontier(0));
        window.store(Map::new(&file, 100).unwrap(), Coverage::default());
        window.insert(0, piece(10), None);
        assert_eq!(read(&window, 0, 100), Some(piece(10)));
        file.write_all(&piece(10)).unwrap();
        window.written(&[(0, 10)], frontier(10));
        assert_eq!((window.len, read(&window, 2, 100)), (0, Some(piece(8))));
        // From here on in memory only; what is on disk is read as before.
        window.stop_storing();
        let id = window.join(reader(0, None));
        window.insert(10, piece(5), None);
        assert_eq!(read(&window, 12, 100), Some(piece(3)));
        window.hashed(frontier(15));
        window.moved(id, reader(15, None));
        assert_eq!(read(&window, 12, 100), None);
        assert_eq!(window.mark(12).unwrap().at, 10);
        assert_eq!(read(&window, 0, 3), Some(piece(3)));
    }

    #[test]
    fn room_is_made_at_the_expense_of_the_slowest() {
        let mut window = Window::new(frontier(0));
        window.join(reader(0, None));
        window.stop_storing();
        window.insert(0, piece(WINDOW_BYTES as usize), None);
        assert!(!window.has_room(1) && window.can_serve(0, WINDOW_BYTES));
        // Not yet hashed, and nobody is further.
        window.make_room(1);
        window.join(reader(WINDOW_BYTES, None));
        window.make_room(1);
        assert!(!window.has_room(1));
        window.hashed(frontier(WINDOW_BYTES));
        window.make_room(1);
        assert!(window.has_room(1) && !window.can_serve(0, WINDOW_BYTES));
        assert_eq!(window.mark(5).unwrap().at, 0);
    }
}

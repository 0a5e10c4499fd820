//! The policies that could be built, behind one trait.
//!
//! Each makes room before it stores, so that its capacity holds at every moment. What is larger than
//! the capacity passes by.

#![expect(clippy::indexing_slicing, reason = "a bench may panic")]

use std::collections::BTreeSet;

use crate::{RESOLUTION_S, trace::Request};

pub(crate) trait Policy {
    /// Reads an object, and stores it if it is missing and deserves it. Returns the bytes found.
    fn request(&mut self, request: &Request) -> u64;

    /// Bytes stored, never more than the capacity.
    fn bytes(&self) -> u64;
}

/// Objects in the order of their keys, as the rows of an index would be.
pub(crate) struct Shelf<K> {
    pub(crate) order: BTreeSet<(K, u32)>,
    /// By object: its key, and the bytes it takes.
    rows: Vec<Option<(K, u64)>>,
    pub(crate) bytes: u64,
}

/// Least recently used goes first; with a gate, what is large is stored at its second request only.
pub(crate) struct Lru {
    capacity: u64,
    resolution_s: u64,
    gate: Option<Gate>,
    shelf: Shelf<(u64, u32)>,
}

pub(crate) struct Gate {
    /// Smaller objects pass.
    pub(crate) free_below: u64,
    pub(crate) asked: Ghost,
}

/// What is remembered of objects that are not stored, the latest up to a limit.
pub(crate) struct Ghost {
    limit: u64,
    shelf: Shelf<u32>,
}

/// Probation for what came in, protection for what was read again a minute later or more. The oldest
/// of probation goes first while it holds more than its window, else the oldest protected.
///
/// What is about to come in doesn't count as probation yet: counted, a blob larger than the window
/// would empty it first, which measured worse where favourites change and in rollouts.
pub(crate) struct Segmented {
    capacity: u64,
    window: u64,
    probation: Shelf<(u64, u32)>,
    protected: Shelf<(u64, u32)>,
    /// With one, what left probation and comes back is protected at once, as in 2Q.
    ghost: Option<Ghost>,
}

/// Greedy dual size frequency: the least of `floor + reads × cost / size` goes first, and its value
/// becomes the floor.
pub(crate) struct Gdsf {
    capacity: u64,
    cost: Cost,
    floor: f64,
    /// By value (the bits of a positive float sort as it does), last use, reads.
    shelf: Shelf<(u64, u32, u32)>,
}

#[derive(Clone, Copy)]
pub(crate) enum Cost {
    /// Every miss costs the same: for hits by request.
    Request,
    /// A miss costs its bytes: for hits by byte. This is LFU with dynamic ageing.
    Byte,
}

/// S3-FIFO, its queues measured in bytes: a small one of a tenth, a main one with second chances,
/// and a ghost as large as the main one.
pub(crate) struct S3Fifo {
    capacity: u64,
    turn: u64,
    /// By turn of entry; then hits, at most three.
    small: Shelf<(u64, u8)>,
    main: Shelf<(u64, u8)>,
    ghost: Ghost,
}

// === impl Shelf ===

impl<K: Ord + Copy> Shelf<K> {
    pub(crate) fn new() -> Self {
        Self { order: BTreeSet::new(), rows: Vec::new(), bytes: 0 }
    }

    fn key(&self, object: u32) -> Option<K> {
        self.rows.get(object as usize).copied().flatten().map(|(key, _)| key)
    }

    pub(crate) fn bytes_of(&self, object: u32) -> u64 {
        self.rows.get(object as usize).copied().flatten().map_or(0, |(_, bytes)| bytes)
    }

    fn first(&self) -> Option<(K, u32)> {
        self.order.first().copied()
    }

    /// Puts an object at a new place, or moves it there.
    pub(crate) fn put(&mut self, object: u32, key: K, bytes: u64) {
        self.take(object);
        let row = object as usize;
        if row >= self.rows.len() {
            self.rows.resize(row + 1, None);
        }
        self.rows[row] = Some((key, bytes));
        self.order.insert((key, object));
        self.bytes += bytes;
    }

    pub(crate) fn take(&mut self, object: u32) -> Option<(K, u64)> {
        let (key, bytes) = self.rows.get_mut(object as usize)?.take()?;
        self.order.remove(&(key, object));
        self.bytes -= bytes;
        Some((key, bytes))
    }

    /// Takes the first object, with its key and bytes.
    fn pop(&mut self) -> Option<(u32, K, u64)> {
        let (_, object) = self.first()?;
        self.take(object).map(|(key, bytes)| (object, key, bytes))
    }
}

// === impl Ghost ===

impl Ghost {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, shelf: Shelf::new() }
    }

    fn remember(&mut self, object: u32, now: u32, weight: u64) {
        self.shelf.put(object, now, weight);
        while self.shelf.bytes > self.limit && self.shelf.pop().is_some() {}
    }

    /// Whether the object was remembered; it no longer is.
    fn recall(&mut self, object: u32) -> bool {
        self.shelf.take(object).is_some()
    }
}

// === impl Lru ===

impl Lru {
    pub(crate) fn new(capacity: u64, resolution_s: u64, gate: Option<Gate>) -> Self {
        Self { capacity, resolution_s, gate, shelf: Shelf::new() }
    }
}

impl Policy for Lru {
    fn request(&mut self, request: &Request) -> u64 {
        let Request { position, at_s, object, bytes, .. } = *request;
        if let Some((used_s, _)) = self.shelf.key(object) {
            if at_s - used_s >= self.resolution_s {
                self.shelf.put(object, (at_s, position), bytes);
            }
            return bytes;
        }
        let admitted = self.gate.as_mut().is_none_or(|gate| gate.admits(request));
        if admitted && bytes <= self.capacity {
            while self.shelf.bytes + bytes > self.capacity && self.shelf.pop().is_some() {}
            self.shelf.put(object, (at_s, position), bytes);
        }
        0
    }

    fn bytes(&self) -> u64 {
        self.shelf.bytes
    }
}

impl Gate {
    fn admits(&mut self, request: &Request) -> bool {
        if request.bytes < self.free_below || self.asked.recall(request.object) {
            return true;
        }
        self.asked.remember(request.object, request.position, 1);
        false
    }
}

// === impl Segmented ===

impl Segmented {
    pub(crate) fn new(capacity: u64, percent: u64, ghost: Option<Ghost>) -> Self {
        let (probation, protected) = (Shelf::new(), Shelf::new());
        Self { capacity, window: capacity / 100 * percent, probation, protected, ghost }
    }

    fn evict(&mut self, now: u32) {
        if self.probation.bytes <= self.window && self.protected.pop().is_some() {
            return;
        }
        let gone = self.probation.pop();
        if let (Some((object, _, bytes)), Some(ghost)) = (gone, &mut self.ghost) {
            ghost.remember(object, now, bytes);
        }
    }
}

impl Policy for Segmented {
    fn request(&mut self, request: &Request) -> u64 {
        let Request { position, at_s, object, bytes, .. } = *request;
        let known = self.probation.key(object).or_else(|| self.protected.key(object));
        if let Some((used_s, _)) = known {
            if at_s - used_s >= RESOLUTION_S {
                self.probation.take(object);
                self.protected.put(object, (at_s, position), bytes);
            }
            return bytes;
        }
        if bytes > self.capacity {
            return 0;
        }
        let known = self.ghost.as_mut().is_some_and(|ghost| ghost.recall(object));
        while self.bytes() + bytes > self.capacity {
            self.evict(position);
        }
        let shelf = if known { &mut self.protected } else { &mut self.probation };
        shelf.put(object, (at_s, position), bytes);
        0
    }

    fn bytes(&self) -> u64 {
        self.probation.bytes + self.protected.bytes
    }
}

// === impl Gdsf ===

impl Gdsf {
    pub(crate) fn new(capacity: u64, cost: Cost) -> Self {
        Self { capacity, cost, floor: 0.0, shelf: Shelf::new() }
    }

    fn put(&mut self, request: &Request, reads: u32) {
        let worth = match self.cost {
            Cost::Request => f64::from(reads) / request.bytes as f64,
            Cost::Byte => f64::from(reads),
        };
        let key = ((self.floor + worth).to_bits(), request.position, reads);
        self.shelf.put(request.object, key, request.bytes);
    }
}

impl Policy for Gdsf {
    fn request(&mut self, request: &Request) -> u64 {
        if let Some((_, _, reads)) = self.shelf.key(request.object) {
            self.put(request, reads + 1);
            return request.bytes;
        }
        if request.bytes > self.capacity {
            return 0;
        }
        while self.shelf.bytes + request.bytes > self.capacity {
            if let Some((_, (value, _, _), _)) = self.shelf.pop() {
                self.floor = f64::from_bits(value);
            }
        }
        self.put(request, 1);
        0
    }

    fn bytes(&self) -> u64 {
        self.shelf.bytes
    }
}

// === impl S3Fifo ===

impl S3Fifo {
    pub(crate) fn new(capacity: u64) -> Self {
        let ghost = Ghost::new(capacity - capacity / 10);
        Self { capacity, turn: 0, small: Shelf::new(), main: Shelf::new(), ghost }
    }

    fn next_turn(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }

    /// Looks at one object: it goes, or gets another turn in the main queue.
    fn evict(&mut self, now: u32) {
        let turn = self.next_turn();
        if self.small.bytes > self.capacity / 10 || self.main.first().is_none() {
            match self.small.pop() {
                Some((object, (_, 2..), bytes)) => self.main.put(object, (turn, 0), bytes),
                Some((object, _, bytes)) => self.ghost.remember(object, now, bytes),
                None => {}
            }
        } else if let Some((object, (_, hits @ 1..), bytes)) = self.main.pop() {
            self.main.put(object, (turn, hits - 1), bytes);
        }
    }
}

impl Policy for S3Fifo {
    fn request(&mut self, request: &Request) -> u64 {
        let Request { position, object, bytes, .. } = *request;
        for queue in [&mut self.small, &mut self.main] {
            if let Some((turn, hits)) = queue.key(object) {
                queue.put(object, (turn, 3.min(hits + 1)), bytes);
                return bytes;
            }
        }
        if bytes > self.capacity {
            return 0;
        }
        let known = self.ghost.recall(object);
        while self.bytes() + bytes > self.capacity {
            self.evict(position);
        }
        let turn = self.next_turn();
        let queue = if known { &mut self.main } else { &mut self.small };
        queue.put(object, (turn, 0), bytes);
        0
    }

    fn bytes(&self) -> u64 {
        self.small.bytes + self.main.bytes
    }
}

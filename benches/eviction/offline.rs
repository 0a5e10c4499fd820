//! What knows the future: an order that could be followed, were it known, and a bound on all orders.
//!
//! With sizes the true optimum is NP-hard. By bytes Belady and the bound lie so close that the
//! optimum is known; by requests the bound is loose.

use crate::{
    Score,
    policy::{Policy, Shelf},
    replay,
    trace::{NEVER, Request, Trace},
};

/// Offline and achievable: the farthest next use goes first, and an object isn't stored if it would
/// have to displace one that is needed sooner. Whole objects only, so not quite the optimum.
pub(crate) struct Belady {
    capacity: u64,
    shelf: Shelf<u32>,
}

/// The bound by bytes: Belady's rule where parts of objects may be kept. With each byte a page of its
/// own that rule is optimal, and a policy that keeps whole objects is one of those it beats.
pub(crate) struct ByteBelady {
    capacity: u64,
    shelf: Shelf<u32>,
}

/// What no policy can pass. By bytes see `ByteBelady`. By requests: a hit keeps its object from one
/// request to the next, which takes size × length of the capacity × the trace's length; the bound is
/// how many of the cheapest fit in there, wherever they lie. It is looser than the one by bytes.
pub(crate) fn bound(trace: &Trace, capacity: u64) -> Score {
    let bytes = replay(&mut ByteBelady::new(capacity), trace, capacity).bytes;
    let counted = trace.requests.iter().filter(|request| request.counted).count();
    let kept = trace.requests.iter().filter(|request| request.next != NEVER);
    let cost = |request: &Request| u64::from(request.next - request.position) * request.bytes;
    let mut costs: Vec<u64> = kept.map(cost).collect();
    costs.sort_unstable();
    let mut room = u128::from(capacity) * trace.requests.len() as u128;
    let mut hits = 0;
    for cost in costs {
        hits += 1;
        if u128::from(cost) > room {
            break;
        }
        room -= u128::from(cost);
    }
    Score { bytes, requests: f64::from(hits) / counted as f64 }
}

// === impl Belady, ByteBelady ===

impl Belady {
    pub(crate) fn new(capacity: u64) -> Self {
        Self { capacity, shelf: Shelf::new() }
    }

    /// Makes room out of objects needed later than `next`; false, and all stay, if that isn't enough.
    fn make_room(&mut self, bytes: u64, next: u32) -> bool {
        let mut free = self.capacity - self.shelf.bytes;
        let mut victims = Vec::new();
        let mut farthest = self.shelf.order.iter().rev().take_while(|(use_at, _)| *use_at > next);
        while free < bytes {
            let Some((_, object)) = farthest.next() else {
                return false;
            };
            free += self.shelf.bytes_of(*object);
            victims.push(*object);
        }
        for object in victims {
            self.shelf.take(object);
        }
        true
    }
}

impl Policy for Belady {
    fn request(&mut self, request: &Request) -> u64 {
        let found = self.shelf.take(request.object).map_or(0, |(_, bytes)| bytes);
        if request.next != NEVER && self.make_room(request.bytes, request.next) {
            self.shelf.put(request.object, request.next, request.bytes);
        }
        found
    }

    fn bytes(&self) -> u64 {
        self.shelf.bytes
    }
}

impl ByteBelady {
    pub(crate) fn new(capacity: u64) -> Self {
        Self { capacity, shelf: Shelf::new() }
    }
}

impl Policy for ByteBelady {
    fn request(&mut self, request: &Request) -> u64 {
        let found = self.shelf.take(request.object).map_or(0, |(_, bytes)| bytes);
        if request.next == NEVER {
            return found;
        }
        let mut room = self.capacity - self.shelf.bytes;
        while let Some(&(next, object)) = self.shelf.order.last() {
            if room >= request.bytes || next <= request.next {
                break;
            }
            let kept = self.shelf.bytes_of(object);
            let cut = kept.min(request.bytes - room);
            room += cut;
            self.shelf.take(object);
            if kept > cut {
                self.shelf.put(object, next, kept - cut);
            }
        }
        self.shelf.put(request.object, request.next, request.bytes.min(room));
        found
    }

    fn bytes(&self) -> u64 {
        self.shelf.bytes
    }
}

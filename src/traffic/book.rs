//! Two running totals for each of many names, in bounded memory.
//!
//! Names that are there already are added to side by side. A name that is added
//! to again and again can be held ([`Book::line`]), and then costs no look-up.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Names told apart; what comes after is counted together, until the quieter half of those known
/// has made room.
pub const ENTRIES: usize = 10_000;

/// The totals by name.
#[derive(Debug)]
pub struct Book<K> {
    lines: RwLock<Lines<K>>,
}

#[derive(Debug)]
struct Lines<K> {
    lines: HashMap<K, Arc<Line>>,
    /// Of the names that made room.
    others: Sums,
}

/// The totals of one name.
#[derive(Debug)]
pub struct Line {
    first: AtomicU64,
    second: AtomicU64,
    /// Until it makes room for others.
    is_open: AtomicBool,
}

/// Both totals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sums {
    /// What comes first where names are compared.
    pub first: u64,
    /// What comes second.
    pub second: u64,
}

/// By which total names are put in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By the first, then the second.
    First,
    /// By the second, then the first.
    Second,
}

// === impl Book ===

impl<K> Default for Book<K> {
    fn default() -> Self {
        Self { lines: RwLock::new(Lines { lines: HashMap::new(), others: Sums::default() }) }
    }
}

impl<K: Clone + Eq + Hash + Ord> Book<K> {
    /// Adds to the totals of `key`.
    pub fn add(&self, key: &K, first: u64, second: u64) {
        let added = self.read(|lines| lines.lines.get(key).map(|line| line.add(first, second)));
        // Under the lock every line is open.
        if added.is_none() {
            self.open(key, first, second);
        }
    }

    /// The line of `key`, which may have no totals yet.
    pub fn line(&self, key: &K) -> Arc<Line> {
        match self.read(|lines| lines.lines.get(key).cloned()) {
            Some(line) => line,
            None => self.open(key, 0, 0),
        }
    }

    /// The totals of `key`, while it is told apart.
    pub fn sums(&self, key: &K) -> Sums {
        self.read(|lines| lines.lines.get(key).map(|line| line.sums())).unwrap_or_default()
    }

    /// The first `most` names in that order, and all others together.
    pub fn top(&self, most: usize, order: Order) -> (Vec<(K, Sums)>, Sums) {
        self.read(|lines| lines.top(most, order))
    }

    fn open(&self, key: &K, first: u64, second: u64) -> Arc<Line> {
        let mut lines = self.lines.write().unwrap_or_else(PoisonError::into_inner);
        if !lines.lines.contains_key(key) && lines.lines.len() >= ENTRIES {
            lines.make_room();
        }
        let line = lines.lines.entry(key.clone()).or_default();
        line.add(first, second);
        Arc::clone(line)
    }

    fn read<R>(&self, look: impl FnOnce(&Lines<K>) -> R) -> R {
        look(&self.lines.read().unwrap_or_else(PoisonError::into_inner))
    }
}

// === impl Lines ===

impl<K: Clone + Eq + Hash + Ord> Lines<K> {
    /// Counts the quieter half together.
    fn make_room(&mut self) {
        let mut sums: Vec<_> = self.lines.values().map(|line| line.sums()).collect();
        let middle = sums.len() / 2;
        let (quieter, median, _) = sums.select_nth_unstable(middle);
        let median = *median;
        // Of those that are as quiet as each other, no more than are needed.
        let mut equal = quieter.iter().filter(|sums| **sums == median).count();
        let others = &mut self.others;
        self.lines.retain(|_, line| {
            let sums = line.sums();
            let goes = sums < median || sums == median && equal > 0;
            if goes {
                equal -= usize::from(sums == median);
                others.add(line.close());
            }
            !goes
        });
    }

    fn top(&self, most: usize, order: Order) -> (Vec<(K, Sums)>, Sums) {
        let sums = self.lines.iter().map(|(key, line)| (key, line.sums()));
        let mut all: Vec<_> = sums.filter(|(_, sums)| *sums != Sums::default()).collect();
        let compare = |a: &(&K, Sums), b: &(&K, Sums)| {
            b.1.rank(order).cmp(&a.1.rank(order)).then_with(|| a.0.cmp(b.0))
        };
        let mut rest = self.others;
        if most < all.len() {
            all.select_nth_unstable_by(most, compare);
            all.drain(most..).for_each(|(_, sums)| rest.add(sums));
        }
        all.sort_unstable_by(compare);
        (all.into_iter().map(|(key, sums)| (key.clone(), sums)).collect(), rest)
    }
}

// === impl Line ===

impl Default for Line {
    fn default() -> Self {
        let (first, second) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { first, second, is_open: AtomicBool::new(true) }
    }
}

impl Line {
    /// Adds to both totals; false if its name is not told apart any more, and nothing was added.
    pub fn add(&self, first: u64, second: u64) -> bool {
        if !self.is_open.load(Ordering::Relaxed) {
            return false;
        }
        if first > 0 {
            self.first.fetch_add(first, Ordering::Relaxed);
        }
        if second > 0 {
            self.second.fetch_add(second, Ordering::Relaxed);
        }
        true
    }

    fn sums(&self) -> Sums {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Sums { first: load(&self.first), second: load(&self.second) }
    }

    /// What somebody adds without the book at this very moment may be lost.
    fn close(&self) -> Sums {
        self.is_open.store(false, Ordering::Relaxed);
        self.sums()
    }
}

// === impl Sums ===

impl Sums {
    fn add(&mut self, other: Self) {
        self.first += other.first;
        self.second += other.second;
    }

    fn rank(self, order: Order) -> (u64, u64) {
        match order {
            Order::First => (self.first, self.second),
            Order::Second => (self.second, self.first),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_in_either_order_and_equal_ones_by_name() {
        let book = Book::default();
        for (name, first, second) in [("b", 2, 10), ("a", 2, 10), ("c", 1, 99), ("d", 9, 0)] {
            book.add(&name, first, second);
        }
        let names = |order| -> Vec<&str> {
            book.top(3, order).0.into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names(Order::First), ["d", "a", "b"]);
        assert_eq!(names(Order::Second), ["c", "a", "b"]);
        assert_eq!(book.top(3, Order::First).1, Sums { first: 1, second: 99 });
    }

    #[test]
    fn a_line_that_is_held_is_told_when_it_made_room() {
        let book = Book::default();
        let quiet = book.line(&usize::MAX);
        assert!(quiet.add(1, 5));
        for name in 0..2 * ENTRIES {
            book.add(&name, 2, 0);
        }
        assert!(!quiet.add(1, 5), "its name is among the others");
        assert_eq!(book.sums(&usize::MAX), Sums::default());
        let (all, rest) = book.top(usize::MAX, Order::First);
        let first: u64 = all.iter().map(|(_, sums)| sums.first).sum();
        assert_eq!(first + rest.first, 4 * ENTRIES as u64 + 1);
        assert_eq!(rest.second, 5);
        assert!(all.len() <= ENTRIES);
    }

    #[test]
    fn a_name_without_totals_is_not_listed() {
        let book = Book::default();
        let line = book.line(&"idle");
        assert!(book.top(5, Order::First).0.is_empty());
        line.add(1, 0);
        assert_eq!(book.top(5, Order::First).0.len(), 1);
    }
}

//! Who spent the budget of an upstream, and what was saved: by repository and by client.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::Serialize;

use crate::protocol::Repository;

/// Repositories and clients told apart; what comes after is counted together, until the quieter
/// half of those known has made room.
const ENTRIES: usize = 10_000;

/// The books of one upstream, since the start of the server.
#[derive(Debug, Default)]
pub struct Ledger {
    spent: AtomicU64,
    saved: AtomicU64,
    repositories: RwLock<Book<Repository>>,
    clients: RwLock<Book<IpAddr>>,
}

/// Pulls: requests that the registry counted, and those of clients that cost none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Tally {
    /// Counted by the registry.
    pub spent: u64,
    /// Answered without a counted request.
    pub saved: u64,
}

/// One line of a book.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Entry {
    /// A repository, or a client's address.
    pub name: String,
    /// What it spent and saved.
    #[serde(flatten)]
    pub tally: Tally,
}

#[derive(Debug)]
struct Book<K> {
    tallies: HashMap<K, Counts>,
    others: Tally,
}

/// A tally that readers of the book may add to.
#[derive(Debug, Default)]
struct Counts {
    spent: AtomicU64,
    saved: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Spent,
    Saved,
}

// === impl Ledger ===

impl Ledger {
    /// The registry counted a request for `repository`, made for `client`.
    pub(super) fn spend(&self, repository: &Repository, client: Option<IpAddr>) {
        self.spent.fetch_add(1, Ordering::Relaxed);
        self.enter(What::Spent, repository, client);
    }

    /// A client's request was answered without one.
    pub fn save(&self, repository: &Repository, client: Option<IpAddr>) {
        self.saved.fetch_add(1, Ordering::Relaxed);
        self.enter(What::Saved, repository, client);
    }

    /// All of it.
    pub fn total(&self) -> Tally {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Tally { spent: load(&self.spent), saved: load(&self.saved) }
    }

    /// The repositories that spent most, `most` of them.
    pub fn repositories(&self, most: usize) -> Vec<Entry> {
        read(&self.repositories, |book| book.top(most))
    }

    /// The clients that spent most.
    pub fn clients(&self, most: usize) -> Vec<Entry> {
        read(&self.clients, |book| book.top(most))
    }

    fn enter(&self, what: What, repository: &Repository, client: Option<IpAddr>) {
        enter(&self.repositories, what, repository);
        if let Some(client) = client {
            enter(&self.clients, what, &client);
        }
    }
}

// === impl Book ===

impl<K> Default for Book<K> {
    fn default() -> Self {
        Self { tallies: HashMap::new(), others: Tally::default() }
    }
}

impl<K: Clone + Eq + Hash + ToString> Book<K> {
    /// A line for `key`, which had none a moment ago.
    fn open(&mut self, what: What, key: &K) {
        if !self.tallies.contains_key(key) && self.tallies.len() >= ENTRIES {
            self.make_room();
        }
        self.tallies.entry(key.clone()).or_default().add(what);
    }

    /// Counts the quieter half together.
    fn make_room(&mut self) {
        let mut sums: Vec<_> = self.tallies.values().map(|counts| counts.tally().rank()).collect();
        let middle = sums.len() / 2;
        let (_, median, _) = sums.select_nth_unstable(middle);
        let median = *median;
        let others = &mut self.others;
        let mut to_go = middle;
        self.tallies.retain(|_, counts| {
            let tally = counts.tally();
            let goes = to_go > 0 && tally.rank() <= median;
            if goes {
                to_go -= 1;
                others.spent += tally.spent;
                others.saved += tally.saved;
            }
            !goes
        });
    }

    fn top(&self, most: usize) -> Vec<Entry> {
        let mut all: Vec<_> =
            self.tallies.iter().map(|(key, counts)| (key, counts.tally())).collect();
        all.sort_by_cached_key(|(key, tally)| (std::cmp::Reverse(tally.rank()), key.to_string()));
        let entry = |(key, tally): &(&K, Tally)| Entry { name: key.to_string(), tally: *tally };
        let mut top: Vec<_> = all.iter().take(most).map(entry).collect();
        let rest = all.iter().skip(most).fold(self.others, |sum, (_, tally)| Tally {
            spent: sum.spent + tally.spent,
            saved: sum.saved + tally.saved,
        });
        if rest != Tally::default() {
            top.push(Entry { name: "others".to_owned(), tally: rest });
        }
        top
    }
}

// === impl Counts ===

impl Counts {
    fn add(&self, what: What) {
        match what {
            What::Spent => self.spent.fetch_add(1, Ordering::Relaxed),
            What::Saved => self.saved.fetch_add(1, Ordering::Relaxed),
        };
    }

    fn tally(&self) -> Tally {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Tally { spent: load(&self.spent), saved: load(&self.saved) }
    }
}

// === impl Tally ===

impl Tally {
    /// Spending comes first.
    fn rank(&self) -> (u64, u64) {
        (self.spent, self.saved)
    }
}

/// Adds to a line; those that are there already are added to side by side.
fn enter<K: Clone + Eq + Hash + ToString>(book: &RwLock<Book<K>>, what: What, key: &K) {
    let is_there = read(book, |book| book.tallies.get(key).map(|counts| counts.add(what)));
    if is_there.is_none() {
        book.write().unwrap_or_else(PoisonError::into_inner).open(what, key);
    }
}

fn read<T, R>(book: &RwLock<T>, look: impl FnOnce(&T) -> R) -> R {
    look(&book.read().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(name: &str) -> Repository {
        Repository::parse(name).unwrap()
    }

    #[test]
    fn nothing_is_lost_where_many_enter_a_new_line_at_once() {
        let ledger = Ledger::default();
        let client = "192.0.2.1".parse().ok();
        let names: Vec<_> = (0..50).map(|n| repository(&format!("library/r{n}"))).collect();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| names.iter().for_each(|name| ledger.save(name, client)));
            }
        });
        assert!(ledger.repositories(50).iter().all(|line| line.tally.saved == 8));
        assert_eq!(ledger.clients(1)[0].tally, Tally { spent: 0, saved: 400 });
    }

    #[test]
    fn who_spent_most_comes_first_and_nothing_is_lost() {
        let ledger = Ledger::default();
        let client = "192.0.2.1".parse().ok();
        for _ in 0..3 {
            ledger.spend(&repository("library/busy"), client);
        }
        ledger.save(&repository("library/quiet"), None);
        ledger.save(&repository("library/quiet"), client);
        ledger.spend(&repository("library/once"), None);
        assert_eq!(ledger.total(), Tally { spent: 4, saved: 2 });
        let names: Vec<_> = ledger.repositories(1).into_iter().map(|it| it.name).collect();
        assert_eq!(names, ["library/busy", "others"]);
        let clients = ledger.clients(10);
        assert_eq!(clients.len(), 1);
        assert_eq!(clients[0].tally, Tally { spent: 3, saved: 1 });
    }

    #[test]
    fn many_names_are_bounded_and_add_up() {
        let ledger = Ledger::default();
        ledger.spend(&repository("library/loud"), None);
        ledger.spend(&repository("library/loud"), None);
        let count = 3 * ENTRIES as u64;
        for n in 0..count {
            ledger.spend(&repository(&format!("library/i{n}")), None);
        }
        assert!(read(&ledger.repositories, |book| book.tallies.len()) <= ENTRIES);
        let all = ledger.repositories(usize::MAX);
        assert_eq!(all[0].name, "library/loud");
        assert_eq!(all.iter().map(|entry| entry.tally.spent).sum::<u64>(), count + 2);
    }
}

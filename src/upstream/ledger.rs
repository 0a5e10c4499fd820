//! Who spent the budget of an upstream, and what was saved: by repository and by client.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
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
    repositories: Mutex<Book<Repository>>,
    clients: Mutex<Book<IpAddr>>,
}

/// Pulls: requests that the registry counted, and those of clients that cost none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Counted by the registry.
    pub spent: u64,
    /// Answered without a counted request.
    pub saved: u64,
}

/// One line of a book.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// A repository, or a client's address.
    pub name: String,
    /// What it spent and saved.
    #[serde(flatten)]
    pub tally: Tally,
}

#[derive(Debug)]
struct Book<K> {
    tallies: HashMap<K, Tally>,
    others: Tally,
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
        lock(&self.repositories).top(most)
    }

    /// The clients that spent most.
    pub fn clients(&self, most: usize) -> Vec<Entry> {
        lock(&self.clients).top(most)
    }

    fn enter(&self, what: What, repository: &Repository, client: Option<IpAddr>) {
        lock(&self.repositories).enter(what, repository);
        if let Some(client) = client {
            lock(&self.clients).enter(what, &client);
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
    fn enter(&mut self, what: What, key: &K) {
        if let Some(tally) = self.tallies.get_mut(key) {
            tally.add(what);
            return;
        }
        if self.tallies.len() >= ENTRIES {
            self.make_room();
        }
        let mut tally = Tally::default();
        tally.add(what);
        self.tallies.insert(key.clone(), tally);
    }

    /// Counts the quieter half together.
    fn make_room(&mut self) {
        let mut sums: Vec<_> = self.tallies.values().map(|tally| tally.rank()).collect();
        let middle = sums.len() / 2;
        let (_, median, _) = sums.select_nth_unstable(middle);
        let median = *median;
        let others = &mut self.others;
        let mut to_go = middle;
        self.tallies.retain(|_, tally| {
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
        let mut all: Vec<_> = self.tallies.iter().collect();
        all.sort_by_cached_key(|(key, tally)| (std::cmp::Reverse(tally.rank()), key.to_string()));
        let entry = |(key, tally): (&K, &Tally)| Entry { name: key.to_string(), tally: *tally };
        let mut top: Vec<_> =
            all.iter().take(most).map(|(key, tally)| entry((key, tally))).collect();
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

// === impl Tally ===

impl Tally {
    fn add(&mut self, what: What) {
        match what {
            What::Spent => self.spent += 1,
            What::Saved => self.saved += 1,
        }
    }

    /// Spending comes first.
    fn rank(&self) -> (u64, u64) {
        (self.spent, self.saved)
    }
}

fn lock<T>(book: &Mutex<T>) -> MutexGuard<'_, T> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(name: &str) -> Repository {
        Repository::parse(name).unwrap()
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
        assert!(lock(&ledger.repositories).tallies.len() <= ENTRIES);
        let all = ledger.repositories(usize::MAX);
        assert_eq!(all[0].name, "library/loud");
        assert_eq!(all.iter().map(|entry| entry.tally.spent).sum::<u64>(), count + 2);
    }
}

//! Who spent the budget of an upstream, and what was saved: by repository and by client.

use std::{
    hash::Hash,
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use serde::Serialize;

use crate::{
    protocol::Repository,
    traffic::{Book, Order, Sums},
};

/// The books of one upstream, since the start of the server.
#[derive(Debug, Default)]
pub struct Ledger {
    spent: AtomicU64,
    saved: AtomicU64,
    /// By what each spent, then by what it saved.
    repositories: Book<Repository>,
    clients: Book<IpAddr>,
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

// === impl Tally ===

impl Tally {
    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            spent: self.spent.saturating_add(other.spent),
            saved: self.saved.saturating_add(other.saved),
        }
    }
}

// === impl Ledger ===

impl Ledger {
    /// The registry counted a request for `repository`, made for `client`.
    pub(super) fn spend(&self, repository: &Repository, client: Option<IpAddr>) {
        self.spent.fetch_add(1, Ordering::Relaxed);
        self.enter(repository, client, 1, 0);
    }

    /// A client's request was answered without one.
    pub fn save(&self, repository: &Repository, client: Option<IpAddr>) {
        self.saved.fetch_add(1, Ordering::Relaxed);
        self.enter(repository, client, 0, 1);
    }

    /// All of it.
    pub fn total(&self) -> Tally {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Tally { spent: load(&self.spent), saved: load(&self.saved) }
    }

    /// The repositories that spent most, `most` of them, and all others.
    pub fn repositories(&self, most: usize) -> Vec<Entry> {
        entries(&self.repositories, most)
    }

    /// The clients that spent most.
    pub fn clients(&self, most: usize) -> Vec<Entry> {
        entries(&self.clients, most)
    }

    /// What was spent and saved on a repository.
    pub fn repository(&self, repository: &Repository) -> Tally {
        self.repositories.sums(repository).into()
    }

    /// What was spent and saved on a client.
    pub fn client(&self, client: &IpAddr) -> Tally {
        self.clients.sums(client).into()
    }

    fn enter(&self, repository: &Repository, client: Option<IpAddr>, spent: u64, saved: u64) {
        self.repositories.add(repository, spent, saved);
        if let Some(client) = client {
            self.clients.add(&client, spent, saved);
        }
    }
}

// === impl Tally ===

impl From<Sums> for Tally {
    fn from(sums: Sums) -> Self {
        Self { spent: sums.first, saved: sums.second }
    }
}

fn entries<K: Clone + Eq + Hash + Ord + ToString>(book: &Book<K>, most: usize) -> Vec<Entry> {
    let (top, rest) = book.top(most, Order::First);
    let entry = |(key, sums): (K, Sums)| Entry { name: key.to_string(), tally: sums.into() };
    let mut entries: Vec<_> = top.into_iter().map(entry).collect();
    if rest != Sums::default() {
        entries.push(Entry { name: "others".to_owned(), tally: rest.into() });
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic;

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
        let count = 3 * traffic::ENTRIES as u64;
        for n in 0..count {
            ledger.spend(&repository(&format!("library/i{n}")), None);
        }
        let all = ledger.repositories(usize::MAX);
        assert!(all.len() <= traffic::ENTRIES + 1);
        assert_eq!(all[0].name, "library/loud");
        assert_eq!(all.iter().map(|entry| entry.tally.spent).sum::<u64>(), count + 2);
    }
}

//! Who comes first, with what was spent on them.

use std::{net::IpAddr, sync::Arc};

use super::{MOST_LISTED, Top, TopEntry};
use crate::{
    traffic::{Book, Order, Place, Sums, Traffic},
    upstream::{Tally, Upstream},
};

/// The repositories that are asked for most.
pub(super) fn repositories(traffic: &Traffic, upstreams: &[Arc<Upstream>]) -> Top {
    top(&traffic.repositories, |(name, repository): Place, sums| {
        let upstream = upstreams.iter().find(|upstream| **upstream.name() == *name);
        let tally = upstream.map(|upstream| upstream.ledger().repository(&repository));
        let upstream = Some(name.to_string());
        entry(repository.to_string(), upstream, sums, tally.unwrap_or_default())
    })
}

/// The clients that ask most.
pub(super) fn clients(traffic: &Traffic, upstreams: &[Arc<Upstream>]) -> Top {
    top(&traffic.clients, |client: IpAddr, sums| {
        let tallies = upstreams.iter().map(|upstream| upstream.ledger().client(&client));
        let tally = tallies.fold(Tally::default(), |sum, tally| Tally {
            spent: sum.spent + tally.spent,
            saved: sum.saved + tally.saved,
        });
        entry(client.to_string(), None, sums, tally)
    })
}

fn top<K>(book: &Book<K>, entry: impl Fn(K, Sums) -> TopEntry) -> Top
where
    K: Clone + Eq + std::hash::Hash + Ord,
{
    let list = |order| {
        let (top, _) = book.top(MOST_LISTED, order);
        top.into_iter().map(|(name, sums)| entry(name, sums)).collect()
    };
    Top { by_requests: list(Order::First), by_bytes: list(Order::Second) }
}

fn entry(name: String, upstream: Option<String>, sums: Sums, tally: Tally) -> TopEntry {
    let (requests, bytes) = (sums.first, sums.second);
    TopEntry { name, upstream, requests, bytes, spent: tally.spent, saved: tally.saved }
}

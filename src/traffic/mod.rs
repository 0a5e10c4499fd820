//! Who asks for what: requests and body bytes, by repository and by client, since the start.

mod book;

use std::{net::IpAddr, sync::Arc};

pub use book::{Book, ENTRIES, Line, Order, Sums};

use crate::protocol::Repository;

/// A repository and its upstream's name.
pub type Place = (Arc<str>, Repository);

/// The totals; the first is requests, the second body bytes sent.
#[derive(Debug, Default)]
pub struct Traffic {
    /// By repository.
    pub repositories: Book<Place>,
    /// By client.
    pub clients: Book<IpAddr>,
}

// === impl Traffic ===

impl Traffic {
    /// A client's request for something in a repository was answered with so many bytes.
    pub fn enter(&self, place: &Place, client: Option<IpAddr>, bytes: u64) {
        self.repositories.add(place, 1, bytes);
        if let Some(client) = client {
            self.clients.add(&client, 1, bytes);
        }
    }
}

//! What requests are served by, and what a reload puts in its place.

use arc_swap::ArcSwap;

use crate::{config::Downstream, filter::Chain};

/// What a request is served by from its head to its end.
#[derive(Debug)]
pub struct Rules {
    /// What is decided of it.
    pub chain: Chain,
    /// What its client may demand.
    pub downstream: Downstream,
}

/// The rules in force, for requests and connections that begin.
pub type Live = ArcSwap<Rules>;

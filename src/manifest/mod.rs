//! Manifests: by tag, revalidated for free; by digest, once and for ever.
//!
//! P1 is kept here: `obtain` makes the only counted requests, for digests that
//! are not stored and for registries that can't do HEAD.

mod known;
mod manifests;
mod negative;
mod obtain;
mod recent;
mod refresh;
mod revalidation;
mod stored;
mod tag_table;
mod types;
mod written;

pub use manifests::Manifests;
pub use recent::Recent;
pub use refresh::Refreshed;
pub use revalidation::{Choice, Health, Plan, choose, confirm, plan};
pub use types::{Ask, Error, Found, Manifest, Outcome, Served, Want};

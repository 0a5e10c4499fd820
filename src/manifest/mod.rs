//! Manifests: by tag, revalidated for free; by digest, once and for ever.
//!
//! P1 is kept here: the only counted requests are those in [`Manifests::fetch`]
//! and in the check of a registry that can't do HEAD.

mod manifests;
mod negative;
mod revalidation;
mod tag_table;

pub use manifests::{Ask, Error, Found, Manifest, Manifests, Outcome, Served, Want};
pub use revalidation::{Health, Plan, plan};

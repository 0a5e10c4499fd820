//! The client of one registry: what the cache may ask of it, and what came of it.
//!
//! It owns tokens, redirects, the budget that the registry reports and the
//! state of its hosts. It knows nothing of what is cached; P1 (which request is
//! free and which is counted) is decided by its callers.

mod address;
mod breaker;
mod budget;
mod caller;
mod conversation;
mod error;
mod exchange;
mod redirect;
mod registry;
mod reply;
mod token;
mod trust;

pub use budget::Budget;
pub use caller::Caller;
pub use error::{Error, Failure};
pub use exchange::{Body, Forward};
pub use registry::{BlobBody, BlobHead, ManifestBody, ManifestHead, Upstream};

//! OCI and HTTP as values: what the wire says, parsed once and printed back by the same grammar.
//!
//! Nothing here waits, reads, writes or looks at a clock, and no input makes it panic.
//! What to do about a value is decided by the floors above.

pub mod accept;
pub mod cache_status;
pub mod challenge;
pub mod conditional;
pub mod coverage;
pub mod digest;
pub mod error;
mod inspect;
mod list;
mod listing;
pub mod media_type;
pub mod multipart;
pub mod name;
pub mod platform;
mod query;
pub mod range;
pub mod ratelimit;
pub mod reference;
pub mod route;

pub use coverage::Coverage;
pub use digest::{Algorithm, Digest, Hasher};
pub use error::ErrorCode;
pub use name::Repository;
pub use query::encoded;
pub use range::{ByteRange, Requested};
pub use reference::{Reference, Tag};
pub use route::Route;

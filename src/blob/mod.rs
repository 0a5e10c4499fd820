//! Blobs: served by range from what is stored, or from a fill while it runs.
//!
//! P2 and P3 are kept here: one upstream body per digest, many readers, and no
//! reader gets the last piece before the digest is verified.

mod blobs;
mod fill;
mod passing;
mod receive;
mod serving;
mod writer;

pub use blobs::{Ask, Blobs, DigestMismatch, Error, Outcome, Served, Source};
pub use fill::{HELD_BACK_BYTES, Reader};
pub use passing::Passing;
pub use serving::{Part, Stream};

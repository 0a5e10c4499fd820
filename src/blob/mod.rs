//! Blobs: served by range from what is stored, or from a fill while it runs.
//!
//! P2 and P3 are kept here: what upstream sends of a digest is sent once, to
//! many readers, and no reader gets the last piece before the digest is
//! verified. The disk may fail at any point of it.

mod blobs;
mod fetch;
mod fill;
mod lane;
mod passing;
mod plan;
mod receive;
mod serving;
mod table;
mod window;
mod writer;

use blobs::Source;
pub use blobs::{Ask, Blobs, DigestMismatch, Error, Outcome, Served};
pub use fill::{HELD_BACK_BYTES, Reader};
pub use serving::{Feed, Stream};

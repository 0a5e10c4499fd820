//! Blobs: served by range from what is stored, or from a fill while it runs.
//!
//! P2 and P3 are kept here: what upstream sends of a digest is sent once, to
//! many readers, and no reader gets the last piece before the digest is
//! verified. The disk may fail at any point of it.

mod begin;
mod blobs;
mod fetch;
mod fill;
mod lane;
mod passing;
mod plan;
mod reader;
mod receive;
mod report;
mod serving;
mod started;
mod stored;
mod table;
mod types;
mod window;
mod writer;

pub use blobs::Blobs;
pub use fill::HELD_BACK_BYTES;
pub use reader::Reader;
pub use report::{FillReport, FillState};
pub use serving::{Feed, Stream};
use types::Source;
pub use types::{Ask, DigestMismatch, Error, Outcome, Served};

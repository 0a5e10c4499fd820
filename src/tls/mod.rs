//! Certificates that clients are shown: from files that may change at any time, or made on the fly
//! by a local authority.
//!
//! A [`Kept`] value is what its files said when they were last whole. Whoever owns one has it look
//! at them now and then ([`Watched`]); connections under way keep what they began with.

mod authority;
mod files;
mod kept;
mod make;
mod server;

pub use authority::{Authority, Signer};
pub use kept::{Kept, Watched};
pub use make::{Limits, Made, make_authority};
pub use server::Server;

/// What is offered to clients, the best first.
fn protocols() -> Vec<Vec<u8>> {
    vec![b"h2".to_vec(), b"http/1.1".to_vec()]
}

//! The client of one registry: what the cache may ask of it, and what came of it.
//!
//! It owns accounts and their tokens, redirects, the budget that the registry
//! reports and the state of its hosts. It knows nothing of what is cached; P1
//! (which request is free and which is counted) is decided by its callers.
//!
//! ```text
//! Upstream ─► Registries (mirrors, the registry) ─► Conversation ─► Accounts ─► Account (login, tokens, purse)
//!                                                        └─► redirect ─► Exchange (breakers, places, connector)
//! ```

mod account;
mod accounts;
mod address;
mod answered;
mod ask;
mod blobs;
mod breaker;
mod caller;
mod conversation;
mod credential;
mod error;
mod examine;
mod exchange;
mod ledger;
mod lists;
mod purse;
mod redirect;
mod registries;
mod registry;
mod reply;
mod report;
mod retry;
mod roster;
mod terms;
mod token;
mod trust;
mod turns;
mod uploads;
mod watch;
mod writes;

pub use accounts::Outlook;
pub use address::is_public;
pub use blobs::{BlobBody, BlobHead};
pub use caller::Caller;
pub use error::{Error, Failure};
pub use examine::{Answer, Examination, Examined, Verdict};
pub use exchange::{Body, Forward};
pub use ledger::{Entry, Ledger, Tally};
pub use lists::List;
pub use registry::{ManifestBody, ManifestHead, Upstream};
pub use report::{AccountReport, BudgetReport, MirrorReport, UpstreamReport};
pub use roster::Roster;
pub use uploads::Asked;

//! A Docker Hub simulator: registry, token server and CDN on three loopback ports.
//!
//! It behaves as Docker Hub was seen to behave: scoped, expiring tokens; blobs by 307 to signed,
//! expiring URLs that take no credentials; pull budgets that count manifest GETs; multi-arch
//! indexes with attestations. Its content is real: clients unpack it. Tests script what goes wrong
//! ([`Fault`], [`Gate`]) and read what was asked for ([`Stats`], [`Request`]).
//!
//! ```no_run
//! # async fn test() {
//! use hub::{Action, Fault, Hub, ImageSpec, Target};
//!
//! let hub = Hub::start().await;
//! let image = hub.push(&ImageSpec::new("library/alpine").tag("latest"));
//! let layer = &image.layers[0].digest;
//! hub.fault(Fault::new(Target::blob(layer), Action::CutAfter(1000)).times(1));
//! // … a client pulls from hub.registry_url() …
//! assert_eq!(hub.blob_gets(layer), 2);
//! # }
//! ```
//!
//! With [`Options::writable`] it takes pushes and deletions too, as the distribution spec has them.
//!
//! A request's way: `serve` accepts and sees it (`seen`), books it (`stats`), lets a fault take the
//! answer's place (`fault`, `target`) or has `registry`, `token` or `cdn` answer out of `content`
//! at the cost of a `budget`; `deliver` puts the answer on the `wire`.

mod answer;
mod budget;
mod cdn;
mod content;
mod control;
mod deliver;
mod digest;
mod fault;
mod gate;
mod hub;
mod image;
mod options;
mod push;
mod random;
mod range;
mod registry;
mod seen;
mod serve;
mod shared;
mod stats;
mod sync;
mod target;
mod token;
mod uploads;
mod wire;

pub use digest::{sha256, sha512};
pub use fault::{Action, Fault, FaultId};
pub use gate::Gate;
pub use hub::Hub;
pub use image::{Descriptor, Format, Image, ImageSpec, Platform};
pub use options::{Account, Counting, Options, StartError};
pub use stats::{Kind, Request, Stats};
pub use target::Target;

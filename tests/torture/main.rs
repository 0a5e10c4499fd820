//! What a disk and a power supply do to Roadstead: kills, failing calls, full and slow disks, cuts.
//!
//! Each of these takes from seconds to minutes and some need root, so none runs with the others:
//! `make torture`. The amounts follow the environment: `ROADSTEAD_CYCLES` kills,
//! `ROADSTEAD_INJECTIONS` failing calls of each kind, `ROADSTEAD_POWER_CUTS`; `ROADSTEAD_SEED`
//! repeats the choices of a run, though not its instants.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

#[expect(dead_code, reason = "the integration tests use more of it")]
#[path = "../it/client.rs"]
mod client;
#[expect(dead_code, reason = "the integration tests use more of it")]
#[path = "../it/pull.rs"]
mod pull;
#[expect(dead_code, reason = "the integration tests use more of it")]
#[path = "../it/roadstead.rs"]
mod roadstead;

mod books;
mod load;
mod mount;
mod pool;
mod tracer;

mod errors;
mod kill;
mod power;
mod slow;
mod small;
mod soak;

use std::env;
use std::str::FromStr;

use crate::client::get;
use crate::roadstead::Roadstead;

/// A number from the environment.
fn setting<T: FromStr>(name: &str, default: T) -> T {
    match env::var(name) {
        Err(_) => default,
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}: `{text}` is not a number")),
    }
}

/// A random generator whose seed is printed.
fn random(test: &str) -> fastrand::Rng {
    let seed = setting("ROADSTEAD_SEED", fastrand::u64(..));
    println!("{test}: ROADSTEAD_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// What `/readyz` says; it must be 200, for a cache without a disk still serves.
async fn readyz(roadstead: &Roadstead) -> String {
    let reply = get(roadstead.admin(), "/readyz").send().await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.text()
}

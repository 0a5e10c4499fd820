//! Roadstead: a pull-through caching proxy for OCI registries, on Pingora.
//!
//! ```text
//!                      ┌─────────────────────────────── filter::Chain ────────────────────────────────┐
//! client ─► Pingora ─► forwarded ─► access ─► classify (Route, Upstream) ─► policy ─► lists ─► cache ─┬─► manifest ─┐
//!           proxy::entrance                                                                           ├─► blob ─────┤─► answer ─► client
//!           proxy::connection                                                                         └─► forward ──┘ (writes, and all the rest: Pingora proxies it)
//!           proxy::front
//!
//! the same head again: proxy::between ─► filter::Repeats ─► memory, or else Pingora as above
//!
//! manifest by tag:    tag_table ─► revalidation::plan ─► {fresh | HEAD upstream | stale} ─► choose ─► manifest by digest
//! manifest by digest: memory ─► disk ─► collapse ─► GET upstream ─► verify ─► publish
//! blob by digest:     memory ─► disk ─► one fill ─► plan ─► fetch (upstream bodies) ─► window ─► N readers
//!                                                                                └─► writer (disk, hash, publish)
//! ```
//!
//! `roadstead warm`, and the configuration's `warm`, go the same ways without a client:
//!
//! ```text
//! warm::Warmer ─► order (images, platforms) ─► contents (manifests, by HEAD where they are known) ─► layers (fills)
//! ```
//!
//! All of this is `proxy::Rules`, of which a reload puts others in force; a request keeps those that it began
//! with. What outlives them (store, fills, connections to upstreams, budgets) is shared by both.
//!
//! The floors, in the order of the modules below; a module uses those above it
//! and never a sibling. `tests/tidy.rs` keeps it so.
//!
//! | floor | who | may use |
//! |---|---|---|
//! | 0 | [`protocol`], [`collapse`], `permits` | std, http, url, serde, sha2, tokio::sync, and `sync`, the locks that loom can stand in for |
//! | 1 | [`config`], [`metrics`], [`events`], [`trace`], [`traffic`] | 0 |
//! | 2 | [`store`], [`tls`], [`upstream`] | 0–1 |
//! | 3 | [`manifest`], [`blob`], [`inventory`], [`history`] | 0–2 |
//! | 4 | [`warm`] | 0–3 |
//! | 5 | [`filter`], [`status`] | 0–4 |
//! | 6 | [`proxy`], [`admin`] | 0–5 |
//! | 7 | [`server`], then [`cli`] and `main` | all |
//!
//! `pingora` is named only in [`proxy`], [`admin`], `upstream/exchange` and
//! [`server`].
//!
//! The crate is also a library: [`server::builder`] takes filters of your own, and
//! [`filter::RequestFilter`] shows how one looks.

pub mod collapse;
mod permits;
pub mod protocol;
mod sync;

pub mod config;
pub mod events;
pub mod metrics;
pub mod trace;
pub mod traffic;

pub mod store;
pub mod tls;
pub mod upstream;

pub mod blob;
pub mod history;
pub mod inventory;
pub mod manifest;

pub mod warm;

pub mod filter;
pub mod status;

pub mod admin;
pub mod proxy;

pub mod cli;
pub mod server;

//! Roadstead as its users meet it: the real binary, real HTTP, a scripted registry behind it.
//!
//! [`roadstead`] runs the server, [`client`] shows its answers byte by byte, [`pull`] does what
//! podman does; the rest are the promises of DESIGN.md, one file each.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod client;
mod pull;
mod repeats;
mod roadstead;
mod secure;

mod abandoned;
mod access_log;
mod accounts;
mod admin;
mod answers;
mod cache;
mod chains;
mod clients_settings;
mod command;
mod conformance;
mod crash;
mod dashboard;
mod degraded;
mod doctor;
mod doctor_client;
mod environment;
mod eviction;
mod extension;
mod faults;
mod first_day;
mod freshness;
mod front;
mod handover;
mod help;
mod herd;
mod listeners;
mod lists;
mod metrics;
mod outage;
mod outbound;
mod reload;
mod secrets;
mod serving;
mod small_print;
mod sparse;
mod status;
mod terminator;
mod traces;
mod transparent;
mod trouble;
mod uploads;
mod upstreams;
mod warm;
mod writes;
mod writes_http2;
mod writes_races;

//! Where cached bytes live, how many there may be, and what becomes of unfinished ones.
//!
//! The sizes are hard limits; `store` keeps them and `blob::fill` follows the rest.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::problem::Scope;
use super::quantity::{print_duration, print_size};
use super::raw::{RawFill, RawStore, Scalar};

/// The cache's place and capacity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Made at start if missing; relative to the working directory. Default: `./roadstead-data`.
    pub directory: PathBuf,
    /// Bytes on disk, never passed; above zero. Default: 100GiB.
    pub disk: u64,
    /// Bytes of cached content in memory, and of the requests that are answered with it; above zero.
    /// Default: 256MiB.
    pub memory: u64,
    /// Eviction begins beside the requests above this share of `disk`, 1–100. Default: 95.
    pub evict_above_percent: u8,
    /// It goes on down to this share, at most `evict_above_percent`. Default: 90.
    pub evict_to_percent: u8,
    /// Bytes per second that are read again to find what went bad; zero: none. Default: 4MiB.
    pub scrub_rate: u64,
}

/// How blobs are fetched, and what happens once every client has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fill {
    /// An abandoned fill with fewer bytes than this left to fetch goes on. Default: 32MiB.
    pub finish_below: u64,
    /// An abandoned fill that has at least this share goes on; 0–100. Default: 50.
    pub finish_above_percent: u8,
    /// Resumes in a row without a byte of progress before a fill gives up. Default: 5.
    pub retries: u32,
    /// The wait before the first resume; doubled each time, jittered. Default: 200ms.
    pub retry_backoff: Duration,
    /// A range of a blob that is not stored is fetched in aligned chunks of so many bytes;
    /// 64KiB to 64MiB. Default: 1MiB.
    pub chunk: u64,
    /// Downloads at the same time; others wait for their turn. 1–10000. Default: 128.
    pub max_active: usize,
    /// Clients that one download may have at the same time. Default: 10000.
    pub max_readers: usize,
    /// Bytes of all downloads that are in memory, on their way to the disk or to slow clients; at
    /// least 8MiB. Default: 128MiB.
    pub memory: u64,
    /// The biggest manifest accepted, in bytes; above zero. Default: 4MiB, as the OCI
    /// distribution spec asks registries to allow.
    pub max_manifest: u64,
}

/// What `fill.chunk` may be: smaller ones cost a request each, larger ones fetch what nobody wants.
const CHUNKS: RangeInclusive<u64> = 64 << 10..=64 << 20;

/// What `fill.memory` may be: one download needs some of it to go on.
const MEMORY: RangeInclusive<u64> = 8 << 20..=1 << 40;

// === impl Store ===

impl Default for Store {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("./roadstead-data"),
            disk: 100 << 30,
            memory: 256 << 20,
            evict_above_percent: 95,
            evict_to_percent: 90,
            scrub_rate: 4 << 20,
        }
    }
}

impl Store {
    /// The share of `memory` for the heads of requests that came before.
    pub fn memory_of_heads(&self) -> u64 {
        self.memory / 16
    }

    /// The share of `memory` for manifests and small blobs.
    pub fn memory_of_bodies(&self) -> u64 {
        self.memory - self.memory_of_heads()
    }

    pub(super) fn read(scope: &Scope<'_>, raw: RawStore) -> Self {
        let default = Self::default();
        let (above, to) = (raw.evict_above_percent.as_ref(), raw.evict_to_percent.as_ref());
        let above = scope.count("evict_above_percent", above, default.evict_above_percent, 1..=100);
        let to = scope.count("evict_to_percent", to, default.evict_to_percent.min(above), 1..=100);
        if to > above {
            scope.at("evict_to_percent").refuse(
                format!("{to} is more than evict_above_percent ({above})"),
                "write the same or less",
            );
        }
        Self {
            evict_above_percent: above,
            evict_to_percent: to,
            scrub_rate: scope.size_or_zero(
                "scrub_rate",
                raw.scrub_rate.as_ref(),
                default.scrub_rate,
            ),
            directory: match raw.directory {
                Some(path) => directory(&scope.at("directory"), PathBuf::from(path)),
                None => default.directory,
            },
            disk: scope.size("disk", raw.disk.as_ref(), default.disk),
            memory: scope.size("memory", raw.memory.as_ref(), default.memory),
        }
    }

    pub(super) fn to_raw(&self) -> RawStore {
        RawStore {
            directory: Some(self.directory.display().to_string()),
            disk: Scalar::print(print_size(self.disk)),
            memory: Scalar::print(print_size(self.memory)),
            evict_above_percent: Scalar::print(self.evict_above_percent),
            evict_to_percent: Scalar::print(self.evict_to_percent),
            scrub_rate: Scalar::print(print_size(self.scrub_rate)),
        }
    }
}

/// The cache's directory, which need not exist yet.
pub(super) fn directory(scope: &Scope<'_>, path: PathBuf) -> PathBuf {
    if path.as_os_str().is_empty() {
        scope.refuse("is empty", "write a path such as /var/lib/roadstead");
    } else if path.is_file() {
        scope.refuse("is a file", "write the path of a directory");
    }
    path
}

// === impl Fill ===

impl Default for Fill {
    fn default() -> Self {
        Self {
            finish_below: 32 << 20,
            finish_above_percent: 50,
            retries: 5,
            retry_backoff: Duration::from_millis(200),
            chunk: 1 << 20,
            max_active: 128,
            max_readers: 10_000,
            memory: 128 << 20,
            max_manifest: 4 << 20,
        }
    }
}

impl Fill {
    pub(super) fn read(scope: &Scope<'_>, raw: RawFill) -> Self {
        let default = Self::default();
        Self {
            finish_below: scope.size_or_zero(
                "finish_below",
                raw.finish_below.as_ref(),
                default.finish_below,
            ),
            finish_above_percent: scope.count(
                "finish_above_percent",
                raw.finish_above_percent.as_ref(),
                default.finish_above_percent,
                0..=100,
            ),
            retries: scope.count("retries", raw.retries.as_ref(), default.retries, 0..=1000),
            retry_backoff: scope.wait(
                "retry_backoff",
                raw.retry_backoff.as_ref(),
                default.retry_backoff,
            ),
            chunk: scope.size_within("chunk", raw.chunk.as_ref(), default.chunk, CHUNKS),
            max_active: scope.count(
                "max_active",
                raw.max_active.as_ref(),
                default.max_active,
                1..=10_000,
            ),
            max_readers: scope.count(
                "max_readers",
                raw.max_readers.as_ref(),
                default.max_readers,
                1..=1_000_000,
            ),
            memory: scope.size_within("memory", raw.memory.as_ref(), default.memory, MEMORY),
            max_manifest: scope.size(
                "max_manifest",
                raw.max_manifest.as_ref(),
                default.max_manifest,
            ),
        }
    }

    pub(super) fn to_raw(&self) -> RawFill {
        RawFill {
            finish_below: Scalar::print(print_size(self.finish_below)),
            finish_above_percent: Scalar::print(self.finish_above_percent),
            retries: Scalar::print(self.retries),
            retry_backoff: Scalar::print(print_duration(self.retry_backoff)),
            chunk: Scalar::print(print_size(self.chunk)),
            max_active: Scalar::print(self.max_active),
            max_readers: Scalar::print(self.max_readers),
            memory: Scalar::print(print_size(self.memory)),
            max_manifest: Scalar::print(print_size(self.max_manifest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{parsed, refused, scratch_file};
    use super::*;

    #[test]
    fn sizes_are_read_and_memory_may_exceed_the_disk() {
        let store = parsed("store: { directory: /var/cache/rs, disk: 1GiB, memory: 2GiB }").store;
        assert_eq!(
            store,
            Store {
                directory: "/var/cache/rs".into(),
                disk: 1 << 30,
                memory: 2 << 30,
                ..Store::default()
            }
        );
    }

    #[test]
    fn no_disk_or_no_memory_is_refused() {
        let line = refused("store: { disk: 0 }");
        assert_eq!(line, "test.yaml: store.disk: is zero; write more than zero, such as 100GiB");
        assert!(refused("store: { memory: 0MiB }").contains("store.memory: is zero"));
    }

    #[test]
    fn a_bad_size_is_refused_with_its_grammar() {
        let line = refused("store: { disk: 100Gi }");
        assert!(
            line.starts_with(
                "test.yaml: store.disk: `100Gi` has an unknown unit; write a whole number"
            ),
            "{line}"
        );
    }

    #[test]
    fn the_directory_may_be_missing_but_not_a_file() {
        let (_kept, file) = scratch_file("");
        assert!(
            refused(&format!("store: {{ directory: {file} }}"))
                .contains("store.directory: is a file")
        );
        assert!(refused("store: { directory: \"\" }").contains("store.directory: is empty"));
    }

    #[test]
    fn the_low_mark_is_not_above_the_high_one() {
        let store = parsed("store: { evict_above_percent: 80 }").store;
        assert_eq!((store.evict_above_percent, store.evict_to_percent), (80, 80));
        assert!(
            refused("store: { evict_above_percent: 50, evict_to_percent: 60 }")
                .contains("store.evict_to_percent: 60 is more than evict_above_percent (50)")
        );
    }

    #[test]
    fn limits_of_fills_have_limits() {
        assert_eq!(parsed("fill: { chunk: 64KiB }").fill.chunk, 64 << 10);
        assert!(refused("fill: { chunk: 1KiB }").contains("fill.chunk: `1KiB` is out of range"));
        assert!(refused("fill: { memory: 1GB, max_active: 0 }").contains("fill.max_active"));
    }

    #[test]
    fn a_percentage_ends_at_a_hundred() {
        assert_eq!(parsed("fill: { finish_above_percent: 100 }").fill.finish_above_percent, 100);
        assert!(refused("fill: { finish_above_percent: 101 }").contains("write one from 0 to 100"));
    }
}

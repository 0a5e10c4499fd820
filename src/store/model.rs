//! The store beside a `HashMap`: whatever is done to it, and whenever it is reopened, it holds what
//! was committed, and nothing else.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use proptest::prelude::*;

use super::{Error, Kind, Staging, Store, Verdict};
use crate::{
    config,
    protocol::{Algorithm, ByteRange, Digest, Hasher},
};

/// Bodies of the model; each has a length of its own.
const BODIES: usize = 6;

/// Room for most of them, beside the index and as much again for its growth.
const DISK: u64 = 12 << 20;

/// What may happen.
#[derive(Debug, Clone)]
enum Step {
    /// A writer takes the staged file of a body.
    Stage(usize),
    /// It writes the part of so many eighths, if that is missing.
    Write(usize, u64),
    /// It writes the rest, verifies and publishes.
    Commit(usize),
    /// It drops the file, or leaves it.
    Drop(usize, bool),
    Read(usize),
    /// Room is made for so many MiB.
    Evict(u64),
    Pin(usize),
    Unpin(usize),
    Purge(usize),
    /// The process ends and another one comes: gracefully, or with its writers under way.
    Reopen,
    /// A published file is changed behind the store's back, and looked at.
    Rot(usize),
    /// The index is lost.
    LoseIndex,
}

fn step() -> impl Strategy<Value = Step> {
    let body = 0..BODIES;
    prop_oneof![
        4 => body.clone().prop_map(Step::Stage),
        8 => (body.clone(), 0..8_u64).prop_map(|(body, part)| Step::Write(body, part)),
        4 => body.clone().prop_map(Step::Commit),
        2 => (body.clone(), any::<bool>()).prop_map(|(body, keep)| Step::Drop(body, keep)),
        4 => body.clone().prop_map(Step::Read),
        1 => (0..8_u64).prop_map(Step::Evict),
        1 => body.clone().prop_map(Step::Pin),
        1 => body.clone().prop_map(Step::Unpin),
        1 => body.clone().prop_map(Step::Purge),
        2 => Just(Step::Reopen),
        1 => body.prop_map(Step::Rot),
        1 => Just(Step::LoseIndex),
    ]
}

/// A body of 300 KiB and more: its bytes differ from place to place.
fn body(number: usize) -> Bytes {
    let len = 300_000 + number * 250_000;
    (0..len).map(|at| (at * (number + 3) / 7) as u8).collect()
}

struct Model {
    store: Arc<Store>,
    config: config::Store,
    bodies: Vec<(Digest, Bytes)>,
    writers: HashMap<usize, Staging>,
    /// What was committed and not taken away since. Eviction may take any of it that is not pinned.
    published: HashSet<usize>,
    pinned: HashSet<usize>,
}

// === impl Model ===

impl Model {
    fn new(folder: &Path) -> Self {
        let directory = folder.to_owned();
        let config = config::Store { directory, disk: DISK, ..config::Store::default() };
        let bodies = (0..BODIES).map(body);
        Self {
            store: Arc::new(Store::open(&config).unwrap()),
            config,
            bodies: bodies.map(|body| (Digest::of(Algorithm::Sha256, &body), body)).collect(),
            writers: HashMap::new(),
            published: HashSet::new(),
            pinned: HashSet::new(),
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Stage(number) => self.stage(number),
            Step::Write(number, part) => self.write(number, part),
            Step::Commit(number) => self.commit(number),
            Step::Drop(number, keep) => {
                if let Some(staging) = self.writers.remove(&number)
                    && !keep
                {
                    staging.discard();
                }
            }
            Step::Read(number) => self.read(number),
            Step::Evict(mib) => self.evict(mib << 20),
            Step::Pin(number) => {
                self.store.pin(&number.to_string(), &[self.bodies[number].0]).unwrap();
                self.pinned.insert(number);
            }
            Step::Unpin(number) => {
                let was_there = self.store.unpin(&number.to_string()).unwrap();
                assert_eq!(was_there, self.pinned.remove(&number));
            }
            Step::Purge(number) => {
                let size = self.store.purge(&self.bodies[number].0).unwrap();
                // What is being written is left to its writer.
                let is_written = self.writers.contains_key(&number);
                let expected = !is_written && self.published.remove(&number);
                assert_eq!(size, expected.then(|| self.bodies[number].1.len() as u64));
            }
            Step::Reopen => self.reopen(),
            Step::Rot(number) => self.rot(number),
            Step::LoseIndex => self.lose_index(),
        }
        self.check();
    }

    fn stage(&mut self, number: usize) {
        let (digest, body) = &self.bodies[number];
        match self.store.stage(*digest) {
            Ok(mut staging) => {
                assert!(!self.writers.contains_key(&number), "two writers of one file");
                let total = body.len() as u64;
                match staging.prepare(Some(total), total) {
                    Ok(_) => drop(self.writers.insert(number, staging)),
                    Err(Error::Full { .. }) => self.sync_with_eviction(),
                    Err(error) => panic!("{error}"),
                }
                self.sync_with_eviction();
            }
            Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                assert!(self.writers.contains_key(&number));
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn write(&mut self, number: usize, part: u64) {
        let Some(staging) = self.writers.get_mut(&number) else { return };
        let body = &self.bodies[number].1;
        let eighth = body.len() as u64 / 8;
        let end = if part == 7 { body.len() as u64 } else { (part + 1) * eighth };
        fill(staging, body, ByteRange::new(part * eighth, end));
    }

    fn commit(&mut self, number: usize) {
        let Some(mut staging) = self.writers.remove(&number) else { return };
        let (digest, body) = &self.bodies[number];
        let whole = ByteRange::new(0, body.len() as u64);
        fill(&mut staging, body, whole);
        let mut hasher = Hasher::new(Algorithm::Sha256);
        staging.hash(whole, &mut hasher).unwrap();
        assert_eq!(hasher.finish(), *digest, "the staged file holds other bytes");
        self.store.publish(staging, Kind::Blob).unwrap();
        self.published.insert(number);
    }

    fn read(&mut self, number: usize) {
        let (digest, body) = &self.bodies[number];
        let lease = self.store.open_published(*digest).unwrap();
        assert_eq!(lease.is_some(), self.published.contains(&number), "{number}");
        if let Some(lease) = lease {
            assert_eq!(lease.slice(0, lease.len()), body);
        }
    }

    fn evict(&mut self, wanted: u64) {
        match self.store.reserve(wanted) {
            Ok(()) => self.store.space.release(wanted),
            Err(Error::Full { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        self.sync_with_eviction();
    }

    /// Eviction may take what is not pinned, and only as long as the limit asks for it.
    fn sync_with_eviction(&mut self) {
        let gone: Vec<_> = self
            .published
            .iter()
            .filter(|number| self.store.object(&self.bodies[**number].0).unwrap().is_none())
            .copied()
            .collect();
        for number in gone {
            assert!(!self.pinned.contains(&number), "{number} is pinned and was evicted");
            self.published.remove(&number);
        }
    }

    fn reopen(&mut self) {
        self.writers.clear();
        self.store.close();
        self.open_again();
    }

    fn open_again(&mut self) {
        // The old one must be gone: its index is locked.
        let empty = config::Store {
            directory: self.config.directory.join("elsewhere"),
            ..self.config.clone()
        };
        let old = std::mem::replace(&mut self.store, Arc::new(Store::open(&empty).unwrap()));
        assert_eq!(Arc::strong_count(&old), 1);
        drop(old);
        std::fs::remove_dir_all(&empty.directory).unwrap();
        self.store = Arc::new(Store::open(&self.config).unwrap());
    }

    fn rot(&mut self, number: usize) {
        if !self.published.contains(&number) {
            return;
        }
        let (digest, body) = &self.bodies[number];
        self.store.open.remove(digest);
        let path = self.store.layout.blob(digest);
        let mut rotten = body.to_vec();
        rotten[body.len() / 2] ^= 1;
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, rotten).unwrap();
        let verdict = self.store.verify(digest, true).unwrap();
        assert!(matches!(verdict, Verdict::Bad { .. }), "{verdict:?}");
        self.published.remove(&number);
    }

    fn lose_index(&mut self) {
        self.writers.clear();
        self.store.close();
        std::fs::write(self.store.layout.index(), vec![7; 100_000]).unwrap();
        self.open_again();
        // Pins were in it, and nowhere else.
        self.pinned.clear();
        let mut found: Vec<_> = self.store.unrecorded().unwrap();
        for digest in &found {
            let verdict = self.store.adopt(digest).unwrap();
            assert!(matches!(verdict, Verdict::Good { .. }), "{verdict:?}");
        }
        found.sort_by_key(Digest::hex);
        let mut expected: Vec<_> =
            self.published.iter().map(|number| self.bodies[*number].0).collect();
        expected.sort_by_key(Digest::hex);
        assert_eq!(found, expected, "files that were published");
    }

    /// The books and the disk agree, and the limit holds.
    fn check(&self) {
        let usage = self.store.usage().unwrap();
        assert!(usage.used <= DISK, "{usage:?}");
        let of = |number: &usize| self.bodies[*number].1.len() as u64;
        let published: u64 = self.published.iter().map(of).sum();
        assert_eq!((usage.published, usage.objects), (published, self.published.len() as u64));
        let pinned: u64 = self.pinned.intersection(&self.published).map(of).sum();
        assert_eq!(usage.pinned, pinned);
        for (number, (digest, body)) in self.bodies.iter().enumerate() {
            let path = self.store.layout.blob(digest);
            assert_eq!(path.exists(), self.published.contains(&number), "the file of {number}");
            if path.exists() {
                assert_eq!(std::fs::metadata(path).unwrap().len(), body.len() as u64);
            }
        }
    }
}

/// Writes what is missing of `range`.
fn fill(staging: &mut Staging, body: &Bytes, range: ByteRange) {
    let mut at = range.start;
    while let Some(gap) = staging.present().gap(ByteRange::new(at, range.end)) {
        staging.write_at(gap.start, &body[gap.start as usize..gap.end as usize]).unwrap();
        at = gap.end;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_store_holds_what_was_committed_and_nothing_else(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut model = Model::new(folder.path());
        for step in steps {
            model.run(step);
        }
    }
}

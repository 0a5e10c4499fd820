//! The fills under way, one for each digest, and the handover at their edges.
//!
//! Joining and being left for good are decided under one lock: a fill that is
//! about to stop because nobody reads it is found by nobody, and one that was
//! joined in time goes on.

use std::{collections::HashMap, hash::Hash};

use crate::sync::{Mutex, MutexGuard, PoisonError};

/// What a table needs to know of what it holds: a handle of something shared.
pub(super) trait Shared: Clone {
    /// True while somebody has a place at it.
    fn is_in_use(&self) -> bool;

    /// True if both are handles of the same thing.
    fn is_same(&self, other: &Self) -> bool;
}

/// Things that many share, by key.
#[derive(Debug)]
pub(super) struct Table<K, F> {
    entries: Mutex<HashMap<K, F>>,
}

// === impl Table ===

impl<K, F> Default for Table<K, F> {
    fn default() -> Self {
        Self { entries: Mutex::new(HashMap::new()) }
    }
}

impl<K: Eq + Hash + Clone, F: Shared> Table<K, F> {
    pub(super) fn get(&self, key: &K) -> Option<F> {
        self.lock().get(key).cloned()
    }

    pub(super) fn all(&self) -> Vec<F> {
        self.lock().values().cloned().collect()
    }

    /// Joins what is there, if `join` takes the caller, or what `make` makes. The flag says whether
    /// it was there. `join` answers `Err` to say that a new one is wanted in its place.
    pub(super) fn join_or_make<T>(
        &self,
        key: K,
        join: impl FnOnce(&F) -> Result<T, ()>,
        make: impl FnOnce() -> (F, T),
    ) -> (T, bool) {
        let mut entries = self.lock();
        if let Some(present) = entries.get(&key)
            && let Ok(place) = join(present)
        {
            return (place, true);
        }
        let (made, place) = make();
        entries.insert(key, made);
        (place, false)
    }

    /// Removes `entry`, unless another has taken its place.
    pub(super) fn forget(&self, key: &K, entry: &F) {
        let mut entries = self.lock();
        if entries.get(key).is_some_and(|present| present.is_same(entry)) {
            entries.remove(key);
        }
    }

    /// Removes `entry` if nobody has a place at it; true if so. Nobody joins it from then on.
    pub(super) fn forget_unused(&self, key: &K, entry: &F) -> bool {
        let mut entries = self.lock();
        if entry.is_in_use() {
            return false;
        }
        if entries.get(key).is_some_and(|present| present.is_same(entry)) {
            entries.remove(key);
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, F>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, feature = "loom"))]
mod loom_tests {
    use loom::{
        sync::{
            Arc,
            atomic::{AtomicBool, AtomicUsize, Ordering},
        },
        thread,
    };

    use super::*;

    /// A fill that counts its readers and knows whether it has stopped.
    #[derive(Default)]
    struct Model {
        readers: AtomicUsize,
        stopped: AtomicBool,
    }

    impl Shared for Arc<Model> {
        fn is_in_use(&self) -> bool {
            self.readers.load(Ordering::Acquire) > 0
        }

        fn is_same(&self, other: &Self) -> bool {
            Arc::ptr_eq(self, other)
        }
    }

    fn join(table: &Table<u8, Arc<Model>>) -> (Arc<Model>, bool) {
        let place = |model: &Arc<Model>| {
            model.readers.fetch_add(1, Ordering::AcqRel);
            Arc::clone(model)
        };
        table.join_or_make(
            0,
            |model| Ok(place(model)),
            || {
                let model = Arc::new(Model::default());
                (Arc::clone(&model), place(&model))
            },
        )
    }

    /// The last reader leaves and the fill looks whether to stop, while another one comes.
    #[test]
    fn nobody_is_left_at_a_fill_that_has_stopped() {
        loom::model(|| {
            let table = Arc::new(Table::<u8, Arc<Model>>::default());
            let (first, _) = join(&table);
            let leaving = {
                let table = Arc::clone(&table);
                thread::spawn(move || {
                    first.readers.fetch_sub(1, Ordering::AcqRel);
                    if table.forget_unused(&0, &first) {
                        first.stopped.store(true, Ordering::Release);
                    }
                })
            };
            let (mine, _) = join(&table);
            leaving.join().unwrap();
            assert!(!mine.stopped.load(Ordering::Acquire), "joined what had stopped");
            let found = table.get(&0).expect("a fill with a reader is in the table");
            assert!(Arc::ptr_eq(&found, &mine));
        });
    }

    /// Two come at the same time: one makes the fill, the other joins it.
    #[test]
    fn two_who_come_together_share_one_fill() {
        loom::model(|| {
            let table = Arc::new(Table::<u8, Arc<Model>>::default());
            let other = {
                let table = Arc::clone(&table);
                thread::spawn(move || join(&table))
            };
            let (mine, mine_was_there) = join(&table);
            let (others, others_was_there) = other.join().unwrap();
            assert!(Arc::ptr_eq(&mine, &others));
            assert_ne!(mine_was_there, others_was_there);
            assert_eq!(mine.readers.load(Ordering::Acquire), 2);
        });
    }

    /// A fill ends and is forgotten while a new one takes its place.
    #[test]
    fn an_ended_fill_never_takes_its_successor_away() {
        loom::model(|| {
            let table = Arc::new(Table::<u8, Arc<Model>>::default());
            let (old, _) = join(&table);
            let ending = {
                let (table, old) = (Arc::clone(&table), Arc::clone(&old));
                thread::spawn(move || table.forget(&0, &old))
            };
            let make = || {
                let model = Arc::new(Model::default());
                (Arc::clone(&model), model)
            };
            let (new, _) = table.join_or_make(0, |_| Err(()), make);
            ending.join().unwrap();
            table.forget(&0, &old);
            assert!(Arc::ptr_eq(&table.get(&0).unwrap(), &new));
        });
    }
}

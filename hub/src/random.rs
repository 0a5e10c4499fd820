//! Pseudo-random bytes: the same seed gives the same bytes on every machine.
//!
//! Layers are filled with these so that they don't compress; nothing here is a secret.

use std::hash::{BuildHasher as _, RandomState};

/// SplitMix64, by Steele, Lea and Flood: tiny, fast, and good enough to defeat gzip.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        for chunk in bytes.chunks_mut(8) {
            for (to, from) in chunk.iter_mut().zip(self.next().to_le_bytes()) {
                *to = from;
            }
        }
        bytes
    }
}

/// A number that differs from run to run, for tokens and signing keys.
pub(crate) fn unpredictable() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// FNV-1a: a seed out of words, stable across versions of the standard library.
pub(crate) fn seed_of(words: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    for byte in words.iter().flat_map(|word| word.bytes().chain([0])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash
}

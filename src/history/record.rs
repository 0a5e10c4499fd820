//! The history's bytes on disk: a head, then one record of fixed length for each slot.
//!
//! A record is written in place, and carries a version and a checksum: one that
//! was torn by a power cut reads as nobody having counted. A head that is not
//! ours, or of another version or shape, makes the whole file none of ours.

use super::{
    Counts,
    ring::{Ring, Slot},
};

/// Bytes of the head, and of each record: a divisor of a disk's sector, so that none lies in two.
pub(super) const RECORD_BYTES: usize = 128;

const MAGIC: &[u8; 16] = b"roadstead-recent";

/// The version of head and records.
const VERSION: u32 = 1;

/// Numbers of a record: when, how long, what is left, and twelve counts. The last one was added
/// within the version: zero where it was not counted.
const NUMBERS: usize = 15;

/// How `left` is written where it is not known.
const UNKNOWN: u64 = u64::MAX;

/// Where the checksum stands, behind the version.
const CHECKED_BYTES: usize = RECORD_BYTES - 4;

type Record = [u8; RECORD_BYTES];

/// How long a file with these rings is.
pub(super) fn file_bytes(rings: &[Ring]) -> usize {
    RECORD_BYTES * (1 + rings.iter().map(Ring::len).sum::<usize>())
}

/// The whole file.
pub(super) fn encode(rings: &[Ring]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(file_bytes(rings));
    bytes.extend_from_slice(&head(rings));
    for slot in rings.iter().flat_map(Ring::all) {
        bytes.extend_from_slice(&record(slot));
    }
    bytes
}

/// Fills `rings` from a file; false, and nothing filled, if it is none of ours.
pub(super) fn decode(bytes: &[u8], rings: &mut [Ring]) -> bool {
    let (records, rest) = bytes.as_chunks::<RECORD_BYTES>();
    let Some((first, mut records)) = records.split_first() else { return false };
    if bytes.len() != file_bytes(rings) || !rest.is_empty() || *first != head(rings) {
        return false;
    }
    for ring in rings {
        let (own, others) = records.split_at(ring.len().min(records.len()));
        for (place, record) in own.iter().enumerate() {
            if let Some(slot) = slot(record) {
                ring.restore(place, slot);
            }
        }
        records = others;
    }
    true
}

/// Where the record of a slot stands.
pub(super) fn offset(rings: &[Ring], ring: usize, place: usize) -> u64 {
    let before: usize = rings.iter().take(ring).map(Ring::len).sum();
    ((1 + before + place) * RECORD_BYTES) as u64
}

/// A slot as it is written.
pub(super) fn record(slot: &Slot) -> Record {
    let Counts { requests, hits, misses, bytes, bytes_from_cache, upstream_bytes, .. } =
        slot.counts;
    let Counts { spent, saved, errors, stale, fills, bytes_uncacheable, .. } = slot.counts;
    let left = slot.left.unwrap_or(UNKNOWN);
    let numbers: [u64; NUMBERS] = [
        slot.begins_at,
        slot.millis,
        left,
        requests,
        hits,
        misses,
        bytes,
        bytes_from_cache,
        upstream_bytes,
        spent,
        saved,
        errors,
        stale,
        fills,
        bytes_uncacheable,
    ];
    sealed(numbers.iter().flat_map(|number| number.to_le_bytes()))
}

/// The slot of a record; `None` if it is damaged, of another version, or of no time.
fn slot(record: &Record) -> Option<Slot> {
    let (numbers, _) = record.as_chunks::<8>();
    let mut numbers = numbers.iter().map(|number| u64::from_le_bytes(*number));
    let mut next = || numbers.next().unwrap_or_default();
    let slot = Slot {
        begins_at: next(),
        millis: next(),
        left: Some(next()).filter(|left| *left != UNKNOWN),
        counts: Counts {
            requests: next(),
            hits: next(),
            misses: next(),
            bytes: next(),
            bytes_from_cache: next(),
            upstream_bytes: next(),
            spent: next(),
            saved: next(),
            errors: next(),
            stale: next(),
            fills: next(),
            bytes_uncacheable: next(),
        },
    };
    // Whatever is wrong with it, it would not be written so.
    (slot.begins_at > 0 && self::record(&slot) == *record).then_some(slot)
}

fn head(rings: &[Ring]) -> Record {
    let shape = rings.iter().flat_map(|ring| [ring.step_seconds(), ring.len() as u64]);
    let shape: Vec<u8> = shape.flat_map(u64::to_le_bytes).collect();
    sealed(MAGIC.iter().copied().chain(shape))
}

/// Bytes, zeros up to the version, and their checksum.
fn sealed(bytes: impl Iterator<Item = u8>) -> Record {
    let mut record = [0; RECORD_BYTES];
    record.iter_mut().take(CHECKED_BYTES - 4).zip(bytes).for_each(|(to, from)| *to = from);
    if let Some((checked, sum)) = record.split_last_chunk_mut::<4>() {
        if let Some((_, version)) = checked.split_last_chunk_mut::<4>() {
            *version = VERSION.to_le_bytes();
        }
        *sum = crc32fast::hash(checked).to_le_bytes();
    }
    record
}

#[cfg(test)]
mod tests {
    use super::{super::Sample, *};

    const NOW: u64 = 1_000_000_000;

    fn rings() -> Vec<Ring> {
        vec![Ring::new(10, 6), Ring::new(300, 4)]
    }

    fn filled() -> Vec<Ring> {
        let mut rings = rings();
        let (fills, bytes_uncacheable) = (u64::MAX, 7);
        let counts = Counts { requests: 1, fills, bytes_uncacheable, ..Counts::default() };
        for ring in &mut rings {
            for step in 0..3 {
                let left = (step > 0).then_some(step);
                ring.add(&Sample { millis: 999, counts, left }, NOW - step * ring.step_seconds());
            }
        }
        rings
    }

    fn read(bytes: &[u8]) -> Option<Vec<Ring>> {
        let mut rings = rings();
        decode(bytes, &mut rings).then_some(rings)
    }

    fn known(rings: &[Ring]) -> Vec<Slot> {
        rings.iter().flat_map(Ring::all).filter(|slot| slot.begins_at > 0).copied().collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let rings = filled();
        let bytes = encode(&rings);
        assert_eq!(bytes.len(), file_bytes(&rings));
        assert_eq!(known(&read(&bytes).unwrap()), known(&rings));
        assert_eq!(known(&rings).len(), 6);
    }

    #[test]
    fn a_file_cut_anywhere_is_none_of_ours() {
        let bytes = encode(&filled());
        for len in 0..bytes.len() {
            assert!(read(&bytes[..len]).is_none(), "{len}");
        }
    }

    #[test]
    fn a_flipped_bit_costs_one_slot_or_makes_the_file_another() {
        let whole = filled();
        let bytes = encode(&whole);
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x40;
            match read(&bytes) {
                None => assert!(at < RECORD_BYTES, "{at}"),
                Some(rings) => {
                    let (left, all) = (known(&rings), known(&whole));
                    assert!(left.len() + 1 >= all.len(), "{at}");
                    assert!(left.iter().all(|slot| all.contains(slot)), "{at}");
                }
            }
        }
    }

    #[test]
    fn a_file_of_another_shape_is_none_of_ours() {
        let bytes = encode(&[Ring::new(10, 4), Ring::new(300, 6)]);
        assert!(read(&bytes).is_none());
    }
}

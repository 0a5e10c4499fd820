//! A set of byte ranges: which parts of a body are there.
//!
//! Kept sorted, disjoint and merged, so that a body that comes from front to
//! back is one range, however many pieces it came in.

use super::ByteRange;

/// The ranges of a body that are there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Ascending, not empty, with a gap between each and the next.
    ranges: Vec<ByteRange>,
}

// === impl Coverage ===

impl Coverage {
    /// The bytes before `end`.
    pub fn prefix(end: u64) -> Self {
        let mut coverage = Self::default();
        coverage.add(ByteRange::new(0, end));
        coverage
    }

    /// Adds the bytes of `range`, those that are there already too.
    pub fn add(&mut self, range: ByteRange) {
        if range.is_empty() {
            return;
        }
        // Touching ranges merge, hence `<` and not `<=`.
        let first = self.ranges.partition_point(|present| present.end < range.start);
        let behind = self.ranges.partition_point(|present| present.start <= range.end);
        let touching = self.ranges.get(first..behind).unwrap_or_default();
        let merged = touching.iter().fold(range, |merged, present| merged.cover(*present));
        self.ranges.splice(first..behind, [merged]);
    }

    /// The ranges, ascending.
    pub fn ranges(&self) -> &[ByteRange] {
        &self.ranges
    }

    /// How many bytes are there.
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|range| range.len()).sum()
    }

    /// True if nothing is there.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Where the bytes that are there from `start` on end; `start` itself if there are none.
    pub fn end_of(&self, start: u64) -> u64 {
        let next = self.ranges.partition_point(|present| present.end <= start);
        match self.ranges.get(next) {
            Some(present) if present.start <= start => present.end,
            _ => start,
        }
    }

    /// True if all of `range` is there.
    pub fn covers(&self, range: ByteRange) -> bool {
        range.is_empty() || self.end_of(range.start) >= range.end
    }

    /// The first part of `within` that is missing, up to the next byte that is there.
    pub fn gap(&self, within: ByteRange) -> Option<ByteRange> {
        let start = self.end_of(within.start);
        if start >= within.end {
            return None;
        }
        let next = self.ranges.partition_point(|present| present.end <= start);
        let end = self.ranges.get(next).map_or(within.end, |present| present.start);
        Some(ByteRange::new(start, end.min(within.end)))
    }

    /// True if nothing but the bytes before [`Coverage::end_of`]`(0)` is there.
    pub fn is_prefix(&self) -> bool {
        match self.ranges.as_slice() {
            [] => true,
            [only] => only.start == 0,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(start: u64, end: u64) -> ByteRange {
        ByteRange::new(start, end)
    }

    #[test]
    fn touching_ranges_become_one() {
        let mut coverage = Coverage::prefix(10);
        coverage.add(range(20, 30));
        assert_eq!(coverage.ranges(), [range(0, 10), range(20, 30)]);
        assert!(!coverage.is_prefix());
        assert_eq!(coverage.gap(range(5, 25)), Some(range(10, 20)));
        coverage.add(range(10, 20));
        assert_eq!(coverage.ranges(), [range(0, 30)]);
        assert!(coverage.is_prefix() && coverage.covers(range(3, 30)));
        assert_eq!(coverage.gap(range(0, 40)), Some(range(30, 40)));
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_set_of_bytes(adds in prop::collection::vec((0_u64..60, 0_u64..20), 0..12)) {
            let (mut coverage, mut bytes) = (Coverage::default(), [false; 100]);
            for (start, len) in adds {
                coverage.add(range(start, start + len));
                (start..start + len).for_each(|at| bytes[at as usize] = true);
            }
            prop_assert_eq!(coverage.len(), bytes.iter().filter(|byte| **byte).count() as u64);
            for start in 0..90_u64 {
                let end = (start..100).find(|at| !bytes[*at as usize]).unwrap();
                prop_assert_eq!(coverage.end_of(start), end);
                let within = range(start, 100);
                let until = (end..100).find(|at| bytes[*at as usize]).unwrap_or(100);
                prop_assert_eq!(coverage.gap(within), Some(range(end, until)));
                prop_assert_eq!(coverage.covers(range(start, end)), true);
            }
            for pair in coverage.ranges().windows(2) {
                prop_assert!(pair[0].end < pair[1].start);
            }
        }
    }
}

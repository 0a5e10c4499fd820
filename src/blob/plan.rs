//! What to fetch next: a pure plan of readers × what is there × what is under way.
//!
//! Who wants the whole gets it from front to back, around what is there. Who
//! wants a range gets the aligned chunks that it lies in, a stretch ahead of
//! where it reads, once for all who want the same.

use super::window::Interest;
use crate::protocol::{ByteRange, Coverage};

/// A reader of a range has so much asked for ahead of it.
pub(super) const AHEAD_BYTES: u64 = 8 << 20;

/// Requests for one blob at the same time.
pub(super) const PARALLEL: usize = 8;

/// A request under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    /// Where it is by now, and where it will end.
    pub(super) range: ByteRange,
    /// It brings all that is missing up to there, from front to back, for who wants the whole.
    pub(super) is_whole: bool,
}

/// What is known of a fill.
#[derive(Debug)]
pub(super) struct Situation<'a> {
    pub(super) total: u64,
    pub(super) received: &'a Coverage,
    pub(super) claims: &'a [Claim],
    pub(super) readers: &'a [Interest],
    pub(super) chunk: u64,
    /// All that is missing is wanted, whether a reader says so or not.
    pub(super) finish: bool,
    /// Upstream sends the whole whatever it is asked for.
    pub(super) whole_only: bool,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask for this; to the blob's end if `is_whole` and it ends there.
    Fetch(Claim),
    /// The request with this place among the claims is to end at the byte: a reader far ahead of
    /// it can't wait so long.
    Shorten(usize, u64),
}

/// The next step; `None` if all that is wanted is there or under way.
pub(super) fn next(situation: &Situation<'_>) -> Option<Step> {
    if situation.claims.len() >= PARALLEL {
        return None;
    }
    if !situation.whole_only {
        let ranges = situation.readers.iter().filter(|reader| !reader.is_whole);
        if let Some(step) = ranges.into_iter().find_map(|reader| for_range(situation, *reader)) {
            return Some(step);
        }
    }
    for_whole(situation)
}

fn for_range(situation: &Situation<'_>, reader: Interest) -> Option<Step> {
    let Situation { total, chunk, .. } = *situation;
    let until = reader.until.unwrap_or(total).min(total);
    if reader.at >= until {
        return None;
    }
    let mut taken = situation.received.clone();
    situation.claims.iter().for_each(|claim| taken.add(claim.range));
    let ahead = taken.end_of(reader.at);
    // A stretch at a time: asking for each chunk as it is read would be a request for each.
    if ahead < until.min(reader.at + AHEAD_BYTES / 2) {
        let start = (ahead - ahead % chunk).max(if ahead > reader.at { ahead } else { 0 });
        let end = until.next_multiple_of(chunk).min(start + AHEAD_BYTES.max(chunk)).min(total);
        let range = taken.gap(ByteRange::new(start, end))?;
        return Some(Step::Fetch(Claim { range, is_whole: false }));
    }
    // What it needs next is there or under way. A claim that is far from it is cut short, and the
    // rest of it becomes a gap.
    let missing = situation.received.gap(ByteRange::new(reader.at, until))?;
    let place = situation.claims.iter().position(|claim| {
        claim.is_whole
            && claim.range.end > missing.start
            && missing.start < until.min(reader.at + AHEAD_BYTES / 2)
            && missing.start >= claim.range.start + AHEAD_BYTES
    })?;
    Some(Step::Shorten(place, missing.start - missing.start % chunk))
}

fn for_whole(situation: &Situation<'_>) -> Option<Step> {
    let wanted = situation.finish
        || situation.whole_only
        || situation.readers.iter().any(|reader| reader.is_whole);
    if !wanted || situation.claims.iter().any(|claim| claim.is_whole) {
        return None;
    }
    let range = first_unclaimed(situation, ByteRange::new(0, situation.total))?;
    Some(Step::Fetch(Claim { range, is_whole: true }))
}

/// The first part of `within` that is neither there nor under way.
fn first_unclaimed(situation: &Situation<'_>, within: ByteRange) -> Option<ByteRange> {
    let mut taken = situation.received.clone();
    situation.claims.iter().for_each(|claim| taken.add(claim.range));
    taken.gap(within)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn range(start: u64, end: u64) -> ByteRange {
        ByteRange::new(start, end)
    }

    fn part(at: u64, until: Option<u64>) -> Interest {
        Interest { at, until, is_whole: false }
    }

    const WHOLE: Interest = Interest { at: 0, until: None, is_whole: true };

    fn plan(received: &Coverage, claims: &[Claim], readers: &[Interest]) -> Option<Step> {
        let (finish, whole_only) = (false, false);
        let total = 100 * MIB + 5;
        next(&Situation { total, received, claims, readers, chunk: MIB, finish, whole_only })
    }

    fn fetch(start: u64, end: u64, is_whole: bool) -> Option<Step> {
        Some(Step::Fetch(Claim { range: range(start, end), is_whole }))
    }

    #[test]
    fn a_range_gets_the_chunks_that_it_lies_in() {
        let nothing = Coverage::default();
        let reader = part(5 * MIB + 7, Some(6 * MIB + 1));
        assert_eq!(plan(&nothing, &[], &[reader]), fetch(5 * MIB, 7 * MIB, false));
        let claim = Claim { range: range(5 * MIB, 7 * MIB), is_whole: false };
        assert_eq!(plan(&nothing, &[claim], &[reader, reader]), None);
        let end = part(100 * MIB + 1, None);
        assert_eq!(plan(&nothing, &[], &[end]), fetch(100 * MIB, 100 * MIB + 5, false));
    }

    #[test]
    fn an_open_range_is_fetched_a_stretch_ahead() {
        let received = Coverage::prefix(MIB);
        assert_eq!(plan(&received, &[], &[part(0, None)]), fetch(MIB, 9 * MIB, false));
        let received = Coverage::prefix(9 * MIB);
        assert_eq!(plan(&received, &[], &[part(MIB, None)]), None);
        assert_eq!(plan(&received, &[], &[part(6 * MIB, None)]), fetch(9 * MIB, 17 * MIB, false));
    }

    #[test]
    fn the_whole_is_fetched_around_what_is_there_in_one_request_at_a_time() {
        let mut received = Coverage::prefix(3);
        received.add(range(10 * MIB, 20 * MIB));
        assert_eq!(plan(&received, &[], &[WHOLE]), fetch(3, 10 * MIB, true));
        let claim = Claim { range: range(MIB, 10 * MIB), is_whole: true };
        assert_eq!(plan(&received, &[claim], &[WHOLE]), None);
        received.add(range(0, 10 * MIB));
        assert_eq!(plan(&received, &[], &[WHOLE]), fetch(20 * MIB, 100 * MIB + 5, true));
        received.add(range(0, 100 * MIB + 5));
        assert_eq!(plan(&received, &[], &[WHOLE]), None);
    }

    #[test]
    fn a_range_far_ahead_of_the_whole_does_not_wait_for_it() {
        let nothing = Coverage::default();
        let claim = Claim { range: range(MIB, 100 * MIB + 5), is_whole: true };
        let near = part(5 * MIB, Some(5 * MIB + 1));
        assert_eq!(plan(&nothing, &[claim], &[WHOLE, near]), None);
        let far = part(50 * MIB + 9, Some(50 * MIB + 10));
        assert_eq!(plan(&nothing, &[claim], &[WHOLE, far]), Some(Step::Shorten(0, 50 * MIB)));
        let claim = Claim { range: range(MIB, 50 * MIB), is_whole: true };
        assert_eq!(plan(&nothing, &[claim], &[WHOLE, far]), fetch(50 * MIB, 51 * MIB, false));
    }
}

//! Byte ranges: what a `Range` header asks of a representation whose size is known.
//!
//! Everything returned lies inside the representation and is not empty. Whether a range applies at
//! all (`If-Range`, the method) is left to `conditional` and to the caller.

use super::list::trim_ows;

/// The most ranges answered in one response; a request for more gets the whole body, which RFC 9110
/// §14.2 allows against "many small ranges".
pub const MAX_RANGES: usize = 64;

/// Bytes from `start` up to, not including, `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ByteRange {
    /// The first byte.
    pub start: u64,
    /// The byte after the last.
    pub end: u64,
}

/// What to answer a request, in the order in which a server finds out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requested {
    /// No range, or one to be ignored: 200 with everything.
    Whole,
    /// 206 with one part.
    Single(ByteRange),
    /// 206 with `multipart/byteranges`; at least two parts.
    Multiple(Vec<ByteRange>),
    /// 416.
    Unsatisfiable,
}

/// What a `Range` header asks for, as far as that can be said before the size is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// All of it.
    Whole,
    /// One range from this byte on, up to and not including the second, or to the end.
    From(u64, Option<u64>),
    /// Something that counts from the end, or several ranges: only the size tells.
    Unsized,
}

/// One element of a `Range` header, positions as sent.
#[derive(Clone, Copy)]
enum Spec {
    From { first: u64, last: Option<u64> },
    Suffix { length: u64 },
}

// === impl ByteRange ===

impl ByteRange {
    /// Bytes from `start` up to, not including, `end`.
    pub const fn new(start: u64, end: u64) -> Self {
        Self { start, end }
    }

    /// How many bytes it spans.
    pub const fn len(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether it spans none. No range that [`resolve`] gives is empty.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The `Range` header that asks for exactly this, `bytes=first-last`; `None` if it is empty,
    /// which no such header can say.
    pub fn header(self) -> Option<String> {
        (!self.is_empty()).then(|| format!("bytes={}-{}", self.start, self.end - 1))
    }

    /// Whether the two overlap or are adjacent, so that one range covers both and nothing else.
    fn touches(self, other: Self) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    pub(super) fn cover(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

// === requests ===

/// Resolves a `Range` header against a representation of `size` bytes (RFC 9110 §14.1.2, §14.2).
///
/// A header that is malformed, of another unit, or of more than [`MAX_RANGES`] is ignored. If more
/// than two ranges overlap or touch, those are coalesced (§15.3.7.2); otherwise the client's order
/// and parts are kept. Nothing of an empty representation can be satisfied.
pub fn resolve(range_header: Option<&str>, size: u64) -> Requested {
    let Some(specs) = range_header.and_then(parse_specs) else {
        return Requested::Whole;
    };
    let ranges: Vec<_> = specs.into_iter().filter_map(|spec| spec.within(size)).collect();
    match coalesce(ranges).as_slice() {
        [] => Requested::Unsatisfiable,
        [range] => Requested::Single(*range),
        ranges => Requested::Multiple(ranges.to_vec()),
    }
}

/// What a `Range` header asks for before the size is known; one that [`resolve`] ignores asks for
/// the whole.
pub fn asked(range_header: Option<&str>) -> Asked {
    match range_header.and_then(parse_specs).as_deref() {
        None => Asked::Whole,
        Some([Spec::From { first, last }]) => {
            Asked::From(*first, last.map(|last| last.saturating_add(1)))
        }
        Some(_) => Asked::Unsized,
    }
}

fn parse_specs(header: &str) -> Option<Vec<Spec>> {
    let (unit, set) = header.split_once('=')?;
    // Units compare without case (RFC 9110 §14.1).
    if !trim_ows_start(unit).eq_ignore_ascii_case("bytes") {
        return None;
    }
    let mut specs = Vec::new();
    for element in set.split(',').map(trim_ows).filter(|element| !element.is_empty()) {
        if specs.len() == MAX_RANGES {
            return None;
        }
        specs.push(Spec::parse(element)?);
    }
    (!specs.is_empty()).then_some(specs)
}

fn trim_ows_start(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

/// Merges ranges that touch, each into the place of the earliest, if more than two of them do.
fn coalesce(ranges: Vec<ByteRange>) -> Vec<ByteRange> {
    let touching = |at: usize, range: ByteRange| {
        ranges.iter().enumerate().any(|(other, &it)| other != at && range.touches(it))
    };
    let crowd = ranges.iter().enumerate().filter(|&(at, &range)| touching(at, range)).count();
    if crowd <= 2 {
        return ranges;
    }
    let mut merged: Vec<ByteRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        absorb(&mut merged, range);
    }
    merged
}

fn absorb(merged: &mut Vec<ByteRange>, range: ByteRange) {
    let Some(place) = merged.iter().position(|it| it.touches(range)) else {
        merged.push(range);
        return;
    };
    let mut grown = range;
    // Growing may reach further ranges, so ask again until nothing more is taken in.
    while let Some(at) = merged.iter().position(|it| it.touches(grown)) {
        grown = grown.cover(merged.remove(at));
    }
    merged.insert(place.min(merged.len()), grown);
}

// === impl Spec ===

impl Spec {
    fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-')?;
        if first.is_empty() {
            return Some(Self::Suffix { length: parse_position(last)? });
        }
        let first = parse_position(first)?;
        if last.is_empty() {
            return Some(Self::From { first, last: None });
        }
        let last = parse_position(last)?;
        // RFC 9110 §14.1.1: invalid if last-pos is less than first-pos.
        (first <= last).then_some(Self::From { first, last: Some(last) })
    }

    fn within(self, size: u64) -> Option<ByteRange> {
        let range = match self {
            Self::Suffix { length } => ByteRange::new(size.saturating_sub(length), size),
            Self::From { first, last } => {
                let end = last.map_or(size, |last| last.saturating_add(1).min(size));
                ByteRange::new(first, end)
            }
        };
        (!range.is_empty()).then_some(range)
    }
}

/// Digits only; a position beyond `u64` lies beyond any representation just as `u64::MAX` does.
fn parse_position(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

// === responses ===

/// The `Content-Range` of a 206 part (RFC 9110 §14.4). `range` is not empty.
pub fn content_range(range: ByteRange, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1))
}

/// The `Content-Range` of a 416 (RFC 9110 §15.5.17).
pub fn content_range_unsatisfied(size: u64) -> String {
    format!("bytes */{size}")
}

/// Reads upstream's `Content-Range` of a 206: the range, and the complete size if it is told.
/// `None` if it is malformed, invalid by RFC 9110 §14.4, of another unit, or that of a 416.
pub fn parse_content_range(text: &str) -> Option<(ByteRange, Option<u64>)> {
    let (unit, rest) = trim_ows(text).split_once(' ')?;
    let (positions, size) = rest.split_once('/')?;
    let (first, last) = positions.split_once('-')?;
    let range = ByteRange::new(exact_position(first)?, exact_position(last)?.checked_add(1)?);
    let size = if size == "*" { None } else { Some(exact_position(size)?) };
    let valid = unit.eq_ignore_ascii_case("bytes")
        && !range.is_empty()
        && size.is_none_or(|size| range.end <= size);
    valid.then_some((range, size))
}

fn exact_position(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(start: u64, end: u64) -> ByteRange {
        ByteRange::new(start, end)
    }

    fn single(start: u64, end: u64) -> Requested {
        Requested::Single(range(start, end))
    }

    fn of_1000(header: &str) -> Requested {
        resolve(Some(header), 1000)
    }

    #[test]
    fn what_is_asked_before_the_size_is_known() {
        assert_eq!(asked(None), Asked::Whole);
        assert_eq!(asked(Some("bytes=9-5")), Asked::Whole);
        assert_eq!(asked(Some("bytes=7-")), Asked::From(7, None));
        assert_eq!(asked(Some("bytes=7-9")), Asked::From(7, Some(10)));
        assert_eq!(asked(Some("bytes=-9")), Asked::Unsized);
        assert_eq!(asked(Some("bytes=0-1,5-6")), Asked::Unsized);
    }

    #[test]
    fn one_range_is_clamped_to_the_representation() {
        assert_eq!(of_1000("bytes=0-499"), single(0, 500));
        assert_eq!(of_1000("bytes=0-"), single(0, 1000));
        assert_eq!(of_1000("bytes=999-999999"), single(999, 1000));
        assert_eq!(of_1000("bytes=0-18446744073709551615"), single(0, 1000));
        assert_eq!(of_1000("bytes=0-99999999999999999999999"), single(0, 1000));
    }

    #[test]
    fn a_suffix_counts_from_the_end() {
        assert_eq!(of_1000("bytes=-1"), single(999, 1000));
        assert_eq!(of_1000("bytes=-5000"), single(0, 1000));
        assert_eq!(of_1000("bytes=-0"), Requested::Unsatisfiable);
    }

    #[test]
    fn what_lies_behind_the_end_is_unsatisfiable() {
        assert_eq!(of_1000("bytes=1000-"), Requested::Unsatisfiable);
        assert_eq!(of_1000("bytes=1000-1001, 5000-"), Requested::Unsatisfiable);
        assert_eq!(of_1000("bytes=1000-, 0-0"), single(0, 1));
    }

    #[test]
    fn nothing_of_an_empty_blob_can_be_satisfied() {
        for header in ["bytes=0-", "bytes=-1", "bytes=0-0"] {
            assert_eq!(resolve(Some(header), 0), Requested::Unsatisfiable, "{header}");
        }
        assert_eq!(resolve(None, 0), Requested::Whole);
        assert_eq!(resolve(Some("bytes"), 0), Requested::Whole);
    }

    #[test]
    fn what_is_malformed_or_of_another_unit_is_ignored() {
        let ignored = [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=5",
            "bytes=5-4",
            "bytes=a-b",
            "bytes=0-0,x",
            "bytes=+1-2",
            "bytes=0x0-1",
            "bytes=1 - 2",
            "items=0-1",
            "bytes:0-1",
            "bytes=--1",
            "bytes=0-1-2",
            "bytes=٠-١",
        ];
        for header in ignored {
            assert_eq!(of_1000(header), Requested::Whole, "{header:?}");
        }
    }

    #[test]
    fn units_and_spacing_are_read_liberally() {
        assert_eq!(of_1000("Bytes=0-0"), single(0, 1));
        assert_eq!(of_1000("bytes= 0-0 ,\t, "), single(0, 1));
    }

    #[test]
    fn several_ranges_keep_the_clients_order() {
        let expected = vec![range(500, 600), range(0, 10)];
        assert_eq!(of_1000("bytes=500-599, 0-9"), Requested::Multiple(expected));
        let two_overlapping = vec![range(0, 10), range(5, 20)];
        assert_eq!(of_1000("bytes=0-9,5-19"), Requested::Multiple(two_overlapping));
    }

    #[test]
    fn more_than_two_overlapping_ranges_are_coalesced_in_place() {
        assert_eq!(of_1000("bytes=0-9,5-19,20-29"), single(0, 30));
        let expected = vec![range(100, 130), range(500, 501), range(0, 1)];
        let header = "bytes=110-119,500-500,100-109,120-129,0-0";
        assert_eq!(of_1000(header), Requested::Multiple(expected));
    }

    #[test]
    fn more_than_64_ranges_are_ignored() {
        let header = |count: u64| {
            let specs: Vec<_> = (0..count).map(|at| format!("{0}-{0}", 2 * at)).collect();
            format!("bytes={}", specs.join(","))
        };
        assert!(matches!(of_1000(&header(64)), Requested::Multiple(ranges) if ranges.len() == 64));
        assert_eq!(of_1000(&header(65)), Requested::Whole);
    }

    #[test]
    fn content_range_of_a_416_tells_only_the_size() {
        assert_eq!(content_range_unsatisfied(47), "bytes */47");
        assert_eq!(parse_content_range("bytes */47"), None);
    }

    #[test]
    fn upstreams_content_range_is_checked() {
        assert_eq!(parse_content_range("bytes 0-4/10"), Some((range(0, 5), Some(10))));
        assert_eq!(parse_content_range(" Bytes 0-4/* "), Some((range(0, 5), None)));
        let wrong = [
            "",
            "bytes",
            "bytes 0-4",
            "bytes 0-10/10",
            "bytes 5-4/10",
            "bytes -4/10",
            "bytes 0-/10",
            "items 0-4/10",
            "bytes=0-4/10",
            "bytes 0-18446744073709551615/*",
            "bytes 0-4/x",
            "bytes 0-4/",
        ];
        for text in wrong {
            assert_eq!(parse_content_range(text), None, "{text:?}");
        }
    }

    /// Every byte that the ranges cover, sorted, each once.
    fn covered(ranges: &[ByteRange]) -> Vec<u64> {
        let mut bytes: Vec<u64> = ranges.iter().flat_map(|range| range.start..range.end).collect();
        bytes.sort_unstable();
        bytes.dedup();
        bytes
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_back(start in 0_u64..1000, len in 1_u64..1000, more in 0_u64..1000) {
            let (it, size) = (range(start, start + len), start + len + more);
            prop_assert_eq!(resolve(it.header().as_deref(), size), Requested::Single(it));
            prop_assert_eq!(parse_content_range(&content_range(it, size)), Some((it, Some(size))));
        }

        #[test]
        fn coalescing_loses_and_adds_no_byte(
            pairs in proptest::collection::vec((0_u64..60, 0_u64..12), 1..20),
            size in 1_u64..80,
        ) {
            let specs: Vec<_> = pairs.iter().map(|(first, more)| format!("{first}-{}", first + more)).collect();
            let asked: Vec<_> = pairs
                .iter()
                .map(|(first, more)| range(*first, (first + more + 1).min(size)))
                .collect();
            let got = match resolve(Some(&format!("bytes={}", specs.join(","))), size) {
                Requested::Whole => return Err(TestCaseError::fail("a valid header was ignored")),
                Requested::Unsatisfiable => Vec::new(),
                Requested::Single(it) => vec![it],
                Requested::Multiple(them) => {
                    prop_assert!(them.len() > 1);
                    them
                }
            };
            prop_assert_eq!(covered(&got), covered(&asked));
            prop_assert!(got.iter().all(|it| !it.is_empty() && it.end <= size));
        }

        #[test]
        fn no_header_panics_and_nothing_leaves_the_representation(
            header in ".{0,40}|bytes=[0-9, -]{0,60}", size: u64,
        ) {
            match resolve(Some(&header), size) {
                Requested::Whole | Requested::Unsatisfiable => {}
                Requested::Single(it) => prop_assert!(!it.is_empty() && it.end <= size),
                Requested::Multiple(them) => {
                    prop_assert!(them.iter().all(|it| !it.is_empty() && it.end <= size));
                }
            }
            let _ = parse_content_range(&header);
        }
    }
}

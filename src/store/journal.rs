//! The journal of a staged file whose bytes did not come from front to back.
//!
//! A header, then one record for each piece that was written, in the order of
//! writing: where it lies and the checksum of its bytes. A record counts once
//! it is whole; what is cut short or damaged ends the journal there. A piece
//! whose bytes do not match (a power cut kept the record and lost the bytes)
//! counts as missing.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::FileExt,
    path::Path,
};

use crate::protocol::{ByteRange, Coverage};

/// What the file begins with; the last byte is the version.
const MAGIC: [u8; 8] = *b"RSTDMAP\x01";

/// Of the header and of each record: eight bytes, eight bytes, and the checksum of both.
const ROW_BYTES: usize = 20;

/// Read back at a time, to check a piece.
const BUFFER_BYTES: usize = 1 << 20;

/// An open journal.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    /// Bytes of whole rows.
    len: u64,
}

/// One piece of the staged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record {
    start: u64,
    len: u32,
    checksum: u32,
}

// === impl Journal ===

impl Journal {
    /// Starts the journal of a body of `total` bytes.
    pub(super) fn create(path: &Path, total: u64) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).open(path)?;
        file.write_all_at(&row(MAGIC, total.to_le_bytes()), 0)?;
        Ok(Self { file, len: ROW_BYTES as u64 })
    }

    /// Reads what an earlier life wrote, and keeps what `body` bears out: the blob's length and
    /// which bytes of it are there. `None` if there is no usable journal. Blocks on the disk.
    pub(super) fn reopen(path: &Path, body: &File) -> io::Result<Option<(Self, u64, Coverage)>> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut bytes = Vec::new();
        (&file).read_to_end(&mut bytes)?;
        let Some((total, records)) = parse(&bytes) else {
            return Ok(None);
        };
        let len = (ROW_BYTES * (records.len() + 1)) as u64;
        let mut present = Coverage::default();
        for record in records {
            if record.range().end <= total && record.is_borne_out(body)? {
                present.add(record.range());
            }
        }
        Ok(Some((Self { file, len }, total, present)))
    }

    /// Notes that `bytes` have been written at `start`.
    pub(super) fn append(&mut self, start: u64, bytes: &[u8]) -> io::Result<()> {
        for (index, piece) in bytes.chunks(BUFFER_BYTES).enumerate() {
            let start = start + (index * BUFFER_BYTES) as u64;
            let len = u32::try_from(piece.len()).unwrap_or(u32::MAX);
            let record = Record { start, len, checksum: crc32fast::hash(piece) };
            self.file.write_all_at(&record.encode(), self.len)?;
            self.len += ROW_BYTES as u64;
        }
        Ok(())
    }

    /// Makes the records durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

// === impl Record ===

impl Record {
    fn range(self) -> ByteRange {
        ByteRange::new(self.start, self.start.saturating_add(u64::from(self.len)))
    }

    fn encode(self) -> [u8; ROW_BYTES] {
        let [len, checksum] = [self.len.to_le_bytes(), self.checksum.to_le_bytes()];
        let mut second = [0; 8];
        second.iter_mut().zip(len.iter().chain(&checksum)).for_each(|(to, from)| *to = *from);
        row(self.start.to_le_bytes(), second)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (start, second) = parse_row(bytes)?;
        let (len, checksum) = second.split_first_chunk::<4>()?;
        Some(Self {
            start: u64::from_le_bytes(start),
            len: u32::from_le_bytes(*len),
            checksum: u32::from_le_bytes(checksum.try_into().ok()?),
        })
    }

    /// True if `body` holds the bytes that were noted.
    fn is_borne_out(self, body: &File) -> io::Result<bool> {
        let mut hasher = crc32fast::Hasher::new();
        let mut buffer = vec![0; BUFFER_BYTES.min(self.len as usize)];
        let range = self.range();
        let mut at = range.start;
        while at < range.end {
            let want = buffer.len().min(usize::try_from(range.end - at).unwrap_or(usize::MAX));
            let Some(part) = buffer.get_mut(..want) else { return Ok(false) };
            match body.read_exact_at(part, at) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                read => read?,
            }
            hasher.update(part);
            at += want as u64;
        }
        Ok(hasher.finalize() == self.checksum)
    }
}

fn row(first: [u8; 8], second: [u8; 8]) -> [u8; ROW_BYTES] {
    let mut row = [0; ROW_BYTES];
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&first);
    hasher.update(&second);
    let checksum = hasher.finalize().to_le_bytes();
    let bytes = first.iter().chain(&second).chain(&checksum);
    row.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    row
}

fn parse_row(bytes: &[u8]) -> Option<([u8; 8], [u8; 8])> {
    let (first, rest) = bytes.split_first_chunk::<8>()?;
    let (second, rest) = rest.split_first_chunk::<8>()?;
    let good = row(*first, *second);
    (good.get(16..) == rest.get(..4)).then_some((*first, *second))
}

/// The body's length and the records, as far as they are whole.
fn parse(bytes: &[u8]) -> Option<(u64, Vec<Record>)> {
    let (magic, total) = parse_row(bytes)?;
    if magic != MAGIC {
        return None;
    }
    let rows = bytes.chunks_exact(ROW_BYTES).skip(1);
    Some((u64::from_le_bytes(total), rows.map_while(Record::decode).collect()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn range(start: u64, end: u64) -> ByteRange {
        ByteRange::new(start, end)
    }

    /// A body with two pieces of 100 bytes at 0 and 500, and its journal.
    fn two_pieces(folder: &Path) -> (File, std::path::PathBuf) {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(true);
        let body = options.open(folder.join("body")).unwrap();
        let path = folder.join("map");
        let mut journal = Journal::create(&path, 1000).unwrap();
        for start in [500, 0] {
            let bytes = [start as u8 + 1; 100];
            body.write_all_at(&bytes, start).unwrap();
            journal.append(start, &bytes).unwrap();
        }
        (body, path)
    }

    #[test]
    fn what_was_noted_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let (body, path) = two_pieces(folder.path());
        let (_, total, present) = Journal::reopen(&path, &body).unwrap().unwrap();
        assert_eq!((total, present.ranges()), (1000, &[range(0, 100), range(500, 600)][..]));
    }

    #[test]
    fn a_piece_that_the_body_does_not_bear_out_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let (body, path) = two_pieces(folder.path());
        body.write_all_at(b"\0", 550).unwrap();
        let (_, _, present) = Journal::reopen(&path, &body).unwrap().unwrap();
        assert_eq!(present.ranges(), [range(0, 100)]);
        body.set_len(50).unwrap();
        let (_, _, present) = Journal::reopen(&path, &body).unwrap().unwrap();
        assert!(present.is_empty());
    }

    #[test]
    fn cut_at_any_byte_it_tells_no_lie() {
        let folder = tempfile::tempdir().unwrap();
        let (body, path) = two_pieces(folder.path());
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let present = Journal::reopen(&path, &body).unwrap().map(|(_, _, present)| present);
            let expected = match cut / ROW_BYTES {
                0 => None,
                1 => Some(vec![]),
                _ => Some(vec![range(500, 600)]),
            };
            assert_eq!(present.map(|present| present.ranges().to_vec()), expected, "cut at {cut}");
        }
    }

    #[test]
    fn a_flipped_bit_ends_it_there() {
        let folder = tempfile::tempdir().unwrap();
        let (body, path) = two_pieces(folder.path());
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            let found = Journal::reopen(&path, &body).unwrap();
            let present = found.map_or(0, |(_, _, present)| present.len());
            assert_eq!(present, [0, 0, 100][at / ROW_BYTES], "flipped at {at}");
        }
    }

    #[test]
    fn a_reopened_journal_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let (body, path) = two_pieces(folder.path());
        let (mut journal, _, _) = Journal::reopen(&path, &body).unwrap().unwrap();
        body.write_all_at(&[9; 10], 100).unwrap();
        journal.append(100, &[9; 10]).unwrap();
        journal.sync().unwrap();
        let (_, _, present) = Journal::reopen(&path, &body).unwrap().unwrap();
        assert_eq!(present.ranges(), [range(0, 110), range(500, 600)]);
    }
}

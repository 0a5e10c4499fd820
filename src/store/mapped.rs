//! A file in memory: the one place of the crate where `unsafe` stands.
//!
//! A [`Map`] covers a file that only ever grows (staged) or never changes
//! (published). Whoever slices it may name only bytes that were written before:
//! they stay as they are until the last slice is gone.

use std::{fs::File, io, ops::Range, sync::Arc};

use bytes::Bytes;
use memmap2::{Advice, MmapOptions, MmapRaw};

/// A read-only map of a file, shared by all that read it.
#[derive(Debug, Clone)]
pub struct Map {
    pages: Arc<MmapRaw>,
}

/// Some written bytes of a map; keeps the map alive.
struct Window {
    pages: Arc<MmapRaw>,
    range: Range<usize>,
}

// === impl Map ===

impl Map {
    /// Maps `len` bytes of `file`, which may be longer than the file is now: pages past its
    /// end become readable as it grows, and nobody slices them before.
    pub fn new(file: &File, len: u64) -> io::Result<Self> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let pages = MmapOptions::new().len(len.max(1)).map_raw_read_only(file)?;
        Ok(Self { pages: Arc::new(pages) })
    }

    /// How many bytes it covers.
    #[expect(clippy::len_without_is_empty, reason = "a map covers at least a page")]
    pub fn len(&self) -> u64 {
        self.pages.len() as u64
    }

    /// The bytes from `start` on, `len` of them, without a copy. They must have been written.
    ///
    /// # Panics
    /// If the range lies outside the map.
    pub fn slice(&self, start: u64, len: u64) -> Bytes {
        let range = self.range(start, len);
        if range.is_empty() {
            return Bytes::new();
        }
        Bytes::from_owner(Window { pages: Arc::clone(&self.pages), range })
    }

    /// True when all pages of the range are in memory, so that reading them does not wait for
    /// the disk.
    pub fn is_resident(&self, start: u64, len: u64) -> bool {
        let range = self.range(start, len);
        if range.is_empty() {
            return true;
        }
        let first = range.start - range.start % PAGE_BYTES;
        let bytes = range.end - first;
        let mut pages = vec![0_u8; bytes.div_ceil(PAGE_BYTES)];
        // SAFETY: `first..first + bytes` lies inside the live mapping and starts on a page, and
        // `pages` has one byte for each page of it. `mincore` reads no page and writes there only.
        #[expect(unsafe_code, reason = "mincore has no safe wrapper")]
        let status = unsafe {
            libc::mincore(self.pages.as_mut_ptr().add(first).cast(), bytes, pages.as_mut_ptr())
        };
        status == 0 && pages.iter().all(|page| page & 1 == 1)
    }

    /// Brings the pages of the range in. Blocks on the disk. [`is_bad_file`] tells whether an error
    /// means that the pages can't be read.
    pub fn populate(&self, start: u64, len: u64) -> io::Result<()> {
        let range = self.range(start, len);
        match self.pages.advise_range(Advice::PopulateRead, range.start, range.len()) {
            // Linux before 5.14 can't; then whoever reads the pages waits for them.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {
                Ok(())
            }
            populated => populated,
        }
    }

    fn range(&self, start: u64, len: u64) -> Range<usize> {
        let end = start.checked_add(len).and_then(|end| usize::try_from(end).ok());
        let end = end.filter(|end| *end <= self.pages.len()).expect("a slice lies inside its map");
        end - usize::try_from(len).expect("no longer than the map")..end
    }
}

/// True if the error of a read is about the file: cut short, or a device that lost it. Anything
/// else, such as too little memory, says nothing about it.
pub fn is_bad_file(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EFAULT | libc::EIO | libc::EHWPOISON))
}

/// The page size of every platform that the map is used on; a wrong one only makes
/// [`Map::is_resident`] look at the wrong count of pages.
const PAGE_BYTES: usize = 4096;

// === impl Window ===

impl AsRef<[u8]> for Window {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the range lies inside the mapping, which lives as long as `pages`. The bytes
        // were written before the slice was asked for and no file of the store is written twice
        // at the same place or truncated: published files are immutable and end by being
        // unlinked, which keeps mapped pages; staged ones are only appended to.
        #[expect(unsafe_code, reason = "the bytes of a map are reached by its pointer only")]
        unsafe {
            std::slice::from_raw_parts(self.pages.as_ptr().add(self.range.start), self.range.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_map_shows_what_is_appended_after_it_was_made() {
        let mut file = tempfile::tempfile().unwrap();
        let map = Map::new(&file, 1 << 20).unwrap();
        file.write_all(b"first").unwrap();
        assert_eq!(map.slice(0, 5), "first");
        file.write_all(&[7; 5000]).unwrap();
        assert_eq!(map.slice(5, 5000), vec![7; 5000]);
        assert_eq!(map.slice(0, 5), "first");
    }

    #[test]
    fn a_slice_outlives_map_and_file() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"bytes").unwrap();
        let slice = Map::new(&file, 5).unwrap().slice(1, 3);
        drop(file);
        assert_eq!(slice, "yte");
    }

    #[test]
    fn written_pages_are_resident() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![1; 100_000]).unwrap();
        let map = Map::new(&file, 100_000).unwrap();
        map.populate(10, 90_000).unwrap();
        assert!(map.is_resident(10, 90_000));
        assert!(map.slice(0, 0).is_empty());
    }

    #[test]
    #[should_panic(expected = "inside its map")]
    fn a_slice_outside_the_map_is_our_own_bug() {
        let file = tempfile::tempfile().unwrap();
        Map::new(&file, 10).unwrap().slice(5, u64::MAX);
    }
}

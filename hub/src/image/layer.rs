//! One layer: a real gzip-compressed tar that clients can unpack.
//!
//! The bulk is one file of pseudo-random bytes, stored rather than deflated: it would not shrink
//! anyway, and a simulator should not spend its tests' time compressing.

use std::io::{self, Write as _};

use bytes::Bytes;
use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

use crate::digest::sha256;
use crate::random::Random;

/// Tar headers, directories, padding and the gzip frame around the payload.
const FRAME_BYTES: usize = 5 * 512 + 1024 + 64;
/// A stored deflate block adds five bytes to each (at most) 64 KiB.
const BLOCK_BYTES: usize = 32 << 10;

/// A layer before it has a digest of its own: the caller picks the algorithm.
pub(super) struct Layer {
    /// sha256 of the uncompressed tar, as `rootfs.diff_ids` wants it.
    pub(super) diff_id: String,
    /// The compressed tar.
    pub(super) body: Bytes,
}

impl Layer {
    /// The `number`th layer, near `size` bytes once compressed.
    pub(super) fn build(number: usize, size: usize, seed: u64) -> Self {
        let frame = FRAME_BYTES + size / BLOCK_BYTES * 5;
        let payload = Random::new(seed).bytes(size.saturating_sub(frame).max(16));
        let tar = archive(number, &payload).expect("a tar written to memory does not fail");
        let body = compress(&tar).expect("gzip written to memory does not fail");
        Self { diff_id: sha256(&tar), body }
    }
}

fn archive(number: usize, payload: &[u8]) -> io::Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::with_capacity(payload.len() + FRAME_BYTES));
    directory(&mut tar, "opt/")?;
    let release = format!("NAME=\"hub simulator\"\nLAYER={number}\n");
    file(&mut tar, &format!("opt/layer-{number}.txt"), release.as_bytes())?;
    file(&mut tar, &format!("opt/layer-{number}.bin"), payload)?;
    tar.into_inner()
}

fn directory(tar: &mut Builder<Vec<u8>>, path: &str) -> io::Result<()> {
    let mut header = header(EntryType::Directory, 0o755, 0);
    tar.append_data(&mut header, path, io::empty())
}

fn file(tar: &mut Builder<Vec<u8>>, path: &str, content: &[u8]) -> io::Result<()> {
    let mut header = header(EntryType::Regular, 0o644, content.len() as u64);
    tar.append_data(&mut header, path, content)
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    // Owner root and time zero: the same spec gives the same digest on every machine.
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn compress(tar: &[u8]) -> io::Result<Bytes> {
    let sink = Vec::with_capacity(tar.len() + tar.len() / 1000 + 64);
    let mut gzip = GzBuilder::new().mtime(0).write(sink, Compression::none());
    gzip.write_all(tar)?;
    Ok(gzip.finish()?.into())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn unpacks_to_the_tar_that_the_diff_id_names() {
        let layer = Layer::build(1, 256 << 10, 7);
        let mut tar = Vec::new();
        flate2::read::GzDecoder::new(&*layer.body).read_to_end(&mut tar).unwrap();
        assert_eq!(sha256(&tar), layer.diff_id);
        let mut archive = tar::Archive::new(&*tar);
        let names: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(names, ["opt/", "opt/layer-1.txt", "opt/layer-1.bin"]);
    }

    #[test]
    fn weighs_what_was_asked_for() {
        for size in [4 << 10, 64 << 10, 1 << 20] {
            let off = Layer::build(0, size, 1).body.len().abs_diff(size);
            assert!(off <= 2048, "{size}: off by {off}");
        }
    }

    #[test]
    fn is_the_same_for_the_same_seed_and_no_other() {
        let body = |seed| Layer::build(0, 8 << 10, seed).body;
        assert_eq!(body(1), body(1));
        assert_ne!(body(1), body(2));
    }
}

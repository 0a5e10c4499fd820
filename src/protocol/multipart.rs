//! `multipart/byteranges` bodies (RFC 9110 §15.3.7.2), as the bytes that stand around the parts.
//!
//! Its length is known before the first byte is sent, so that a reader sees a cut. The bytes of the
//! parts themselves, and choosing a boundary that does not occur in them, are left to the caller.

use bytes::Bytes;

use super::range::{ByteRange, content_range};

/// The frame of one multipart answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Multipart {
    boundary: String,
    /// The representation's own type, repeated in every part.
    part_type: String,
    /// The size of the complete representation in bytes.
    size: u64,
}

/// RFC 2046 §5.1.1: a boundary has 1 to 70 characters.
const MAX_BOUNDARY_CHARS: usize = 70;

// === impl Multipart ===

impl Multipart {
    /// A frame around parts of a representation of `size` bytes whose type is `part_type`.
    ///
    /// `boundary` should be long and unguessable. Of it, only ASCII letters and digits are used,
    /// and no more than 70, so that it needs no quotes; of `part_type`, only what may stand in a
    /// header.
    pub fn new(boundary: &str, part_type: &str, size: u64) -> Self {
        let usable = boundary.chars().filter(char::is_ascii_alphanumeric);
        let mut boundary: String = usable.take(MAX_BOUNDARY_CHARS).collect();
        if boundary.is_empty() {
            boundary.push_str("roadstead");
        }
        let part_type = part_type.chars().filter(|c| matches!(c, ' '..='~')).collect();
        Self { boundary, part_type, size }
    }

    /// The `Content-Type` of the whole answer.
    pub fn content_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    /// What stands before the bytes of `range`. The blank line that opens it ends the part before;
    /// in front of the first it is an empty preamble, which RFC 2046 §5.1.1 lets readers ignore.
    pub fn part_head(&self, range: ByteRange) -> Bytes {
        let Self { boundary, part_type, size } = self;
        let range = content_range(range, *size);
        format!("\r\n--{boundary}\r\nContent-Type: {part_type}\r\nContent-Range: {range}\r\n\r\n")
            .into()
    }

    /// What stands after the last part.
    pub fn tail(&self) -> Bytes {
        format!("\r\n--{}--\r\n", self.boundary).into()
    }

    /// The `Content-Length` of the whole answer with these parts.
    pub fn content_length(&self, ranges: &[ByteRange]) -> u64 {
        let part =
            |range: &ByteRange| byte_count(&self.part_head(*range)).saturating_add(range.len());
        ranges.iter().map(part).fold(byte_count(&self.tail()), u64::saturating_add)
    }
}

fn byte_count(bytes: &Bytes) -> u64 {
    bytes.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A body as a server would send it.
    fn assemble(frame: &Multipart, ranges: &[ByteRange], content: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        for &range in ranges {
            body.extend_from_slice(&frame.part_head(range));
            let part = content.get(range.start as usize..range.end as usize);
            body.extend_from_slice(part.expect("inside the content"));
        }
        body.extend_from_slice(&frame.tail());
        body
    }

    #[test]
    fn the_frame_is_the_rfcs() {
        let frame = Multipart::new("THIS_STRING", "text/plain", 4);
        let body = assemble(&frame, &[ByteRange::new(0, 1), ByteRange::new(2, 4)], b"abcd");
        assert_eq!(frame.content_type(), "multipart/byteranges; boundary=THISSTRING");
        assert_eq!(
            String::from_utf8_lossy(&body),
            "\r\n--THISSTRING\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-0/4\r\n\r\na\
             \r\n--THISSTRING\r\nContent-Type: text/plain\r\nContent-Range: bytes 2-3/4\r\n\r\ncd\
             \r\n--THISSTRING--\r\n"
        );
    }

    #[test]
    fn nothing_given_can_break_the_frame() {
        let frame = Multipart::new("\r\n\"", "a/b\r\nX: y", 1);
        assert_eq!(frame.content_type(), "multipart/byteranges; boundary=roadstead");
        assert!(
            frame
                .part_head(ByteRange::new(0, 1))
                .starts_with(b"\r\n--roadstead\r\nContent-Type: a/bX: y\r\n")
        );
        let long = Multipart::new(&"f".repeat(128), "a/b", 1);
        assert!(long.content_type().ends_with(&format!("={}", "f".repeat(70))));
    }

    proptest! {
        #[test]
        fn the_length_is_that_of_the_body(
            content in proptest::collection::vec(any::<u8>(), 1..200),
            cuts in proptest::collection::vec((0_u64..200, 1_u64..200), 0..5),
        ) {
            let size = content.len() as u64;
            let ranges: Vec<_> = cuts
                .into_iter()
                .filter(|(start, _)| *start < size)
                .map(|(start, len)| ByteRange::new(start, (start + len).min(size)))
                .collect();
            let frame = Multipart::new("b0undary", "application/octet-stream", size);
            let body = assemble(&frame, &ranges, &content);
            prop_assert_eq!(frame.content_length(&ranges), body.len() as u64);
        }
    }
}

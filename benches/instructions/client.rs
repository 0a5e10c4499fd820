//! The client: HTTP/1.1 on one connection, one request after the other, each answer checked.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::kinds::Kind;

/// A server that takes longer, even under valgrind, hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bodies are read in pieces of this.
const BUFFER_BYTES: usize = 1 << 20;

pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer, read to its end.
pub(crate) struct Answer {
    /// It came from the cache.
    pub(crate) is_hit: bool,
}

struct Head {
    length: u64,
    is_hit: bool,
}

// === impl Client ===

impl Client {
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).context("connecting to the server")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, buffer: vec![0; BUFFER_BYTES] })
    }

    /// Sends a request of `kind` and reads the answer; anything but a whole 200 is an error.
    pub(crate) fn ask(&mut self, kind: &Kind) -> Result<Answer> {
        self.exchange(kind).with_context(|| format!("asking for {}", kind.name))
    }

    fn exchange(&mut self, kind: &Kind) -> Result<Answer> {
        self.stream.write_all(&kind.request())?;
        let (head, mut received) = self.head()?;
        let length = if kind.has_body { head.length } else { 0 };
        ensure!(head.length == kind.size_bytes, "{} bytes, not {}", head.length, kind.size_bytes);
        while received < length {
            received += self.read(0)? as u64;
        }
        ensure!(received == length, "{received} bytes of a body of {length}");
        Ok(Answer { is_hit: head.is_hit })
    }

    /// The head, and how much of the body came along with it.
    fn head(&mut self) -> Result<(Head, u64)> {
        let mut filled = 0;
        loop {
            filled += self.read(filled)?;
            let seen = self.buffer.get(..filled).unwrap_or_default();
            let end = seen.windows(4).position(|window| window == b"\r\n\r\n");
            if let Some(end) = end {
                let text = std::str::from_utf8(seen.get(..end).unwrap_or_default())?;
                return Ok((Head::parse(text)?, (filled - end - 4) as u64));
            }
        }
    }

    fn read(&mut self, from: usize) -> Result<usize> {
        let free = self.buffer.get_mut(from..).filter(|free| !free.is_empty());
        let count = self.stream.read(free.context("a head too long")?)?;
        ensure!(count > 0, "the connection was cut");
        Ok(count)
    }
}

// === impl Head ===

impl Head {
    fn parse(text: &str) -> Result<Self> {
        ensure!(text.starts_with("HTTP/1.1 200 "), "{text}");
        let value = |wanted: &str| {
            let fields = text.lines().filter_map(|line| line.split_once(':'));
            let mut fields = fields.filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
            fields.next().map(|(_, value)| value.trim())
        };
        let length = value("content-length").and_then(|length| length.parse().ok());
        let is_hit = value("cache-status").is_some_and(|status| status.contains("; hit"));
        Ok(Self { length: length.context("no Content-Length")?, is_hit })
    }
}

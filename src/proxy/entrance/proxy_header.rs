//! The PROXY protocol, versions 1 and 2: a balancer's word on whom it speaks for.
//!
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>. The header comes first on a
//! connection, before TLS; what comes after it is left on the socket.

use std::net::SocketAddr;

use pingora::protocols::l4::stream::Stream as Socket;
use ppp::{PartialResult as _, v1, v2};
use tokio::io::AsyncReadExt;

use super::Away;

/// The longest header of version 1, its line end included (§2.1).
const LONGEST_V1: usize = 107;

/// The longest rest of version 2 that is read: room for addresses and every extension in use.
const LONGEST_V2: usize = 4096;

/// Of version 2, up to and with its length field (§2.2).
const START_V2: usize = 16;

/// What a header says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// The connection is this client's.
    Client(SocketAddr),
    /// It is the balancer's own (a health check), or from nowhere that has an address.
    Itself,
}

/// Takes the header from a connection on which nothing has been read yet.
pub(super) async fn read(socket: &mut Socket) -> Result<Said, Away> {
    let mut bytes = Vec::new();
    let mut piece = [0; 512];
    loop {
        let read = socket.read(&mut piece).await?;
        if read == 0 {
            return Err(match bytes.is_empty() {
                true => Away::Silent,
                false => Away::ProxyHeader("it is cut short"),
            });
        }
        bytes.extend_from_slice(piece.get(..read).unwrap_or_default());
        if let Some((said, length)) = parse(&bytes).map_err(Away::ProxyHeader)? {
            socket.rewind(bytes.get(length..).unwrap_or_default());
            return Ok(said);
        }
    }
}

/// What the header at the start of `bytes` says, and its length; `None` if it goes on.
fn parse(bytes: &[u8]) -> Result<Option<(Said, usize)>, &'static str> {
    if begins(bytes, v2::PROTOCOL_PREFIX) {
        parse_v2(bytes)
    } else if begins(bytes, b"PROXY ") {
        parse_v1(bytes)
    } else {
        Err("it is none")
    }
}

/// Whether `bytes` begin with `prefix`, as far as they go.
fn begins(bytes: &[u8], prefix: &[u8]) -> bool {
    bytes.iter().zip(prefix).all(|(one, other)| one == other)
}

fn parse_v1(bytes: &[u8]) -> Result<Option<(Said, usize)>, &'static str> {
    let start = bytes.get(..LONGEST_V1).unwrap_or(bytes);
    let Some(end) = start.windows(2).position(|pair| pair == b"\r\n") else {
        return match bytes.len() < LONGEST_V1 {
            true => Ok(None),
            false => Err("its line is too long"),
        };
    };
    let length = end + 2;
    let line = bytes.get(..length).unwrap_or_default();
    let header = v1::Header::try_from(line).map_err(|_| "its line can't be read")?;
    let said = match header.addresses {
        v1::Addresses::Tcp4(ip) => Said::Client((ip.source_address, ip.source_port).into()),
        v1::Addresses::Tcp6(ip) => Said::Client((ip.source_address, ip.source_port).into()),
        v1::Addresses::Unknown => Said::Itself,
    };
    Ok(Some((said, length)))
}

fn parse_v2(bytes: &[u8]) -> Result<Option<(Said, usize)>, &'static str> {
    if let Some([high, low]) = bytes.get(START_V2 - 2..START_V2)
        && usize::from(u16::from_be_bytes([*high, *low])) > LONGEST_V2
    {
        return Err("it is too long");
    }
    let parsed = v2::Header::try_from(bytes);
    if parsed.is_incomplete() {
        return Ok(None);
    }
    let header = parsed.map_err(|_| "its fields can't be read")?;
    let said = match (header.command, header.protocol, header.addresses) {
        (v2::Command::Proxy, v2::Protocol::Stream, v2::Addresses::IPv4(ip)) => {
            Said::Client((ip.source_address, ip.source_port).into())
        }
        (v2::Command::Proxy, v2::Protocol::Stream, v2::Addresses::IPv6(ip)) => {
            Said::Client((ip.source_address, ip.source_port).into())
        }
        _ => Said::Itself,
    };
    Ok(Some((said, header.len())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(text: &str) -> Said {
        Said::Client(text.parse().unwrap())
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = v2::PROTOCOL_PREFIX.to_vec();
        bytes.extend([0x20 | command, family]);
        bytes.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    const IPV4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x30, 0x39, 0x01, 0xbb];

    fn good() -> Vec<(Vec<u8>, Said)> {
        let mut ipv6 = [0; 36];
        ipv6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        ipv6[15] = 9;
        ipv6[33] = 80;
        let mut with_extensions = IPV4.to_vec();
        with_extensions.extend([0x05, 0, 3, 1, 2, 3]);
        vec![
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 443\r\n".to_vec(), client("192.0.2.7:12345")),
            (b"PROXY TCP6 2001:db8::9 ::1 80 443\r\n".to_vec(), client("[2001:db8::9]:80")),
            (b"PROXY UNKNOWN\r\n".to_vec(), Said::Itself),
            (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n".to_vec(), Said::Itself),
            (v2(1, 0x11, &IPV4), client("192.0.2.7:12345")),
            (v2(1, 0x11, &with_extensions), client("192.0.2.7:12345")),
            (v2(1, 0x21, &ipv6), client("[2001:db8::9]:80")),
            (v2(0, 0x11, &IPV4), Said::Itself),
            (v2(0, 0x00, &[]), Said::Itself),
            (v2(1, 0x00, &[]), Said::Itself),
            (v2(1, 0x12, &IPV4), Said::Itself),
            (v2(1, 0x31, &[0; 216]), Said::Itself),
        ]
    }

    #[test]
    fn a_header_is_read_and_what_follows_is_left() {
        for (header, said) in good() {
            for rest in [b"".as_slice(), b"GET / HTTP/1.1\r\n\r\n", b"\r\n"] {
                let bytes = [&header, rest].concat();
                let (found, length) = parse(&bytes).unwrap().unwrap();
                assert_eq!((found, length), (parse(&header).unwrap().unwrap().0, header.len()));
            }
            assert_eq!(parse(&header).unwrap().unwrap().0, said);
        }
    }

    #[test]
    fn a_header_that_comes_in_pieces_is_waited_for() {
        for (header, _) in good() {
            for length in 0..header.len() {
                assert_eq!(parse(&header[..length]), Ok(None), "{length} of {header:?}");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused_at_once() {
        for bytes in [
            b"GET /v2/ HTTP/1.1\r\n".as_slice(),
            b"\x16\x03\x01\x02\x00",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 12345\r\n",
            b"PROXY TCP4 2001:db8::9 ::1 80 443\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 123456 443\r\n",
            b"PROXY UDP4 192.0.2.7 10.0.0.1 1 2\r\n",
            b"PROXY \r\n",
            b"proxy unknown\r\n",
            b"\r\n\r\nX",
            &[b"PROXY UNKNOWN ".as_slice(), &[b'x'; 93]].concat(),
            &v2(2, 0x11, &IPV4),
            &v2(1, 0x11, &IPV4[..11]),
            &v2(1, 0x41, &IPV4),
        ] {
            assert!(parse(bytes).is_err(), "{bytes:?}");
        }
        let mut long = v2(1, 0x11, &IPV4);
        long[14..16].copy_from_slice(&[0x10, 0x01]);
        assert_eq!(parse(&long), Err("it is too long"));
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(mut bytes: Vec<u8>, prefix in 0..3_usize) {
            let prefixes: [&[u8]; 3] = [b"", b"PROXY TCP4 ", v2::PROTOCOL_PREFIX];
            bytes.splice(0..0, prefixes[prefix].iter().copied());
            if let Ok(Some((_, length))) = parse(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }
    }
}

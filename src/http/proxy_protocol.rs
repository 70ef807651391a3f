//! The preface of the PROXY protocol, versions 1 and 2, in which a load balancer in front tells whom it speaks for.
//! Owns: the wire format. Never: decides who is believed. Always: what is no preface is known by its first wrong byte, and
//! the result does not depend on where reads are cut.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

use crate::limits;

/// What a preface says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preface {
    /// The client on whose behalf the connection was made.
    Client(SocketAddr),
    /// The connection speaks for itself (a health check), or for somebody without an address of the internet.
    Own,
}

/// How far reading has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrefaceProgress {
    NeedMore,
    /// All of it was read; it takes so many bytes.
    Complete(Preface, usize),
}

/// The bytes are no preface, or one that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadPreface;

const V1_START: &[u8] = b"PROXY ";
/// Longest line of version 1, with its CRLF: as its text says.
const V1_BYTES_MAX: usize = 107;
const V2_START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, and the length of the rest.
const V2_FIXED_BYTES: usize = 16;

const _: () = assert!(limits::PROXY_PREFACE_BYTES_MAX > V1_BYTES_MAX && limits::PROXY_PREFACE_BYTES_MAX > 1024);

/// Reads the preface at the front of `bytes`.
///
/// # Errors
/// No further byte can make a preface of it.
pub fn parse_preface(bytes: &[u8]) -> Result<PrefaceProgress, BadPreface> {
    match bytes.first() {
        None => Ok(PrefaceProgress::NeedMore),
        Some(b'P') => parse_v1(bytes),
        Some(_) => parse_v2(bytes),
    }
}

/// Whether `bytes` begins with `start`; `None` as long as it may.
fn begins_with(bytes: &[u8], start: &[u8]) -> Result<Option<()>, BadPreface> {
    let shared = bytes.len().min(start.len());
    match bytes[..shared] == start[..shared] {
        false => Err(BadPreface),
        true => Ok((shared == start.len()).then_some(())),
    }
}

/// `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n`
fn parse_v1(bytes: &[u8]) -> Result<PrefaceProgress, BadPreface> {
    if begins_with(bytes, V1_START)?.is_none() {
        return Ok(PrefaceProgress::NeedMore);
    }
    let window = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() < V1_BYTES_MAX { Ok(PrefaceProgress::NeedMore) } else { Err(BadPreface) };
    };
    let line = window[..end].strip_suffix(b"\r").ok_or(BadPreface)?;
    let line = std::str::from_utf8(&line[V1_START.len()..]).map_err(|_| BadPreface)?;
    let mut words = line.split(' ');
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        // What else stands in the line is to be ignored.
        return Ok(PrefaceProgress::Complete(Preface::Own, end + 1));
    }
    let (Some(source), Some(target), Some(source_port), Some(target_port), None) =
        (words.next(), words.next(), words.next(), words.next(), words.next())
    else {
        return Err(BadPreface);
    };
    let (source, target) = (address(family, source)?, address(family, target)?);
    let (source_port, _) = (port(source_port)?, port(target_port)?);
    let _ = target;
    Ok(PrefaceProgress::Complete(Preface::Client(SocketAddr::new(source, source_port)), end + 1))
}

fn address(family: &str, text: &str) -> Result<IpAddr, BadPreface> {
    match family {
        "TCP4" => text.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| BadPreface),
        "TCP6" => text.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| BadPreface),
        _ => Err(BadPreface),
    }
}

fn port(text: &str) -> Result<u16, BadPreface> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_short = text == "0" || !text.starts_with('0');
    if is_plain && is_short { text.parse().map_err(|_| BadPreface) } else { Err(BadPreface) }
}

fn parse_v2(bytes: &[u8]) -> Result<PrefaceProgress, BadPreface> {
    if begins_with(bytes, V2_START)?.is_none() {
        return Ok(PrefaceProgress::NeedMore);
    }
    let Some(&[command, family, high, low]) = bytes.get(V2_START.len()..V2_FIXED_BYTES) else {
        return Ok(PrefaceProgress::NeedMore);
    };
    let rest_len = usize::from(u16::from_be_bytes([high, low]));
    let len = V2_FIXED_BYTES + rest_len;
    // Octets of one address; behind both come two ports, and behind these the TLVs.
    let (is_own, address_len) = match (command, family) {
        (0x20, _) => (true, 0),
        // Unspecified, or sockets of the unix family.
        (0x21, 0x00) => (true, 0),
        (0x21, 0x31) => (true, 108),
        (0x21, 0x11) => (false, 4),
        (0x21, 0x21) => (false, 16),
        _ => return Err(BadPreface),
    };
    let ports_len = if is_own { 0 } else { 4 };
    if len > limits::PROXY_PREFACE_BYTES_MAX || rest_len < 2 * address_len + ports_len {
        return Err(BadPreface);
    }
    let Some(rest) = bytes.get(V2_FIXED_BYTES..len) else {
        return Ok(PrefaceProgress::NeedMore);
    };
    if is_own {
        return Ok(PrefaceProgress::Complete(Preface::Own, len));
    }
    let ip = match address_len {
        4 => <[u8; 4]>::try_from(&rest[..4]).map(IpAddr::from),
        _ => <[u8; 16]>::try_from(&rest[..16]).map(IpAddr::from),
    };
    let source_port = u16::from_be_bytes([rest[2 * address_len], rest[2 * address_len + 1]]);
    let client = SocketAddr::new(ip.map_err(|_| BadPreface)?, source_port);
    Ok(PrefaceProgress::Complete(Preface::Client(client), len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = V2_START.to_vec();
        bytes.extend([command, family]);
        bytes.extend((rest.len() as u16).to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    /// Source 10.1.2.3:56324, target 10.0.0.1:443, and what follows.
    fn tcp4(behind: &[u8]) -> Vec<u8> {
        [&[10, 1, 2, 3, 10, 0, 0, 1, 0xdc, 0x04, 0x01, 0xbb][..], behind].concat()
    }

    fn tcp6() -> Vec<u8> {
        let source = "2001:db8::7".parse::<Ipv6Addr>().unwrap().octets();
        [&source[..], &[0; 16], &[0x00, 0x50, 0x01, 0xbb]].concat()
    }

    fn good() -> Vec<(Vec<u8>, Preface)> {
        let client = |text: &str| Preface::Client(text.parse().unwrap());
        let longest = format!("PROXY UNKNOWN {}\r\n", "f".repeat(107 - 16));
        vec![
            (b"PROXY TCP4 10.1.2.3 10.0.0.1 56324 443\r\n".to_vec(), client("10.1.2.3:56324")),
            (b"PROXY TCP6 2001:db8::7 ::1 80 0\r\n".to_vec(), client("[2001:db8::7]:80")),
            (b"PROXY UNKNOWN\r\n".to_vec(), Preface::Own),
            (longest.into_bytes(), Preface::Own),
            (v2(0x21, 0x11, &tcp4(b"")), client("10.1.2.3:56324")),
            (v2(0x21, 0x11, &tcp4(&[0x04, 0, 1, 0xff, 0x20])), client("10.1.2.3:56324")),
            (v2(0x21, 0x21, &tcp6()), client("[2001:db8::7]:80")),
            (v2(0x20, 0x00, b""), Preface::Own),
            (v2(0x20, 0x11, &tcp4(b"x")), Preface::Own),
            (v2(0x21, 0x00, b"anything"), Preface::Own),
            (v2(0x21, 0x31, &[0; 216]), Preface::Own),
        ]
    }

    #[test]
    fn a_preface_names_the_client_and_its_own_length() {
        for (bytes, want) in good() {
            let len = bytes.len();
            for behind in [&b""[..], b"GET / HTTP/1.1\r\n", b"\r\n"] {
                let whole = [&bytes[..], behind].concat();
                assert_eq!(parse_preface(&whole), Ok(PrefaceProgress::Complete(want, len)), "{}", whole.escape_ascii());
            }
        }
    }

    #[test]
    fn a_part_of_a_preface_waits_for_the_rest_wherever_it_is_cut() {
        for (bytes, _) in good() {
            for cut in 0..bytes.len() {
                assert_eq!(
                    parse_preface(&bytes[..cut]),
                    Ok(PrefaceProgress::NeedMore),
                    "{cut}: {}",
                    bytes.escape_ascii()
                );
            }
        }
    }

    #[test]
    fn what_is_no_preface_is_refused() {
        for bytes in [
            b"GET / HTTP/1.1\r\n".to_vec(),
            b"PROXX".to_vec(),
            b"PROXY TCP4 10.1.2.3 10.0.0.1 1 2\n".to_vec(),
            b"PROXY TCP4 10.1.2.3 10.0.0.1 1\r\n".to_vec(),
            b"PROXY TCP4 10.1.2.3 10.0.0.1 1 2 3\r\n".to_vec(),
            b"PROXY TCP4  10.1.2.3 10.0.0.1 1 2\r\n".to_vec(),
            b"PROXY TCP4 10.1.2.3 10.0.0.1 01 2\r\n".to_vec(),
            b"PROXY TCP4 10.1.2.3 10.0.0.1 +1 2\r\n".to_vec(),
            b"PROXY TCP4 10.1.2.3 10.0.0.1 65536 2\r\n".to_vec(),
            b"PROXY TCP4 ::1 10.0.0.1 1 2\r\n".to_vec(),
            b"PROXY TCP4 10.1.2.3 ::1 1 2\r\n".to_vec(),
            b"PROXY TCP6 10.1.2.3 10.0.0.1 1 2\r\n".to_vec(),
            b"PROXY UDP4 10.1.2.3 10.0.0.1 1 2\r\n".to_vec(),
            b"PROXY tcp4 10.1.2.3 10.0.0.1 1 2\r\n".to_vec(),
            b"PROXY \r\n".to_vec(),
            format!("PROXY UNKNOWN {}", "f".repeat(107 - 14)).into_bytes(),
            b"\r\n\r\nX".to_vec(),
            b"\0".to_vec(),
            v2(0x22, 0x11, &tcp4(b"")),
            v2(0x11, 0x11, &tcp4(b"")),
            v2(0x21, 0x12, &tcp4(b"")),
            v2(0x21, 0x41, &tcp4(b"")),
            v2(0x21, 0x11, &tcp4(b"")[..11]),
            v2(0x21, 0x21, &tcp4(b"")),
            v2(0x21, 0x31, &[0; 215]),
            v2(0x21, 0x11, &tcp4(&vec![0; limits::PROXY_PREFACE_BYTES_MAX])),
        ] {
            assert_eq!(parse_preface(&bytes), Err(BadPreface), "{}", bytes.escape_ascii());
        }
    }
}

//! HOT: appends to a batch; formatting happens off-core.
//! One finished request, as it crosses to the control plane for the access log.
//! Always: what was encoded decodes to the same values; a long text is cut, never refused. Which texts a record carries is
//! agreed between the two sides: the log's format says it.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

use crate::metrics::full_record::Try;

/// Longest text kept of one field (request target, user agent, ...), in bytes.
pub const TEXT_BYTES_MAX: usize = 8 << 10;
/// Most tries on upstreams that a record tells of.
const TRIES_MAX: usize = 255;
/// A time that did not come.
const NEVER: u64 = u64::MAX;

/// The figures of a finished request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// When it finished, in milliseconds since 1970.
    pub unix_ms: u64,
    /// From the first byte of the request to the last one of the answer.
    pub total_us: u64,
    /// Head and body of the request.
    pub request_bytes: u64,
    /// All that was written to the client.
    pub bytes_sent: u64,
    /// Body bytes sent to the client.
    pub body_bytes_sent: u64,
    /// Number of the connection on its core, and of the request on it.
    pub connection: u64,
    pub connection_requests: u64,
    /// The other end of the connection; without a port, and unspecified, over a unix socket.
    pub peer: SocketAddr,
    /// Our end of it, with its port as clients see it.
    pub local: SocketAddr,
    /// After replacement by a trusted peer's header.
    pub client_ip: IpAddr,
    pub request_id: [u8; 32],
    /// Status sent to the client; 499 when it went away before.
    pub status: u16,
    /// Whether the answer was sent whole.
    pub complete: bool,
}

const FIGURES_BYTES: usize = 7 * 8 + 2 * 18 + 16 + 32 + 2 + 1;

impl Figures {
    /// Appends a record's beginning; its texts follow in the agreed order, each by [`push_text`], then [`push_tries`].
    #[inline]
    pub fn encode(&self, batch: &mut Vec<u8>) {
        let mut bytes = [0u8; FIGURES_BYTES];
        let mut rest = &mut bytes[..];
        let mut put = |piece: &[u8]| {
            let (here, behind) = std::mem::take(&mut rest).split_at_mut(piece.len());
            here.copy_from_slice(piece);
            rest = behind;
        };
        put(&self.unix_ms.to_le_bytes());
        put(&self.total_us.to_le_bytes());
        put(&self.request_bytes.to_le_bytes());
        put(&self.bytes_sent.to_le_bytes());
        put(&self.body_bytes_sent.to_le_bytes());
        put(&self.connection.to_le_bytes());
        put(&self.connection_requests.to_le_bytes());
        for addr in [self.peer, self.local] {
            put(&octets(addr.ip()));
            put(&addr.port().to_le_bytes());
        }
        put(&octets(self.client_ip));
        put(&self.request_id);
        put(&self.status.to_le_bytes());
        put(&[u8::from(self.complete)]);
        batch.extend_from_slice(&bytes);
    }

    fn decode(batch: &mut &[u8]) -> Option<Self> {
        Some(Self {
            unix_ms: number(batch)?,
            total_us: number(batch)?,
            request_bytes: number(batch)?,
            bytes_sent: number(batch)?,
            body_bytes_sent: number(batch)?,
            connection: number(batch)?,
            connection_requests: number(batch)?,
            peer: addr(batch)?,
            local: addr(batch)?,
            client_ip: ip(batch)?,
            request_id: take(batch, 32)?.try_into().ok()?,
            status: short(batch)?,
            complete: take(batch, 1)?[0] != 0,
        })
    }
}

/// Appends the next text of a record; an absent one is empty.
#[inline]
pub fn push_text(text: &[u8], batch: &mut Vec<u8>) {
    let text = &text[..text.len().min(TEXT_BYTES_MAX)];
    batch.extend_from_slice(&(text.len() as u16).to_le_bytes());
    batch.extend_from_slice(text);
}

/// Appends the next text of a record: several values of a field, with `, ` between.
pub fn push_joined<'a>(values: impl Iterator<Item = &'a [u8]>, batch: &mut Vec<u8>) {
    let at = batch.len();
    batch.extend_from_slice(&[0; 2]);
    for value in values {
        if batch.len() > at + 2 {
            batch.extend_from_slice(b", ");
        }
        batch.extend_from_slice(value);
        if batch.len() - at - 2 >= TEXT_BYTES_MAX {
            batch.truncate(at + 2 + TEXT_BYTES_MAX);
            break;
        }
    }
    let len = (batch.len() - at - 2) as u16;
    batch[at..at + 2].copy_from_slice(&len.to_le_bytes());
}

/// Appends the tries on upstreams, the end of a record.
#[inline]
pub fn push_tries(tries: &[Try], batch: &mut Vec<u8>) {
    let tries = &tries[..tries.len().min(TRIES_MAX)];
    batch.push(tries.len() as u8);
    for t in tries {
        batch.extend_from_slice(&octets(t.addr.ip()));
        batch.extend_from_slice(&t.addr.port().to_le_bytes());
        for number in [t.connect_us.unwrap_or(NEVER), if t.failed { NEVER } else { t.took_us }, t.whole_us] {
            batch.extend_from_slice(&number.to_le_bytes());
        }
        batch.extend_from_slice(&t.status.to_le_bytes());
    }
}

/// One try on an upstream, as the access log tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoggedTry {
    pub addr: SocketAddr,
    /// Until the connection stood; 0 for one that stood before.
    pub connect_us: Option<u64>,
    /// Until the head of the answer was there.
    pub header_us: Option<u64>,
    /// Until the last byte of the answer, or its failure.
    pub response_us: u64,
    /// Status of the answer, or 502 or 504 for a failed try.
    pub status: u16,
}

/// A decoded record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<'a> {
    pub figures: Figures,
    /// In the agreed order; empty: absent.
    pub texts: Vec<&'a [u8]>,
    pub tries: Vec<LoggedTry>,
}

impl<'a> Record<'a> {
    /// Takes the next record with so many texts off a batch; `None` at its end (or at bytes that no encoder wrote).
    pub fn decode(batch: &mut &'a [u8], texts: usize) -> Option<Self> {
        let figures = Figures::decode(batch)?;
        let text = |batch: &mut &'a [u8]| {
            let len = short(batch)?;
            take(batch, usize::from(len))
        };
        let texts = (0..texts).map(|_| text(batch)).collect::<Option<_>>()?;
        let count = take(batch, 1)?[0];
        let tries = (0..count).map(|_| a_try(batch)).collect::<Option<_>>()?;
        Some(Self { figures, texts, tries })
    }
}

fn a_try(batch: &mut &[u8]) -> Option<LoggedTry> {
    let time = |batch: &mut &[u8]| number(batch).map(|us| (us != NEVER).then_some(us));
    Some(LoggedTry {
        addr: addr(batch)?,
        connect_us: time(batch)?,
        header_us: time(batch)?,
        response_us: number(batch)?,
        status: short(batch)?,
    })
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// IPv4 addresses travel as mapped ones; a peer that has a mapped one is an IPv4 peer.
fn ip(batch: &mut &[u8]) -> Option<IpAddr> {
    let ip = Ipv6Addr::from(<[u8; 16]>::try_from(take(batch, 16)?).ok()?);
    Some(ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), |ip: Ipv4Addr| IpAddr::V4(ip)))
}

fn addr(batch: &mut &[u8]) -> Option<SocketAddr> {
    Some(SocketAddr::new(ip(batch)?, short(batch)?))
}

fn number(batch: &mut &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(take(batch, 8)?.try_into().ok()?))
}

fn short(batch: &mut &[u8]) -> Option<u16> {
    Some(u16::from_le_bytes(take(batch, 2)?.try_into().ok()?))
}

fn take<'a>(batch: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, rest) = batch.split_at_checked(count)?;
    *batch = rest;
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(client: &str) -> Figures {
        Figures {
            unix_ms: 1_735_689_600_123,
            total_us: 12_345,
            request_bytes: 1,
            bytes_sent: 1 << 41,
            body_bytes_sent: 1 << 40,
            connection: 7,
            connection_requests: 3,
            peer: "127.0.0.1:5".parse().unwrap(),
            local: "[::1]:8000".parse().unwrap(),
            client_ip: client.parse().unwrap(),
            request_id: [b'a'; 32],
            status: 200,
            complete: true,
        }
    }

    fn a_try(failed: bool) -> Try {
        Try {
            addr: "10.0.0.1:80".parse().unwrap(),
            started_unix_us: 1,
            chosen_us: 2,
            connect_us: (!failed).then_some(3),
            took_us: 4,
            whole_us: 5,
            status: 502,
            failed,
        }
    }

    #[test]
    fn records_of_a_batch_decode_one_after_the_other() {
        let mut batch = Vec::new();
        let (first, second) = (figures("10.0.0.1"), figures("2001:db8::1"));
        first.encode(&mut batch);
        push_text(b"GET / HTTP/1.1", &mut batch);
        push_joined([&b"a"[..], b"b"].into_iter(), &mut batch);
        push_tries(&[a_try(true), a_try(false)], &mut batch);
        second.encode(&mut batch);
        push_text(b"", &mut batch);
        push_joined(std::iter::empty(), &mut batch);
        push_tries(&[], &mut batch);
        let mut rest = &batch[..];
        let logged = |connect_us, header_us| LoggedTry {
            addr: "10.0.0.1:80".parse().unwrap(),
            connect_us,
            header_us,
            response_us: 5,
            status: 502,
        };
        let texts: Vec<&[u8]> = vec![b"GET / HTTP/1.1", b"a, b"];
        let tries = vec![logged(None, None), logged(Some(3), Some(4))];
        assert_eq!(Record::decode(&mut rest, 2), Some(Record { figures: first, texts, tries }));
        let texts: Vec<&[u8]> = vec![b"", b""];
        assert_eq!(Record::decode(&mut rest, 2), Some(Record { figures: second, texts, tries: Vec::new() }));
        assert_eq!(Record::decode(&mut rest, 2), None);
    }

    #[test]
    fn long_texts_are_cut() {
        let long = vec![b'x'; TEXT_BYTES_MAX + 1];
        let mut batch = Vec::new();
        figures("10.0.0.1").encode(&mut batch);
        push_text(&long, &mut batch);
        push_joined([&long[..TEXT_BYTES_MAX - 1], b"yz"].into_iter(), &mut batch);
        push_tries(&vec![a_try(false); TRIES_MAX + 1], &mut batch);
        let record = Record::decode(&mut &batch[..], 2).unwrap();
        assert!(record.texts.iter().all(|text| text.len() == TEXT_BYTES_MAX) && record.tries.len() == TRIES_MAX);
    }

    #[test]
    fn garbage_is_no_record() {
        let mut batch = Vec::new();
        figures("10.0.0.1").encode(&mut batch);
        push_text(b"GET / HTTP/1.1", &mut batch);
        push_tries(&[], &mut batch);
        for len in 0..batch.len() {
            assert_eq!(Record::decode(&mut &batch[..len], 1), None);
        }
    }
}

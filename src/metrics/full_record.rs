//! HOT: appends to a batch; formatting happens off-core.
//! One finished request with all that logging and tracing plugins tell of it (spec/plugins.md F.2), as it crosses to the
//! control plane.
//! Always: what was encoded decodes to the same values; records of a batch are found by their lengths, so that one that
//! cannot be read costs only itself.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

use uuid::Uuid;

/// A time that did not come.
const NEVER: u64 = u64::MAX;

/// The figures and flags of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Wall time of the first byte of the request, in microseconds since 1970.
    pub started_unix_us: u64,
    /// From there to the last byte of the response.
    pub total_us: u64,
    /// From there to the hand-over to the last upstream tried.
    pub handed_over_us: Option<u64>,
    /// From there to the first byte of an upstream's answer.
    pub first_byte_us: Option<u64>,
    /// From there to the beginning of an answer of the gateway's own.
    pub replied_us: Option<u64>,
    /// Head and body of the request.
    pub request_bytes: u64,
    /// All that was written to the client.
    pub response_bytes: u64,
    /// Body bytes written to the client.
    pub body_bytes: u64,
    /// As sent; 499 when the client went away before.
    pub status: u16,
    /// Port of the listener as clients see it.
    pub port: u16,
    pub request_id: [u8; 32],
    pub client_ip: IpAddr,
    /// The other end of the connection.
    pub peer_ip: IpAddr,
    /// Whether the response is an upstream's.
    pub from_upstream: bool,
    /// Whether peers were looked for.
    pub balanced: bool,
    pub consumer: Option<Uuid>,
    pub credential: Option<Uuid>,
}

/// One try on one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Try {
    pub addr: SocketAddr,
    /// When the peer was chosen, in microseconds since 1970.
    pub started_unix_us: u64,
    /// How long the choice took.
    pub chosen_us: u64,
    /// Until its connection stood; 0 for one that stood before, `None` if none came about.
    pub connect_us: Option<u64>,
    /// How long the try took, up to the head of the answer or to its failure.
    pub took_us: u64,
    /// How long it took up to the last byte of the answer.
    pub whole_us: u64,
    /// Status of the answer, or 502 or 504 for a failed try.
    pub status: u16,
    pub failed: bool,
}

/// How long a step of the gateway's own took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    pub step: Step,
    /// From the first byte of the request.
    pub begun_us: u64,
    pub took_us: u64,
}

/// A step that is timed when a plugin wants to know. Plugins stand as their places in the table of plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The search for a route.
    Router,
    /// The phase of one plugin.
    Access(u16),
    ResponseHead(u16),
}

impl Step {
    fn code(self) -> (u8, u16) {
        match self {
            Self::Router => (0, 0),
            Self::Access(kind) => (1, kind),
            Self::ResponseHead(kind) => (2, kind),
        }
    }

    fn of(code: u8, kind: u16) -> Option<Self> {
        Some(match code {
            0 => Self::Router,
            1 => Self::Access(kind),
            2 => Self::ResponseHead(kind),
            _ => return None,
        })
    }
}

/// What a plugin configuration wants to have shipped, and its notes of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shipment<'a> {
    pub plugin: Uuid,
    pub numbers: [u64; 4],
    pub bytes: &'a [u8],
}

/// A decoded record. Texts are raw bytes; an absent one is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullRecord<'a> {
    pub figures: Figures,
    pub method: &'a [u8],
    pub scheme: &'a [u8],
    /// Host of the request without its port.
    pub host: &'a [u8],
    /// `HTTP/1.1`
    pub protocol: &'a [u8],
    /// Request target as received.
    pub target: &'a [u8],
    /// Target sent upstream; empty without a service.
    pub upstream_target: &'a [u8],
    /// The response head as sent, status line included.
    pub response_head: &'a [u8],
    /// The entities as JSON texts.
    pub route: &'a [u8],
    pub service: &'a [u8],
    pub correlation_id: &'a [u8],
    pub trace_ids: &'a [u8],
    /// Header fields of the request, as plugins left them.
    pub request_fields: Vec<(&'a [u8], &'a [u8])>,
    pub tries: Vec<Try>,
    /// Empty unless a plugin wanted them.
    pub timings: Vec<Timing>,
    pub shipments: Vec<Shipment<'a>>,
}

/// Appends one record to a batch: figures first, then the rest in the order of [`FullRecord`].
pub struct Writer<'b> {
    batch: &'b mut Vec<u8>,
    start: usize,
}

impl<'b> Writer<'b> {
    /// Begins a record.
    pub fn new(batch: &'b mut Vec<u8>, figures: &Figures) -> Self {
        let start = batch.len();
        batch.extend_from_slice(&[0; 4]);
        let mut writer = Self { batch, start };
        let f = figures;
        for number in [
            f.started_unix_us,
            f.total_us,
            f.handed_over_us.unwrap_or(NEVER),
            f.first_byte_us.unwrap_or(NEVER),
            f.replied_us.unwrap_or(NEVER),
            f.request_bytes,
            f.response_bytes,
            f.body_bytes,
        ] {
            writer.number(number);
        }
        writer.batch.extend_from_slice(&f.status.to_le_bytes());
        writer.batch.extend_from_slice(&f.port.to_le_bytes());
        writer.batch.extend_from_slice(&f.request_id);
        writer.ip(f.client_ip);
        writer.ip(f.peer_ip);
        writer.batch.push(u8::from(f.from_upstream) | u8::from(f.balanced) << 1);
        for id in [f.consumer, f.credential] {
            writer.batch.extend_from_slice(id.unwrap_or(Uuid::nil()).as_bytes());
        }
        writer
    }

    fn number(&mut self, number: u64) {
        self.batch.extend_from_slice(&number.to_le_bytes());
    }

    fn ip(&mut self, ip: IpAddr) {
        let (kind, octets) = match ip {
            IpAddr::V4(ip) => (4, ip.to_ipv6_mapped().octets()),
            IpAddr::V6(ip) => (6, ip.octets()),
        };
        self.batch.push(kind);
        self.batch.extend_from_slice(&octets);
    }

    /// Appends the next text.
    pub fn text(&mut self, text: &[u8]) {
        self.written(|out| out.extend_from_slice(text));
    }

    /// Appends the next text, written by `write` at the end of what it is given.
    pub fn written(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let at = self.batch.len();
        self.batch.extend_from_slice(&[0; 4]);
        write(self.batch);
        let len = (self.batch.len() - at - 4) as u32;
        self.batch[at..at + 4].copy_from_slice(&len.to_le_bytes());
    }

    /// Appends the header fields.
    pub fn fields<'a>(&mut self, fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) {
        self.counted(fields, |writer, (name, value)| {
            writer.text(name);
            writer.text(value);
        });
    }

    /// Appends the tries.
    pub fn tries(&mut self, tries: &[Try]) {
        self.counted(tries.iter(), |writer, t| {
            writer.ip(t.addr.ip());
            writer.batch.extend_from_slice(&t.addr.port().to_le_bytes());
            for number in [t.started_unix_us, t.chosen_us, t.connect_us.unwrap_or(NEVER), t.took_us, t.whole_us] {
                writer.number(number);
            }
            writer.batch.extend_from_slice(&t.status.to_le_bytes());
            writer.batch.push(u8::from(t.failed));
        });
    }

    /// Appends the times of steps.
    pub fn timings(&mut self, timings: &[Timing]) {
        self.counted(timings.iter(), |writer, timing| {
            let (code, kind) = timing.step.code();
            writer.batch.push(code);
            writer.batch.extend_from_slice(&kind.to_le_bytes());
            writer.number(timing.begun_us);
            writer.number(timing.took_us);
        });
    }

    /// Appends the shipments; they are the last of a record.
    pub fn shipments<'a>(mut self, shipments: impl Iterator<Item = Shipment<'a>>) {
        self.counted(shipments, |writer, shipment| {
            writer.batch.extend_from_slice(shipment.plugin.as_bytes());
            shipment.numbers.into_iter().for_each(|number| writer.number(number));
            writer.text(shipment.bytes);
        });
        let len = (self.batch.len() - self.start - 4) as u32;
        self.batch[self.start..self.start + 4].copy_from_slice(&len.to_le_bytes());
    }

    fn counted<T>(&mut self, items: impl Iterator<Item = T>, mut write: impl FnMut(&mut Self, T)) {
        let at = self.batch.len();
        self.batch.extend_from_slice(&[0; 4]);
        let mut count = 0u32;
        for item in items {
            write(self, item);
            count += 1;
        }
        self.batch[at..at + 4].copy_from_slice(&count.to_le_bytes());
    }
}

impl<'a> FullRecord<'a> {
    /// Takes the next record off a batch; `None` at its end. One that cannot be read is passed over.
    pub fn next(batch: &mut &'a [u8]) -> Option<Self> {
        loop {
            let len = u32::from_le_bytes(take(batch, 4)?.try_into().ok()?);
            let mut record = take(batch, len as usize)?;
            if let Some(record) = Self::decode(&mut record) {
                return Some(record);
            }
        }
    }

    fn decode(rest: &mut &'a [u8]) -> Option<Self> {
        Some(Self {
            figures: figures(rest)?,
            method: text(rest)?,
            scheme: text(rest)?,
            host: text(rest)?,
            protocol: text(rest)?,
            target: text(rest)?,
            upstream_target: text(rest)?,
            response_head: text(rest)?,
            route: text(rest)?,
            service: text(rest)?,
            correlation_id: text(rest)?,
            trace_ids: text(rest)?,
            request_fields: list(rest, |rest| Some((text(rest)?, text(rest)?)))?,
            tries: list(rest, a_try)?,
            timings: list(rest, a_timing)?,
            shipments: list(rest, |rest| {
                let plugin = uuid(rest)?;
                let numbers = [number(rest)?, number(rest)?, number(rest)?, number(rest)?];
                Some(Shipment { plugin, numbers, bytes: text(rest)? })
            })?,
        })
    }

    /// The first value of a header field of the request, by any-case name.
    pub fn request_field(&self, name: &str) -> Option<&'a [u8]> {
        let mut named = self.request_fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()));
        named.next().map(|(_, value)| *value)
    }

    /// The header fields of the response.
    pub fn response_fields(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        head_fields(self.response_head)
    }
}

/// The header fields of a head that we have written.
pub fn head_fields(head: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let lines = head.split(|&byte| byte == b'\n').skip(1);
    lines.filter_map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let colon = line.iter().position(|&byte| byte == b':')?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    })
}

fn figures(rest: &mut &[u8]) -> Option<Figures> {
    let mut numbers = [0; 8];
    for slot in &mut numbers {
        *slot = number(rest)?;
    }
    let [
        started_unix_us,
        total_us,
        handed_over_us,
        first_byte_us,
        replied_us,
        request_bytes,
        response_bytes,
        body_bytes,
    ] = numbers;
    let (status, port) = (short(rest)?, short(rest)?);
    let request_id = take(rest, 32)?.try_into().ok()?;
    let (client_ip, peer_ip) = (ip(rest)?, ip(rest)?);
    let flags = take(rest, 1)?[0];
    let (consumer, credential) = (uuid(rest)?, uuid(rest)?);
    Some(Figures {
        started_unix_us,
        total_us,
        handed_over_us: Some(handed_over_us).filter(|us| *us != NEVER),
        first_byte_us: Some(first_byte_us).filter(|us| *us != NEVER),
        replied_us: Some(replied_us).filter(|us| *us != NEVER),
        request_bytes,
        response_bytes,
        body_bytes,
        status,
        port,
        request_id,
        client_ip,
        peer_ip,
        from_upstream: flags & 1 != 0,
        balanced: flags & 2 != 0,
        consumer: Some(consumer).filter(|id| !id.is_nil()),
        credential: Some(credential).filter(|id| !id.is_nil()),
    })
}

fn a_try(rest: &mut &[u8]) -> Option<Try> {
    let addr = SocketAddr::new(ip(rest)?, short(rest)?);
    let (started_unix_us, chosen_us, connect_us) = (number(rest)?, number(rest)?, number(rest)?);
    let connect_us = Some(connect_us).filter(|us| *us != NEVER);
    let (took_us, whole_us, status, failed) = (number(rest)?, number(rest)?, short(rest)?, take(rest, 1)?[0] != 0);
    Some(Try { addr, started_unix_us, chosen_us, connect_us, took_us, whole_us, status, failed })
}

fn a_timing(rest: &mut &[u8]) -> Option<Timing> {
    let step = Step::of(take(rest, 1)?[0], short(rest)?)?;
    Some(Timing { step, begun_us: number(rest)?, took_us: number(rest)? })
}

fn list<'a, T>(rest: &mut &'a [u8], mut read: impl FnMut(&mut &'a [u8]) -> Option<T>) -> Option<Vec<T>> {
    let count = u32::from_le_bytes(take(rest, 4)?.try_into().ok()?);
    (0..count).map(|_| read(rest)).collect()
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(take(rest, 8)?.try_into().ok()?))
}

fn short(rest: &mut &[u8]) -> Option<u16> {
    Some(u16::from_le_bytes(take(rest, 2)?.try_into().ok()?))
}

fn uuid(rest: &mut &[u8]) -> Option<Uuid> {
    Uuid::from_slice(take(rest, 16)?).ok()
}

fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = u32::from_le_bytes(take(rest, 4)?.try_into().ok()?);
    take(rest, len as usize)
}

fn ip(rest: &mut &[u8]) -> Option<IpAddr> {
    let kind = take(rest, 1)?[0];
    let octets = <[u8; 16]>::try_from(take(rest, 16)?).ok()?;
    match kind {
        4 => Some(Ipv4Addr::new(octets[12], octets[13], octets[14], octets[15]).into()),
        6 => Some(Ipv6Addr::from(octets).into()),
        _ => None,
    }
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(count)?;
    *rest = tail;
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(status: u16, ip: IpAddr) -> Figures {
        Figures {
            started_unix_us: 1_735_689_600_000_123,
            total_us: 9000,
            handed_over_us: Some(1000),
            first_byte_us: None,
            replied_us: None,
            request_bytes: 80,
            response_bytes: 1 << 40,
            body_bytes: 7,
            status,
            port: 8000,
            request_id: [b'f'; 32],
            client_ip: ip,
            peer_ip: ip,
            from_upstream: true,
            balanced: false,
            consumer: Some(Uuid::from_u128(5)),
            credential: None,
        }
    }

    fn write(batch: &mut Vec<u8>, figures: &Figures, tries: &[Try]) {
        let mut writer = Writer::new(batch, figures);
        let head: &[u8] = b"HTTP/1.1 200 OK\r\nDate: today\r\nX-A:1\r\n\r\n";
        for text in ["GET", "http", "h.x", "HTTP/1.1", "/a?b", ""] {
            writer.text(text.as_bytes());
        }
        for text in [head, b"{}", b"{}", b"c", b"t"] {
            writer.text(text);
        }
        writer.fields([(&b"Host"[..], &b"h.x"[..]), (b"X", b"")].into_iter());
        writer.tries(tries);
        writer.timings(&[Timing { step: Step::Access(7), begun_us: 1, took_us: 2 }]);
        let shipment = Shipment { plugin: Uuid::from_u128(9), numbers: [1, 2, 3, 4], bytes: b"notes" };
        writer.shipments([shipment].into_iter());
    }

    #[test]
    fn records_of_a_batch_decode_one_after_the_other() {
        let a_try = Try {
            addr: "[::1]:80".parse().unwrap(),
            started_unix_us: 5,
            chosen_us: 6,
            connect_us: None,
            took_us: 7,
            whole_us: 8,
            status: 502,
            failed: true,
        };
        let (a, b) = (figures(200, Ipv4Addr::LOCALHOST.into()), figures(404, Ipv6Addr::LOCALHOST.into()));
        let mut batch = Vec::new();
        write(&mut batch, &a, &[]);
        write(&mut batch, &b, &[a_try, a_try]);
        let mut rest = &batch[..];
        let first = FullRecord::next(&mut rest).unwrap();
        assert_eq!((first.figures, first.tries.len()), (a, 0));
        let second = FullRecord::next(&mut rest).unwrap();
        assert_eq!((second.figures, &second.tries[..]), (b, &[a_try, a_try][..]));
        assert_eq!((second.target, second.upstream_target, second.trace_ids), (&b"/a?b"[..], &b""[..], &b"t"[..]));
        assert_eq!(second.request_field("host"), Some(&b"h.x"[..]));
        let fields: Vec<_> = second.response_fields().collect();
        assert_eq!(fields, [(&b"Date"[..], &b"today"[..]), (b"X-A", b"1")]);
        assert_eq!(second.timings, [Timing { step: Step::Access(7), begun_us: 1, took_us: 2 }]);
        assert_eq!(second.shipments[0].numbers, [1, 2, 3, 4]);
        assert_eq!(second.shipments[0].bytes, b"notes");
        assert!(FullRecord::next(&mut rest).is_none() && rest.is_empty());
    }

    #[test]
    fn a_record_that_cannot_be_read_costs_only_itself() {
        let good = figures(200, Ipv4Addr::LOCALHOST.into());
        let mut batch = vec![3, 0, 0, 0, 1, 2, 3];
        write(&mut batch, &good, &[]);
        assert_eq!(FullRecord::next(&mut &batch[..]).unwrap().figures, good);
        for cut in 0..batch.len() {
            assert!(FullRecord::next(&mut &batch[..cut]).is_none(), "{cut}");
        }
    }
}

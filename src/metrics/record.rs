//! HOT: appends to a batch; formatting happens off-core.
//! One finished request, as it crosses to the control plane for the access log.
//! Always: what was encoded decodes to the same values; a long text is cut, never refused.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

/// Longest text kept of one field (request target, user agent, ...), in bytes.
pub const TEXT_BYTES_MAX: usize = 8 << 10;

/// A finished request. Texts are raw bytes as received; an absent one is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<'a> {
    /// When it finished, in milliseconds since 1970.
    pub unix_ms: u64,
    pub client_ip: IpAddr,
    pub request_id: [u8; 32],
    /// Status sent to the client; 499 when it went away before.
    pub status: u16,
    /// Body bytes sent to the client.
    pub bytes_sent: u64,
    /// Milliseconds from the request's first byte to the last byte of the answer.
    pub total_ms: u32,
    /// The request line as received, without its end.
    pub request_line: &'a [u8],
    /// The `Authorization` field, for the user name of `Basic`; never written as it is.
    pub authorization: &'a [u8],
    pub referer: &'a [u8],
    pub user_agent: &'a [u8],
}

impl<'a> Record<'a> {
    /// Appends the record to a batch.
    pub fn encode(&self, batch: &mut Vec<u8>) {
        batch.extend_from_slice(&self.unix_ms.to_le_bytes());
        batch.extend_from_slice(&self.bytes_sent.to_le_bytes());
        batch.extend_from_slice(&self.total_ms.to_le_bytes());
        batch.extend_from_slice(&self.status.to_le_bytes());
        batch.extend_from_slice(&self.request_id);
        match self.client_ip {
            IpAddr::V4(ip) => {
                batch.push(4);
                batch.extend_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                batch.push(16);
                batch.extend_from_slice(&ip.octets());
            }
        }
        for text in [self.request_line, self.authorization, self.referer, self.user_agent] {
            let text = &text[..text.len().min(TEXT_BYTES_MAX)];
            batch.extend_from_slice(&(text.len() as u16).to_le_bytes());
            batch.extend_from_slice(text);
        }
    }

    /// Takes the next record off a batch; `None` at its end (or at bytes that no encoder wrote).
    pub fn decode(batch: &mut &'a [u8]) -> Option<Self> {
        let unix_ms = u64::from_le_bytes(take(batch, 8)?.try_into().ok()?);
        let bytes_sent = u64::from_le_bytes(take(batch, 8)?.try_into().ok()?);
        let total_ms = u32::from_le_bytes(take(batch, 4)?.try_into().ok()?);
        let status = u16::from_le_bytes(take(batch, 2)?.try_into().ok()?);
        let request_id = take(batch, 32)?.try_into().ok()?;
        let client_ip = match take(batch, 1)?[0] {
            4 => Ipv4Addr::from(<[u8; 4]>::try_from(take(batch, 4)?).ok()?).into(),
            16 => Ipv6Addr::from(<[u8; 16]>::try_from(take(batch, 16)?).ok()?).into(),
            _ => return None,
        };
        let mut text = || {
            let len = u16::from_le_bytes(take(batch, 2)?.try_into().ok()?);
            take(batch, usize::from(len))
        };
        let (request_line, authorization, referer, user_agent) = (text()?, text()?, text()?, text()?);
        Some(Self {
            unix_ms,
            client_ip,
            request_id,
            status,
            bytes_sent,
            total_ms,
            request_line,
            authorization,
            referer,
            user_agent,
        })
    }
}

fn take<'a>(batch: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, rest) = batch.split_at_checked(count)?;
    *batch = rest;
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(line: &[u8], ip: IpAddr) -> Record<'_> {
        Record {
            unix_ms: 1_735_689_600_123,
            client_ip: ip,
            request_id: [b'a'; 32],
            status: 200,
            bytes_sent: 1 << 40,
            total_ms: 12,
            request_line: line,
            authorization: b"",
            referer: b"http://r/",
            user_agent: b"curl/8",
        }
    }

    #[test]
    fn records_of_a_batch_decode_one_after_the_other() {
        let mut batch = Vec::new();
        let a = record(b"GET / HTTP/1.1", Ipv4Addr::LOCALHOST.into());
        let b = record(b"POST /x HTTP/1.0", Ipv6Addr::LOCALHOST.into());
        a.encode(&mut batch);
        b.encode(&mut batch);
        let mut rest = &batch[..];
        assert_eq!(Record::decode(&mut rest), Some(a));
        assert_eq!(Record::decode(&mut rest), Some(b));
        assert_eq!(Record::decode(&mut rest), None);
    }

    #[test]
    fn a_long_text_is_cut_and_a_torn_batch_ends_quietly() {
        let line = vec![b'x'; TEXT_BYTES_MAX + 5];
        let mut batch = Vec::new();
        record(&line, Ipv4Addr::LOCALHOST.into()).encode(&mut batch);
        assert_eq!(Record::decode(&mut &batch[..]).unwrap().request_line.len(), TEXT_BYTES_MAX);
        for cut in 0..batch.len() {
            assert_eq!(Record::decode(&mut &batch[..cut]), None);
        }
    }
}

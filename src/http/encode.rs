//! HOT: no allocation after warm-up, no formatting machinery.
//! Values -> bytes: heads are written straight into the output buffer.
//! Owns: the look of start lines, fields and numbers on the wire. Never: decides what is sent.

use std::io::Write;
use std::net::IpAddr;

use crate::http::fields::{Field, Fields};
use crate::http::status::reason_phrase;

/// The empty line that ends a head.
pub const CRLF: &[u8] = b"\r\n";

/// `METHOD target HTTP/1.1`, the target written by the caller's closure straight into the buffer.
pub fn push_request_line(out: &mut Vec<u8>, method: &[u8], target: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(method);
    out.push(b' ');
    target(out);
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

/// `HTTP/1.1 NNN reason`. The standard reason of the status when `reason` is empty.
pub fn push_status_line(out: &mut Vec<u8>, status: u16, reason: &[u8]) {
    out.extend_from_slice(b"HTTP/1.1 ");
    push_u64(out, u64::from(status));
    out.push(b' ');
    out.extend_from_slice(if reason.is_empty() { reason_phrase(status).as_bytes() } else { reason });
    out.extend_from_slice(CRLF);
}

/// One field line. Both texts must hold no control bytes: come from `Fields`, be a constant, or be digits.
#[inline]
pub fn push_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    debug_assert!(!name.is_empty() && !value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(CRLF);
}

/// One field line with a decimal number.
pub fn push_field_u64(out: &mut Vec<u8>, name: &[u8], value: u64) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    push_u64(out, value);
    out.extend_from_slice(CRLF);
}

/// Every field that `wanted` says yes to, in order.
pub fn push_fields(out: &mut Vec<u8>, fields: &Fields, src: &[u8], mut wanted: impl FnMut(&Field<'_>) -> bool) {
    // Lines that stand in `src`, one behind the other, just as they would be written are copied in one go.
    let mut run = 0..0;
    for (field, line) in fields.lines(src) {
        if !wanted(&field) {
            continue;
        }
        match line {
            Some(line) if line.start == run.end => run.end = line.end,
            line => {
                out.extend_from_slice(src.get(run).unwrap_or_default());
                if line.is_none() {
                    push_field(out, field.name, field.value);
                }
                run = line.unwrap_or_default();
            }
        }
    }
    out.extend_from_slice(src.get(run).unwrap_or_default());
}

/// A number in decimal digits.
pub fn push_u64(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    while value >= 100 {
        at -= 2;
        digits[at..at + 2].copy_from_slice(two_digits(value % 100));
        value /= 100;
    }
    if value >= 10 {
        at -= 2;
        digits[at..at + 2].copy_from_slice(two_digits(value));
    } else {
        at -= 1;
        digits[at] = b'0' + value as u8;
    }
    out.extend_from_slice(&digits[at..]);
}

/// Both digits of a number below 100.
#[inline]
fn two_digits(value: u64) -> &'static [u8] {
    const PAIRS: [u8; 200] = {
        let mut pairs = [0; 200];
        let mut number = 0;
        while number < 100 {
            pairs[2 * number] = b'0' + (number / 10) as u8;
            pairs[2 * number + 1] = b'0' + (number % 10) as u8;
            number += 1;
        }
        pairs
    };
    let at = 2 * (value % 100) as usize;
    &PAIRS[at..at + 2]
}

/// An address in its shortest usual form; one of IPv4 mapped into IPv6 as IPv4.
pub fn push_ip(out: &mut Vec<u8>, ip: IpAddr) {
    match ip.to_canonical() {
        // By hand: the usual case, and several times quicker than the formatter. In one piece: an append costs more than a digit.
        IpAddr::V4(ip) => {
            let (mut text, mut len) = ([b'.'; 16], 0);
            for octet in ip.octets() {
                if octet >= 100 {
                    text[len] = b'0' + octet / 100;
                    len += 1;
                }
                if octet >= 10 {
                    text[len] = b'0' + octet / 10 % 10;
                    len += 1;
                }
                text[len] = b'0' + octet % 10;
                // Over the point behind it, which is there already.
                len += 2;
            }
            out.extend_from_slice(&text[..len - 1]);
        }
        IpAddr::V6(ip) => {
            // Memory takes any bytes.
            let _ = write!(out, "{ip}");
        }
    }
}

/// A request id: 32 lower-case hexadecimal digits of two random numbers (spec/proxying.md section 1).
pub fn request_id(high: u64, low: u64) -> [u8; 32] {
    let mut id = [0u8; 32];
    id[..16].copy_from_slice(&hex16(high));
    id[16..].copy_from_slice(&hex16(low));
    id
}

/// All sixteen digits of a number.
pub(super) fn hex16(value: u64) -> [u8; 16] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0u8; 16];
    for (index, byte) in text.iter_mut().enumerate() {
        *byte = DIGITS[(value >> (60 - 4 * index)) as usize & 0xf];
    }
    text
}

/// A decoded path in the encoding of spec/router.md section 7.5: bytes that may stand in a target stay, triplets stay,
/// all others become `%XX`. Use it for any field value made from a decoded path too.
pub fn push_path_encoded(out: &mut Vec<u8>, path: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut rest = path;
    while let Some(at) = rest.iter().position(|&byte| !stays(byte)) {
        out.extend_from_slice(&rest[..at]);
        let byte = rest[at];
        out.extend_from_slice(&[b'%', DIGITS[byte as usize >> 4], DIGITS[byte as usize & 0xf]]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

#[inline]
fn stays(byte: u8) -> bool {
    const STAYS: [bool; 256] = {
        let mut table = [false; 256];
        let signs = b"-._~!#$&'()*+,/:;=?@[]%";
        let mut index = 0;
        while index < 256 {
            table[index] = (index as u8).is_ascii_alphanumeric();
            index += 1;
        }
        index = 0;
        while index < signs.len() {
            table[signs[index] as usize] = true;
            index += 1;
        }
        table
    };
    STAYS[byte as usize]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::known::Known;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn start_lines_look_as_on_the_wire() {
        assert_eq!(
            written(|out| push_request_line(out, b"PUT", |out| out.extend_from_slice(b"/a?b"))),
            "PUT /a?b HTTP/1.1\r\n"
        );
        assert_eq!(written(|out| push_status_line(out, 404, b"")), "HTTP/1.1 404 Not Found\r\n");
        assert_eq!(written(|out| push_status_line(out, 200, b"Fine")), "HTTP/1.1 200 Fine\r\n");
        assert_eq!(written(|out| push_status_line(out, 599, b"")), "HTTP/1.1 599 \r\n");
    }

    #[test]
    fn fields_are_written_in_order() {
        let mut fields = Fields::default();
        fields.append(Known::Host, b"a");
        fields.append_by_name(b"x-B", b"\xe9 c");
        fields.append(Known::Via, b"1.1 d");
        let mut out = Vec::new();
        push_fields(&mut out, &fields, b"", |field| field.known != Known::Host);
        push_field_u64(&mut out, b"N", 70);
        assert_eq!(out, b"x-B: \xe9 c\r\nVia: 1.1 d\r\nN: 70\r\n");
    }

    #[test]
    fn fields_copied_in_runs_are_the_fields_written_one_by_one() {
        let mut rng = fastrand::Rng::with_seed(2);
        for _ in 0..2000 {
            let mut text = b"GET / HTTP/1.1\r\n".to_vec();
            for number in 0..rng.usize(..8) {
                let name = ["Host", "x-a", "Via", "Accept"][rng.usize(..4)];
                let (before, after) = (["", " ", "  ", "\t"][rng.usize(..4)], ["", " "][rng.usize(..2)]);
                let value = ["", "v", "1, 2"][rng.usize(..3)];
                text.extend_from_slice(format!("{name}{number}:{before}{value}{after}\r\n").as_bytes());
            }
            text.extend_from_slice(b"\r\n");
            let mut head = crate::http::head::RequestHead::default();
            let limits = crate::http::parse::HeadLimits::REQUEST;
            crate::http::parse::parse_request(&text, &limits, &mut head).unwrap();
            if rng.bool() {
                head.fields.append(Known::Via, b"1.1 d");
            }
            if rng.bool() {
                head.fields.set_by_name(&text, b"x-a0", b"other");
            }
            let unwanted = rng.usize(..8).to_string();
            let wanted = |field: &Field<'_>| !field.name.ends_with(unwanted.as_bytes());
            let (mut runs, mut single) = (Vec::new(), Vec::new());
            push_fields(&mut runs, &head.fields, &text, wanted);
            for field in head.fields.iter(&text).filter(wanted) {
                push_field(&mut single, field.name, field.value);
            }
            assert_eq!(runs, single, "{}", String::from_utf8_lossy(&text));
        }
    }

    #[test]
    fn addresses_are_written_in_their_shortest_usual_form() {
        let check = |ip: &str, want: &str| assert_eq!(written(|out| push_ip(out, ip.parse().unwrap())), want);
        check("127.0.0.1", "127.0.0.1");
        check("255.100.99.10", "255.100.99.10");
        check("::1", "::1");
        check("::ffff:10.1.2.3", "10.1.2.3");
        let longest = "1111:2222:3333:4444:5555:6666:7777:8888";
        check(longest, longest);
    }

    #[test]
    fn numbers_are_written_as_the_formatter_would() {
        let mut rng = fastrand::Rng::with_seed(1);
        let random = std::iter::repeat_with(|| rng.u64(..) >> rng.u32(..64)).take(2000);
        for value in random.chain([0, 9, 10, 15, 16, 255, 256, u64::MAX]) {
            assert_eq!(written(|out| push_u64(out, value)), value.to_string());
        }
        assert_eq!(&request_id(0xab, u64::MAX), b"00000000000000abffffffffffffffff");
    }

    #[test]
    fn a_path_keeps_what_may_stand_in_a_target() {
        let all: Vec<u8> = (0..=255).collect();
        let text = written(|out| push_path_encoded(out, &all));
        assert!(text.starts_with("%00%01"), "{text}");
        assert!(text.contains("%1F%20!%22#$%&'()*+,-./0123456789:;%3C=%3E?@ABC"), "{text}");
        assert!(text.contains("XYZ[%5C]%5E_%60abc"), "{text}");
        assert!(text.contains("xyz%7B%7C%7D~%7F%80"), "{text}");
    }
}

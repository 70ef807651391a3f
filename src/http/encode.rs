//! HOT: no allocation after warm-up, no formatting machinery.
//! Values -> bytes: heads are written straight into the output buffer.
//! Owns: the look of start lines, fields and numbers on the wire. Never: decides what is sent.

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
    for field in fields.iter(src) {
        if wanted(&field) {
            push_field(out, field.name, field.value);
        }
    }
}

/// A number in decimal digits.
pub fn push_u64(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// A number in lower-case hexadecimal digits, no leading zeros.
pub fn push_hex(out: &mut Vec<u8>, value: u64) {
    let digits = hex16(value);
    let zeros = (value.leading_zeros() as usize / 4).min(15);
    out.extend_from_slice(&digits[zeros..]);
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

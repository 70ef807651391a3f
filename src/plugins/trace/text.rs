//! Short texts on the stack, and numbers in them.

/// The longest header of any format, and some.
const BYTES_MAX: usize = 128;

/// A text in the making. What would not fit is left out; the bound holds every header that is written.
pub struct Text {
    bytes: [u8; BYTES_MAX],
    len: usize,
}

impl Default for Text {
    fn default() -> Self {
        Self { bytes: [0; BYTES_MAX], len: 0 }
    }
}

impl Text {
    /// What was written.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Appends bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        debug_assert!(self.len + bytes.len() <= BYTES_MAX, "headers of traces are short");
        if let Some(room) = self.bytes.get_mut(self.len..self.len + bytes.len()) {
            room.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }

    /// Appends the last digits of a number in hexadecimal, padded with zeros.
    pub fn push_hex(&mut self, number: u128, digits: usize) {
        for at in (0..digits).rev() {
            let digit = (number >> (4 * at)) as u8 & 0xf;
            self.push(&[if digit < 10 { b'0' + digit } else { b'a' + digit - 10 }]);
        }
    }

    /// Appends a number in decimal.
    pub fn push_decimal(&mut self, mut number: u64) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return self.push(&digits[at..]);
            }
        }
    }

    /// A text of 16 hexadecimal digits.
    pub fn span(id: u64) -> Self {
        let mut text = Self::default();
        text.push_hex(u128::from(id), 16);
        text
    }

    /// A text of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut text = Self::default();
        text.push(bytes);
        text
    }

    /// A text of a number in decimal.
    pub fn decimal(number: u64) -> Self {
        let mut text = Self::default();
        text.push_decimal(number);
        text
    }

    /// `1` or `0`.
    pub fn flag(set: bool) -> Self {
        Self::of(if set { b"1" } else { b"0" })
    }
}

/// The number that 1 to 32 hexadecimal digits tell.
pub fn hex(text: &[u8]) -> Option<u128> {
    if text.is_empty() || text.len() > 32 {
        return None;
    }
    text.iter().try_fold(0u128, |number, &digit| Some(number << 4 | u128::from((digit as char).to_digit(16)?)))
}

/// The number that exactly 16 hexadecimal digits tell, unless it is 0.
pub fn span_id(text: &[u8]) -> Option<u64> {
    let id = hex(text).filter(|id| text.len() == 16 && *id != 0)?;
    Some(id as u64)
}

/// The number that a decimal text tells, if it fits and is not 0.
pub fn decimal_id(text: &[u8]) -> Option<u64> {
    if !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok().filter(|id| *id != 0)
}

/// The id that 16 or 32 hexadecimal digits tell, unless it is 0.
pub fn trace_id(text: &[u8]) -> Option<super::TraceId> {
    let is_short = match text.len() {
        16 => true,
        32 => false,
        _ => return None,
    };
    let id = hex(text).filter(|id| *id != 0)?;
    Some(super::TraceId { id, is_short })
}

/// `1` and `true` are yes, `0` and `false` are no.
pub fn flag(text: &[u8]) -> Option<bool> {
    match text {
        b"1" | b"true" => Some(true),
        b"0" | b"false" => Some(false),
        _ => None,
    }
}

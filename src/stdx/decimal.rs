//! HOT: writes on the stack.
//! Whole numbers as text.

/// The decimal digits of a number.
pub struct Decimal {
    text: [u8; 20],
    start: usize,
}

impl Decimal {
    /// Of that number.
    pub fn of(mut number: u64) -> Self {
        let mut decimal = Self { text: [b'0'; 20], start: 19 };
        loop {
            decimal.text[decimal.start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return decimal;
            }
            decimal.start -= 1;
        }
    }

    /// The text, without leading zeros.
    pub fn bytes(&self) -> &[u8] {
        &self.text[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_decimal() {
        assert_eq!(Decimal::of(0).bytes(), b"0");
        assert_eq!(Decimal::of(10).bytes(), b"10");
        assert_eq!(Decimal::of(u64::MAX).bytes(), b"18446744073709551615");
    }
}

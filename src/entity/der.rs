//! The little of DER (X.690) that private and public keys are made of: tags, lengths, contents.
//! Never: recurses or allocates. Always: ends at the first byte that makes no sense.

/// Universal and context tags that keys use.
pub const INTEGER: u8 = 0x02;
pub const BIT_STRING: u8 = 0x03;
pub const OCTET_STRING: u8 = 0x04;
pub const OID: u8 = 0x06;
pub const SEQUENCE: u8 = 0x30;
pub const CONTEXT_0: u8 = 0xa0;
pub const CONTEXT_1: u8 = 0xa1;

/// One value: its tag, and the bytes in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    pub tag: u8,
    pub content: &'a [u8],
}

impl<'a> Value<'a> {
    /// The content, if the value has this tag.
    pub fn content(self, tag: u8) -> Option<&'a [u8]> {
        (self.tag == tag).then_some(self.content)
    }

    /// The digits of an integer that is not negative, without leading zeros.
    pub fn unsigned(self) -> Option<&'a [u8]> {
        let digits = self.content(INTEGER)?;
        let negative = digits.first().is_none_or(|first| *first >= 0x80);
        let zeros = digits.iter().take_while(|digit| **digit == 0).count();
        if negative { None } else { digits.get(zeros..) }
    }
}

/// The values that follow one another in `bytes`.
pub fn parts(bytes: &[u8]) -> Parts<'_> {
    Parts(bytes)
}

/// The parts of the sequence that `bytes` begin with.
pub fn sequence(bytes: &[u8]) -> Option<Parts<'_>> {
    sequence_in(parts(bytes).next()?)
}

/// The parts of a value that is a sequence.
pub fn sequence_in(value: Value<'_>) -> Option<Parts<'_>> {
    value.content(SEQUENCE).map(Parts)
}

/// Iterates over values; ends at the end, or where the bytes are malformed.
#[derive(Clone, Debug)]
pub struct Parts<'a>(&'a [u8]);

impl<'a> Iterator for Parts<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        let (tag, rest) = self.0.split_first()?;
        let (first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(*first), rest),
            // The long form says how many bytes the length has; four are more than any key needs.
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(*first & 0x7f))?;
                (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(Value { tag: *tag, content })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_one_after_the_other() {
        let mut long = vec![OCTET_STRING, 0x82, 0x01, 0x00];
        long.extend([7; 256]);
        let bytes = [&[INTEGER, 2, 0, 0x80][..], &long, &[BIT_STRING, 0]].concat();
        let found: Vec<Value<'_>> = parts(&bytes).collect();
        assert_eq!(found[0].unsigned(), Some(&[0x80][..]));
        assert_eq!(found[1].content(OCTET_STRING).map(<[u8]>::len), Some(256));
        assert_eq!(found[2], Value { tag: BIT_STRING, content: &[] });
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn what_is_cut_off_or_has_no_length_ends_the_reading() {
        for bytes in [&[][..], &[2], &[2, 1], &[2, 0x80, 0], &[2, 0x85, 0, 0, 0, 0, 0], &[2, 0x82, 1], &[4, 0x81, 9, 1]]
        {
            assert_eq!(parts(bytes).next(), None, "{bytes:?}");
        }
        assert_eq!(Value { tag: INTEGER, content: &[0x80] }.unsigned(), None, "negative");
        assert_eq!(Value { tag: INTEGER, content: &[] }.unsigned(), None);
    }
}

//! HOT: decoded on the stack.
//! A name and a password as request fields carry them: base64 of both with a colon between (RFC 7617).

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::GeneralPurpose;
use base64::engine::GeneralPurposeConfig;

use crate::limits::BASIC_CREDENTIALS_STACK_BYTES;

/// Standard alphabet; padding may be left out.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// What stands behind a scheme, which may be written in any case.
pub(super) fn after_scheme<'a>(header: &'a [u8], scheme: &str) -> Option<&'a [u8]> {
    let (given, rest) = header.trim_ascii_start().split_at_checked(scheme.len())?;
    let is_there = given.eq_ignore_ascii_case(scheme.as_bytes()) && rest.first().is_some_and(u8::is_ascii_whitespace);
    is_there.then(|| rest.trim_ascii())
}

/// Where a name and a password are decoded.
pub(super) struct Room {
    short: [u8; BASIC_CREDENTIALS_STACK_BYTES],
    long: Vec<u8>,
}

impl Default for Room {
    fn default() -> Self {
        Self { short: [0; BASIC_CREDENTIALS_STACK_BYTES], long: Vec::new() }
    }
}

impl Room {
    /// Name and password; a password may have colons, a name may not, and no name is empty.
    pub fn decode(&mut self, encoded: &[u8]) -> Option<(&[u8], &[u8])> {
        let text = if encoded.len() <= BASIC_CREDENTIALS_STACK_BYTES {
            let length = LENIENT.decode_slice(encoded, &mut self.short).ok()?;
            self.short.get(..length)?
        } else {
            self.long = LENIENT.decode(encoded).ok()?;
            &self.long
        };
        let colon = text.iter().position(|&byte| byte == b':').filter(|colon| *colon > 0)?;
        let (name, password) = text.split_at_checked(colon)?;
        Some((name, password.get(1..).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose;

    #[test]
    fn a_scheme_is_followed_by_a_space() {
        assert_eq!(after_scheme(b"Basic  x ", "basic"), Some(&b"x"[..]));
        assert_eq!(after_scheme(b" LDAP x", "ldap"), Some(&b"x"[..]));
        for other in ["Basicx", "Basic", "Bas", "", "Bearer x"] {
            assert_eq!(after_scheme(other.as_bytes(), "basic"), None, "{other}");
        }
    }

    #[test]
    fn a_password_may_have_colons_and_be_long() {
        let long = "p".repeat(3 * BASIC_CREDENTIALS_STACK_BYTES);
        for password in ["", "a:b:", &long] {
            let mut room = Room::default();
            let encoded = general_purpose::STANDARD_NO_PAD.encode(format!("u:{password}"));
            assert_eq!(room.decode(encoded.as_bytes()), Some((&b"u"[..], password.as_bytes())));
        }
        for text in ["u", ":p", ""] {
            assert_eq!(Room::default().decode(general_purpose::STANDARD.encode(text).as_bytes()), None, "{text}");
        }
        assert_eq!(Room::default().decode(b"!!!"), None);
    }
}

//! HOT: opened in place.
//! Texts that only this gateway can make and read: AES-256-GCM under a key derived from a secret.
//! Always: a text opens only for the purpose that it was sealed for.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead;
use ring::hkdf;
use ring::rand::SecureRandom;
use ring::rand::SystemRandom;

/// Seals and opens.
pub(super) struct Sealer(aead::LessSafeKey);

impl Sealer {
    /// By a key that comes from that secret and nothing else, so that other nodes with the secret open what this one sealed.
    pub fn new(secret: &[u8]) -> Self {
        let key = hkdf::Salt::new(hkdf::HKDF_SHA256, b"ringway session").extract(secret);
        let key = key.expand(&[b"cookie"], &aead::AES_256_GCM).expect("a key is not longer than HKDF gives");
        Self(aead::LessSafeKey::new(aead::UnboundKey::from(key)))
    }

    /// The text for those bytes.
    pub fn seal(&self, purpose: &[u8], plain: &[u8]) -> String {
        let nonce: [u8; aead::NONCE_LEN] = random();
        let mut sealed = plain.to_vec();
        let unique = aead::Nonce::assume_unique_for_key(nonce);
        let done = self.0.seal_in_place_append_tag(unique, aead::Aad::from(purpose), &mut sealed);
        done.expect("what is sealed is far shorter than the cipher allows");
        URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat())
    }

    /// Leaves the bytes of a text in `room`; `None`: it was not sealed here for that.
    pub fn open(&self, purpose: &[u8], text: &[u8], room: &mut Vec<u8>) -> Option<()> {
        room.clear();
        URL_SAFE_NO_PAD.decode_vec(text, room).ok()?;
        let nonce = aead::Nonce::try_assume_unique_for_key(room.get(..aead::NONCE_LEN)?).ok()?;
        let plain = self.0.open_within(nonce, aead::Aad::from(purpose), room, aead::NONCE_LEN..).ok()?;
        let length = plain.len();
        room.truncate(length);
        Some(())
    }
}

/// Bytes that nobody can guess.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the system has randomness");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_opens_whole_with_its_secret_and_for_its_purpose() {
        let sealer = Sealer::new(b"s");
        let (text, mut room) = (sealer.seal(b"p", b"hello"), Vec::new());
        assert_eq!(sealer.open(b"p", text.as_bytes(), &mut room), Some(()));
        assert_eq!(room, b"hello");
        assert_eq!(Sealer::new(b"s").open(b"p", text.as_bytes(), &mut room), Some(()), "another node");
        assert_ne!(sealer.seal(b"p", b"hello"), text);
        assert_eq!(sealer.open(b"q", text.as_bytes(), &mut room), None);
        assert_eq!(Sealer::new(b"t").open(b"p", text.as_bytes(), &mut room), None);
        for at in 0..text.len() {
            let mut forged = text.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(sealer.open(b"p", &forged, &mut room), None, "{at}");
            assert_eq!(sealer.open(b"p", &text.as_bytes()[..at], &mut room), None, "{at}");
        }
    }
}

//! The keys that JSON Web Tokens are verified with (RFC 7518, RFC 8037).
//! Owns: which algorithm goes with which key. Never: signs. Always: the token's own word on its algorithm is compared with
//! the credential's and not believed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use ring::signature;
use ring::signature::RsaParameters;
use ring::signature::RsaPublicKeyComponents;
use ring::signature::UnparsedPublicKey;
use ring::signature::VerificationAlgorithm;

use crate::entity::pem::PublicKey;

/// A credential's algorithm and key.
#[derive(Debug)]
pub struct TokenKey {
    pub algorithm: Box<str>,
    material: Material,
}

#[derive(Debug)]
enum Material {
    Shared(Box<Shared>),
    Public(PublicKey),
    /// There is none, or it does not load.
    Missing,
}

/// A secret as it is, and decoded from base64.
#[derive(Debug)]
struct Shared {
    plain: hmac::Key,
    decoded: Option<hmac::Key>,
}

/// Why a signature proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    NoKey,
    BadSignature,
}

/// Every algorithm that a token may name.
pub const ALGORITHMS: [&str; 13] = [
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "EdDSA",
];

impl TokenKey {
    /// `secret` is for the algorithms HS*, the PEM text for all others.
    pub fn new(algorithm: &str, secret: Option<&str>, public_key: Option<&str>) -> Self {
        let material = match (hmac_algorithm(algorithm), secret, public_key) {
            (Some(with), Some(secret), _) => Material::Shared(Box::new(Shared {
                plain: hmac::Key::new(with, secret.as_bytes()),
                decoded: STANDARD.decode(secret).ok().map(|bytes| hmac::Key::new(with, &bytes)),
            })),
            (None, _, Some(pem)) => PublicKey::read(pem).map_or(Material::Missing, Material::Public),
            _ => Material::Missing,
        };
        Self { algorithm: algorithm.into(), material }
    }

    /// Verifies the signature over `signed`. `is_base64`: a shared secret is the encoded form of the key.
    ///
    /// # Errors
    /// There is no key, or the signature was not made with it.
    pub fn verify(&self, signed: &[u8], signature: &[u8], is_base64: bool) -> Result<(), Rejected> {
        let is_good = match &self.material {
            Material::Missing => return Err(Rejected::NoKey),
            Material::Shared(shared) => {
                let key = if is_base64 { shared.decoded.as_ref().ok_or(Rejected::NoKey)? } else { &shared.plain };
                hmac::verify(key, signed, signature).is_ok()
            }
            Material::Public(PublicKey::Rsa { modulus, exponent }) => {
                let key = RsaPublicKeyComponents { n: modulus, e: exponent };
                let verify = |with: &RsaParameters| key.verify(with, signed, signature).is_ok();
                rsa_parameters(&self.algorithm).is_some_and(verify)
            }
            Material::Public(PublicKey::Ec { point: key, .. } | PublicKey::Other { key, .. }) => {
                let verify = |with: &'static dyn VerificationAlgorithm| {
                    UnparsedPublicKey::new(with, key).verify(signed, signature).is_ok()
                };
                curve_algorithm(&self.algorithm).is_some_and(verify)
            }
        };
        if is_good { Ok(()) } else { Err(Rejected::BadSignature) }
    }
}

fn hmac_algorithm(name: &str) -> Option<hmac::Algorithm> {
    Some(match name {
        "HS256" => hmac::HMAC_SHA256,
        "HS384" => hmac::HMAC_SHA384,
        "HS512" => hmac::HMAC_SHA512,
        _ => return None,
    })
}

fn rsa_parameters(name: &str) -> Option<&'static RsaParameters> {
    Some(match name {
        "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
        "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
        "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
        "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
        "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
        "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

/// A key of another curve or length than the algorithm's verifies nothing.
fn curve_algorithm(name: &str) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match name {
        "ES256" => &signature::ECDSA_P256_SHA256_FIXED,
        "ES384" => &signature::ECDSA_P384_SHA384_FIXED,
        "EdDSA" => &signature::ED25519,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;
    use ring::signature::EcdsaKeyPair;
    use ring::signature::Ed25519KeyPair;
    use ring::signature::KeyPair;
    use ring::signature::RsaKeyPair;
    use x509_parser::pem::Pem;

    const SIGNED: &[u8] = b"header.claims";

    macro_rules! pem {
        ($name:literal) => {
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pem/", $name, ".pem"))
        };
    }

    fn der(pem: &str) -> Vec<u8> {
        Pem::iter_from_buffer(pem.as_bytes()).next().unwrap().unwrap().contents
    }

    /// A PEM text of a public key: what stands before the key in its DER form, and the key.
    fn public_pem(before: &[u8], key: &[u8]) -> String {
        let text = STANDARD.encode([before, key].concat());
        format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
    }

    #[track_caller]
    fn check(algorithm: &str, pem: &str, signature: &[u8]) {
        let key = TokenKey::new(algorithm, None, Some(pem));
        assert_eq!(key.verify(SIGNED, signature, false), Ok(()), "{algorithm}");
        assert_eq!(key.verify(b"header.other", signature, false), Err(Rejected::BadSignature), "{algorithm}");
        assert_eq!(key.verify(SIGNED, b"", false), Err(Rejected::BadSignature), "{algorithm}");
        for other in ALGORITHMS.iter().filter(|other| **other != algorithm) {
            assert!(
                TokenKey::new(other, None, Some(pem)).verify(SIGNED, signature, false).is_err(),
                "{algorithm} {other}"
            );
        }
    }

    #[test]
    fn shared_secrets() {
        for (name, with) in [("HS256", hmac::HMAC_SHA256), ("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512)] {
            let key = TokenKey::new(name, Some("c2VjcmV0"), None);
            let sign = |secret: &[u8]| hmac::sign(&hmac::Key::new(with, secret), SIGNED);
            assert_eq!(key.verify(SIGNED, sign(b"c2VjcmV0").as_ref(), false), Ok(()));
            assert_eq!(key.verify(SIGNED, sign(b"secret").as_ref(), true), Ok(()));
            assert_eq!(key.verify(SIGNED, sign(b"secret").as_ref(), false), Err(Rejected::BadSignature));
            assert_eq!(TokenKey::new(name, Some("!"), None).verify(SIGNED, b"", true), Err(Rejected::NoKey));
            assert_eq!(TokenKey::new(name, None, None).verify(SIGNED, b"", false), Err(Rejected::NoKey));
        }
    }

    #[test]
    fn rsa() {
        let pair = RsaKeyPair::from_pkcs8(&der(pem!("key1"))).unwrap();
        let public = STANDARD.encode(pair.public().as_ref());
        let pem = format!("-----BEGIN RSA PUBLIC KEY-----\n{public}\n-----END RSA PUBLIC KEY-----\n");
        let ways: [(&str, &'static dyn signature::RsaEncoding); 6] = [
            ("RS256", &signature::RSA_PKCS1_SHA256),
            ("RS384", &signature::RSA_PKCS1_SHA384),
            ("RS512", &signature::RSA_PKCS1_SHA512),
            ("PS256", &signature::RSA_PSS_SHA256),
            ("PS384", &signature::RSA_PSS_SHA384),
            ("PS512", &signature::RSA_PSS_SHA512),
        ];
        for (name, encoding) in ways {
            let mut signature = vec![0; pair.public().modulus_len()];
            pair.sign(encoding, &SystemRandom::new(), SIGNED, &mut signature).unwrap();
            check(name, &pem, &signature);
        }
    }

    #[test]
    fn curves() {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, &der(pem!("key2")), &random);
        let signature = pair.unwrap().sign(&random, SIGNED).unwrap();
        check("ES256", pem!("key2-public"), signature.as_ref());

        let seed = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let before = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        let pem = public_pem(&before, seed.public_key().as_ref());
        check("EdDSA", &pem, seed.sign(SIGNED).as_ref());
    }

    #[test]
    fn a_key_that_does_not_load_is_none() {
        assert_eq!(TokenKey::new("ES256", None, Some("x")).verify(SIGNED, b"", false), Err(Rejected::NoKey));
        assert_eq!(TokenKey::new("ES256", Some("secret"), None).verify(SIGNED, b"", false), Err(Rejected::NoKey));
    }
}

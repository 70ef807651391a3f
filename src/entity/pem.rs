//! Certificates and keys as operators paste them: PEM texts and JSON Web Keys (spec/entities.md section 1.3).
//! Owns: whether such a text loads, what a certificate says, whether a private key belongs to a public one.
//! Never: signs, decrypts or trusts anything; an encrypted key is refused. Always: bounded work on hostile bytes.

use crate::entity::der;
use crate::entity::der::Value as Der;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use ring::rand::SystemRandom;
use ring::signature::ECDSA_P256_SHA256_ASN1_SIGNING;
use ring::signature::ECDSA_P384_SHA384_ASN1_SIGNING;
use ring::signature::EcdsaKeyPair;
use ring::signature::Ed25519KeyPair;
use serde_json::Value;
use x509_parser::pem::Pem;

/// What the Admin API needs to know of a certificate.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// Lower-case hex SHA-256 of its DER form.
    pub digest: String,
    /// "Not After", in Unix seconds.
    pub not_after_s: i64,
    /// The "CA" basic constraint.
    pub is_ca: bool,
    pub key: PublicKey,
}

/// A public key, as far as keys are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKey {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    Ec { curve: Vec<u8>, point: Vec<u8> },
    Other { algorithm: Vec<u8>, key: Vec<u8> },
}

/// A private key, as far as keys are compared.
#[derive(Clone)]
pub enum PrivateKey {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    Ec { curve: Vec<u8>, scalar: Vec<u8>, point: Option<Vec<u8>> },
    Ed25519 { seed: Vec<u8> },
    Other { algorithm: Vec<u8> },
}

const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const RSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const NO_BLOCK: &str = "no PEM block found";
const MALFORMED: &str = "malformed DER";

impl Certificate {
    /// Reads the first certificate of a PEM text; a chain may follow it.
    ///
    /// # Errors
    /// Why there is none.
    pub fn read(text: &str) -> Result<Certificate, String> {
        let block = first_block(text)?;
        if !matches!(block.label.as_str(), "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE") {
            return Err(format!("a PEM block {} is not a certificate", block.label));
        }
        let parsed = block.parse_x509().map_err(|error| error.to_string())?;
        let key = PublicKey::of_spki(parsed.public_key().raw).ok_or("its public key is malformed")?;
        let digest = digest::digest(&digest::SHA256, &block.contents);
        let digest = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let (not_after_s, is_ca) = (parsed.validity().not_after.timestamp(), parsed.is_ca());
        Ok(Certificate { digest, not_after_s, is_ca, key })
    }

    /// How many certificates a PEM text has.
    pub fn count(text: &str) -> usize {
        text.matches("-----BEGIN CERTIFICATE-----").count()
    }
}

fn first_block(text: &str) -> Result<Pem, String> {
    match Pem::iter_from_buffer(text.as_bytes()).next() {
        Some(Ok(block)) => Ok(block),
        Some(Err(error)) if text.contains("-----BEGIN") => Err(error.to_string()),
        _ => Err(NO_BLOCK.to_string()),
    }
}

impl PublicKey {
    /// Reads a PEM text that holds a public key.
    ///
    /// # Errors
    /// Why it does not.
    pub fn read(text: &str) -> Result<PublicKey, String> {
        let block = first_block(text)?;
        let key = match block.label.as_str() {
            "PUBLIC KEY" => PublicKey::of_spki(&block.contents),
            "RSA PUBLIC KEY" => rsa_public(&block.contents),
            other => return Err(format!("a PEM block {other} is not a public key")),
        };
        key.ok_or_else(|| MALFORMED.to_string())
    }

    /// `SubjectPublicKeyInfo`, RFC 5280 section 4.1.
    fn of_spki(bytes: &[u8]) -> Option<PublicKey> {
        let mut info = der::sequence(bytes)?;
        let mut algorithm = der::sequence_in(info.next()?)?;
        let oid = algorithm.next()?.content(der::OID)?;
        // The first byte of a bit string counts its unused bits.
        let (unused, key) = info.next()?.content(der::BIT_STRING)?.split_first()?;
        match oid {
            _ if *unused != 0 => None,
            RSA | RSA_PSS => rsa_public(key),
            EC => {
                let curve = algorithm.next()?.content(der::OID)?;
                Some(PublicKey::Ec { curve: curve.to_vec(), point: key.to_vec() })
            }
            other => Some(PublicKey::Other { algorithm: other.to_vec(), key: key.to_vec() }),
        }
    }

    /// Whether both are keys for the same algorithm (RSA, ECDSA, Ed25519, ...).
    pub fn same_type(&self, other: &PublicKey) -> bool {
        match (self, other) {
            (PublicKey::Other { algorithm: a, .. }, PublicKey::Other { algorithm: b, .. }) => a == b,
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
        }
    }
}

/// `RSAPublicKey`, RFC 8017 appendix A.1.1.
fn rsa_public(bytes: &[u8]) -> Option<PublicKey> {
    let mut numbers = der::sequence(bytes)?;
    let modulus = numbers.next()?.unsigned()?.to_vec();
    let exponent = numbers.next()?.unsigned()?.to_vec();
    Some(PublicKey::Rsa { modulus, exponent })
}

impl PrivateKey {
    /// Reads a PEM text that holds a private key.
    ///
    /// # Errors
    /// Why it does not; an encrypted key cannot be used.
    pub fn read(text: &str) -> Result<PrivateKey, String> {
        // Blocks of parameters may precede a key of an elliptic curve.
        let blocks = Pem::iter_from_buffer(text.as_bytes()).map_while(Result::ok);
        let block = blocks.into_iter().find(|block| block.label.ends_with("PRIVATE KEY"));
        let Some(block) = block else {
            let encrypted = text.contains("Proc-Type: 4,ENCRYPTED");
            return Err(if encrypted { "it is encrypted".to_string() } else { NO_BLOCK.to_string() });
        };
        let key = match block.label.as_str() {
            "PRIVATE KEY" => pkcs8(&block.contents),
            "RSA PRIVATE KEY" => rsa_private(&block.contents),
            "EC PRIVATE KEY" => ec_private(&block.contents, None),
            "ENCRYPTED PRIVATE KEY" => return Err("it is encrypted".to_string()),
            other => return Err(format!("keys of kind {other} are not known")),
        };
        key.ok_or_else(|| MALFORMED.to_string())
    }

    /// Whether this is the private half of a public key.
    pub fn belongs_to(&self, public: &PublicKey) -> bool {
        match (self, public) {
            (PrivateKey::Rsa { modulus, exponent }, PublicKey::Rsa { modulus: m, exponent: e }) => {
                modulus == m && exponent == e
            }
            (PrivateKey::Ec { curve, scalar, point: own }, PublicKey::Ec { curve: of, point }) => {
                curve == of && own.as_ref().map_or_else(|| is_point_of(curve, scalar, point), |own| own == point)
            }
            (PrivateKey::Ed25519 { seed }, PublicKey::Other { algorithm, key }) => {
                algorithm == ED25519 && Ed25519KeyPair::from_seed_and_public_key(seed, key).is_ok()
            }
            (PrivateKey::Other { algorithm }, PublicKey::Other { algorithm: of, .. }) => algorithm == of,
            _ => false,
        }
    }
}

/// Computes the public point of a key that was stored without it. Of curves other than these two it cannot be told.
fn is_point_of(curve: &[u8], scalar: &[u8], point: &[u8]) -> bool {
    let algorithm = match curve {
        P256 => &ECDSA_P256_SHA256_ASN1_SIGNING,
        P384 => &ECDSA_P384_SHA384_ASN1_SIGNING,
        _ => return true,
    };
    EcdsaKeyPair::from_private_key_and_public_key(algorithm, scalar, point, &SystemRandom::new()).is_ok()
}

/// `PrivateKeyInfo`, RFC 5208 section 5.
fn pkcs8(bytes: &[u8]) -> Option<PrivateKey> {
    let mut info = der::sequence(bytes)?;
    info.next()?.unsigned()?;
    let mut algorithm = der::sequence_in(info.next()?)?;
    let oid = algorithm.next()?.content(der::OID)?;
    let key = info.next()?.content(der::OCTET_STRING)?;
    match oid {
        RSA | RSA_PSS => rsa_private(key),
        EC => ec_private(key, algorithm.next().and_then(|curve| curve.content(der::OID))),
        ED25519 => {
            let seed = der::parts(key).next()?.content(der::OCTET_STRING)?;
            Some(PrivateKey::Ed25519 { seed: seed.to_vec() })
        }
        other => Some(PrivateKey::Other { algorithm: other.to_vec() }),
    }
}

/// `RSAPrivateKey`, RFC 8017 appendix A.1.2: version, modulus, public exponent, and what only the owner knows.
fn rsa_private(bytes: &[u8]) -> Option<PrivateKey> {
    let numbers: Vec<Der<'_>> = der::sequence(bytes)?.collect();
    let [_, modulus, exponent, _private, _p, _q, ..] = numbers.as_slice() else {
        return None;
    };
    Some(PrivateKey::Rsa { modulus: modulus.unsigned()?.to_vec(), exponent: exponent.unsigned()?.to_vec() })
}

/// `ECPrivateKey`, RFC 5915 section 3; the curve may be said around it.
fn ec_private(bytes: &[u8], curve: Option<&[u8]>) -> Option<PrivateKey> {
    let mut parts = der::sequence(bytes)?;
    parts.next()?.unsigned()?;
    let scalar = parts.next()?.content(der::OCTET_STRING)?.to_vec();
    let (mut own_curve, mut point) = (None, None);
    for part in parts {
        let inner = der::parts(part.content).next();
        match part.tag {
            der::CONTEXT_0 => own_curve = inner?.content(der::OID),
            der::CONTEXT_1 => point = inner?.content(der::BIT_STRING)?.split_first().map(|(_, point)| point.to_vec()),
            _ => {}
        }
    }
    Some(PrivateKey::Ec { curve: own_curve.or(curve)?.to_vec(), scalar, point })
}

/// Whether a JSON Web Key (RFC 7517) has the members of its type, each of a length that is possible. Symmetric keys
/// are not accepted.
pub fn is_jwk(key: &Value) -> bool {
    let bytes = |name: &str| {
        let text = key.get(name)?.as_str()?;
        URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok().filter(|bytes| !bytes.is_empty())
    };
    let length = |name: &str, wanted: usize| bytes(name).is_some_and(|bytes| bytes.len() == wanted);
    // A private part is optional; when present it must be well-formed.
    let optional = |name: &str| key.get(name).is_none_or(|_| bytes(name).is_some());
    let text = |name: &str| key.get(name).and_then(Value::as_str).unwrap_or_default();
    match (text("kty"), text("crv")) {
        ("RSA", _) => bytes("n").is_some() && bytes("e").is_some() && optional("d"),
        ("EC", curve) => {
            let size = match curve {
                "P-256" => 32,
                "P-384" => 48,
                "P-521" => 66,
                _ => return false,
            };
            length("x", size) && length("y", size) && optional("d")
        }
        ("OKP", "Ed25519" | "X25519") => length("x", 32) && optional("d"),
        ("OKP", "Ed448") => length("x", 57) && optional("d"),
        ("OKP", "X448") => length("x", 56) && optional("d"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! pem {
        ($name:literal) => {
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pem/", $name, ".pem"))
        };
    }

    #[test]
    fn a_private_key_belongs_to_one_certificate_in_whatever_form_it_is_written() {
        let rsa = Certificate::read(pem!("cert1")).unwrap();
        let p256 = Certificate::read(pem!("cert2")).unwrap();
        let ed25519 = Certificate::read(pem!("cert3")).unwrap();
        let p521 = Certificate::read(pem!("cert4")).unwrap();
        let all = [&rsa, &p256, &ed25519, &p521];
        let check = |key: &str, owner: usize| {
            let key = PrivateKey::read(key).unwrap();
            for (index, certificate) in all.iter().enumerate() {
                assert_eq!(key.belongs_to(&certificate.key), index == owner, "certificate {}", index + 1);
            }
        };
        check(pem!("key1"), 0);
        check(pem!("key1-pkcs1"), 0);
        check(pem!("key2"), 1);
        check(pem!("key2-sec1"), 1);
        check(pem!("key2-nopub"), 1);
        check(pem!("key3"), 2);
        check(pem!("key4"), 3);
        let other = PrivateKey::read(pem!("ca-key")).unwrap();
        assert!(!other.belongs_to(&rsa.key), "another key of the same type");
        assert!(!rsa.key.same_type(&p256.key) && p256.key.same_type(&p521.key) && !ed25519.key.same_type(&rsa.key));
    }

    #[test]
    fn certificates_say_whether_they_are_authorities() {
        let authority = Certificate::read(pem!("ca")).unwrap();
        assert!(authority.is_ca && authority.not_after_s > 4_000_000_000);
        assert_eq!(authority.digest.len(), 64);
        assert!(!Certificate::read(pem!("cert1")).unwrap().is_ca);
        assert_eq!(Certificate::count(&pem!("ca").repeat(2)), 2);
    }

    #[test]
    fn what_does_not_load_says_why() {
        let cert = |text: &str| Certificate::read(text).err();
        assert_eq!(cert("x").as_deref(), Some(NO_BLOCK));
        assert_eq!(cert(pem!("key1")).as_deref(), Some("a PEM block PRIVATE KEY is not a certificate"));
        assert!(cert("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").is_some());
        let key = |text: &str| PrivateKey::read(text).err();
        assert_eq!(key("x").as_deref(), Some(NO_BLOCK));
        assert_eq!(key(pem!("cert1")).as_deref(), Some(NO_BLOCK));
        assert_eq!(key("-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n").as_deref(), Some(MALFORMED));
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
        assert_eq!(key(encrypted).as_deref(), Some("it is encrypted"));
    }

    #[test]
    fn public_keys_load_and_are_those_of_their_private_halves() {
        let public = PublicKey::read(pem!("key2-public")).unwrap();
        assert!(PrivateKey::read(pem!("key2")).unwrap().belongs_to(&public));
        assert!(PublicKey::read(pem!("key2")).is_err());
    }

    #[test]
    fn any_shortened_or_altered_text_is_refused_or_read_but_never_a_panic() {
        for text in [pem!("cert1"), pem!("key1"), pem!("key2"), pem!("key2-sec1"), pem!("key3")] {
            for end in 0..text.len() {
                let _ = Certificate::read(&text[..end]);
                let _ = PrivateKey::read(&text[..end]);
            }
        }
        let block = first_block(pem!("key2")).unwrap().contents;
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let mut bytes = block.clone();
            for _ in 0..3 {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            let _ = (pkcs8(&bytes), ec_private(&bytes, None), rsa_private(&bytes), PublicKey::of_spki(&bytes));
        }
    }

    #[test]
    fn json_web_keys_have_the_members_of_their_type() {
        let check = |text: &str, want| assert_eq!(is_jwk(&serde_json::from_str(text).unwrap()), want, "{text}");
        let x = "A".repeat(43);
        check(r#"{"kty":"oct","k":"c2VjcmV0"}"#, false);
        check(r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#, true);
        check(r#"{"kty":"RSA","n":"AQAB"}"#, false);
        check(r#"{"kty":"RSA","n":"AQAB","e":"AQAB","d":"*"}"#, false);
        check(&format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{x}"}}"#), true);
        check(&format!(r#"{{"kty":"EC","crv":"P-384","x":"{x}","y":"{x}"}}"#), false);
        check(&format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}"#), true);
        check("[]", false);
    }
}

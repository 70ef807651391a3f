//! Whom probes over TLS trust.

use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::DigitallySignedStruct;
use rustls::RootCertStore;
use rustls::SignatureScheme;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;
use rustls::pki_types::pem::PemObject;

/// Where distributions keep the authorities that they trust; the first that exists counts.
const SYSTEM_FILES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// How probes speak TLS.
pub struct Trust {
    pub verifying: Arc<ClientConfig>,
    pub trusting: Arc<ClientConfig>,
}

impl Trust {
    /// Trusts the authorities in these files; `system` stands for those of the system.
    pub fn new(files: &[String]) -> Self {
        let mut roots = RootCertStore::empty();
        for file in files {
            let system = || SYSTEM_FILES.iter().copied().find(|path| Path::new(path).exists());
            let Some(path) = (if file == "system" { system() } else { Some(file.as_str()) }) else { continue };
            match CertificateDer::pem_file_iter(path) {
                Ok(found) => drop(roots.add_parsable_certificates(found.flatten())),
                Err(error) => tracing::warn!("lua_ssl_trusted_certificate: {path}: {error}"),
            }
        }
        let provider = Arc::new(ring::default_provider());
        let versions = "the provider has these versions";
        let builder = || ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let verifying = builder().expect(versions).with_root_certificates(roots).with_no_client_auth();
        let anybody = Arc::new(Anybody(provider.clone()));
        let trusting = builder().expect(versions).dangerous().with_custom_certificate_verifier(anybody);
        Self { verifying: Arc::new(verifying), trusting: Arc::new(trusting.with_no_client_auth()) }
    }
}

/// For `https_verify_certificate = false`: whoever answers is believed.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

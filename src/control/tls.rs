//! Whom the control plane trusts when it speaks TLS, and by which certificate it shows who asks.
//! Always: that a server is not verified is asked for each time.

use std::collections::HashMap;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;

use rustls::ClientConfig;
use rustls::ConfigBuilder;
use rustls::DigitallySignedStruct;
use rustls::RootCertStore;
use rustls::SignatureScheme;
use rustls::client::WantsClientCert;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;
use rustls::pki_types::pem::PemObject;
use uuid::Uuid;

/// Where distributions keep the authorities that they trust; the first that exists counts.
const SYSTEM_FILES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The certificate of this id and its key, in PEM; `None`: there is no such certificate.
pub type FindCertificate = Box<dyn Fn(Uuid) -> Option<(String, String)> + Send + Sync>;

/// How clients of the control plane speak TLS.
pub struct Trust {
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    verifying: Arc<ClientConfig>,
    trusting: Arc<ClientConfig>,
    find: FindCertificate,
    /// By certificate and whether the server is verified.
    showing: Mutex<HashMap<(Uuid, bool), Showing>>,
}

/// How to show a certificate, as it was when this was made.
struct Showing {
    pem: (String, String),
    /// The problem with the certificate instead.
    config: Result<Arc<ClientConfig>, String>,
}

impl Trust {
    /// Trusts the authorities in these files; `system` stands for those of the system.
    ///
    /// # Errors
    /// The file that cannot be read, or that holds no certificate.
    pub fn new(files: &[String], find: FindCertificate) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for file in files {
            let system = || SYSTEM_FILES.iter().copied().find(|path| Path::new(path).exists());
            let Some(path) = (if file == "system" { system() } else { Some(file.as_str()) }) else { continue };
            let wrong = |what: &dyn Display| format!("lua_ssl_trusted_certificate: {path}: {what}");
            let found = CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))?;
            let (added, _) = roots.add_parsable_certificates(found.flatten());
            if added == 0 && file != "system" {
                return Err(wrong(&"there is no certificate in it"));
            }
        }
        let (provider, roots) = (Arc::new(ring::default_provider()), Arc::new(roots));
        let config = |verifies| Arc::new(builder(&provider, &roots, verifies).with_no_client_auth());
        let (verifying, trusting) = (config(true), config(false));
        Ok(Self { provider, roots, verifying, trusting, find, showing: Mutex::default() })
    }

    /// How to probe: whether the server must prove who it is, and with which certificate we do, if with any.
    pub fn config(&self, verifies: bool, shown: Option<Uuid>) -> Arc<ClientConfig> {
        let plain = if verifies { &self.verifying } else { &self.trusting };
        let Some((id, pem)) = shown.and_then(|id| Some((id, (self.find)(id)?))) else { return plain.clone() };
        let mut showing = self.showing.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if showing.get(&(id, verifies)).is_none_or(|known| known.pem != pem) {
            let config = self.with_certificate(verifies, &pem);
            if let Err(problem) = &config {
                tracing::warn!("certificate {id}: {problem}; probes do not show it");
            }
            showing.insert((id, verifies), Showing { pem, config });
        }
        match showing.get(&(id, verifies)) {
            Some(Showing { config: Ok(config), .. }) => config.clone(),
            _ => plain.clone(),
        }
    }

    fn with_certificate(&self, verifies: bool, (cert, key): &(String, String)) -> Result<Arc<ClientConfig>, String> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert.as_bytes()).collect();
        let chain = chain.map_err(|error| error.to_string())?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| error.to_string())?;
        let config = builder(&self.provider, &self.roots, verifies).with_client_auth_cert(chain, key);
        config.map(Arc::new).map_err(|error| error.to_string())
    }
}

fn builder(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    verifies: bool,
) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let builder = ClientConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().expect("the provider has these versions");
    match verifies {
        true => builder.with_root_certificates(roots.clone()),
        false => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider.clone()))),
    }
}

/// For `https_verify_certificate = false` and its likes: whoever answers is believed.
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

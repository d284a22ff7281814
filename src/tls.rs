//! TLS: what peers must show, and what we show.
//!
//! Certificates are always verified: against the system's roots, a CA file, or a pinned key. There
//! is no switch that turns verification off.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use aws_lc_rs::digest;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use thiserror::Error;

/// SHA-256 of a `SubjectPublicKeyInfo` (RFC 7469 §2.4).
pub type Pin = [u8; 32];

/// What the configuration says about TLS towards one peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// Roots to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Keys to trust. Alone they replace chain, name and dates, which is how a self-signed
    /// appliance is accepted; beside `ca_file` both must hold.
    pub pins: Vec<Pin>,
    /// The name to ask for and to verify instead of the URL's host.
    pub server_name: Option<String>,
    /// Certificate chain and key to show, in PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl TlsSettings {
    /// Every file that they name.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let identity = self.identity.iter().flat_map(|(certificate, key)| [certificate, key]);
        self.ca_file.iter().chain(identity)
    }
}

/// What the configuration says about TLS listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsIdentity {
    /// Certificate chain, in PEM.
    pub certificate: PathBuf,
    /// Its key, in PEM.
    pub key: PathBuf,
    /// Callers must show a certificate under one of these roots.
    pub client_ca_file: Option<PathBuf>,
}

/// Why TLS could not be set up.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A PEM file is missing or holds something else.
    #[error("cannot read {what} from {path}")]
    Pem {
        /// What should be in it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: rustls::pki_types::pem::Error,
    },
    /// A file without any certificate.
    #[error("{0} holds no certificate")]
    NoCertificate(PathBuf),
    /// This machine has no trust store.
    #[error("no system root certificates found; name a ca_file")]
    NoRoots,
    /// A certificate that cannot be trusted.
    #[error("{path} holds a certificate that cannot be a root")]
    Root {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// They cannot be shown.
    #[error("{files} cannot be used together")]
    Identity {
        /// The files with the certificate and the key.
        files: String,
        /// What is wrong with them.
        source: rustls::Error,
    },
    /// No version of TLS that both the library and the crypto provider know.
    #[error("TLS 1.2 and 1.3 are not to be had")]
    Versions(#[from] rustls::Error),
    /// The roots cannot be used.
    #[error("unusable root certificates")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// Whether a certificate could be for `host`: a name, or an address without brackets.
#[must_use]
pub fn is_name(host: &str) -> bool {
    ServerName::try_from(host).is_ok()
}

/// Builds the client side of TLS 1.2 and 1.3 from the files as they are now.
///
/// # Errors
/// [`TlsError`] names the file.
pub fn client(settings: &TlsSettings) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = match (&settings.ca_file, settings.pins.is_empty()) {
        (Some(path), _) => Some(roots_from(path)?),
        (None, true) => Some(system_roots()?),
        (None, false) => None,
    };
    let chain = chain
        .map(|roots| WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build())
        .transpose()?;
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let builder = match (chain, settings.pins.as_slice()) {
        (Some(chain), []) => builder.with_webpki_verifier(chain),
        (chain, pins) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(PinVerifier {
                chain,
                pins: pins.to_vec(),
                provider,
            }))
        }
    };
    Ok(Arc::new(match &settings.identity {
        Some((certificate, key)) => {
            let (chain, secret) = (certificates(certificate)?, private_key(key)?);
            builder.with_client_auth_cert(chain, secret).map_err(not_together(certificate, key))?
        }
        None => builder.with_no_client_auth(),
    }))
}

/// Builds the server side of TLS 1.2 and 1.3 from the files as they are now. It agrees on HTTP/2
/// with who can speak that (ALPN).
///
/// # Errors
/// [`TlsError`] names the file.
pub fn server(identity: &TlsIdentity) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let builder = match &identity.client_ca_file {
        Some(path) => {
            let roots = roots_from(path)?;
            let clients = WebPkiClientVerifier::builder_with_provider(roots, provider).build()?;
            builder.with_client_cert_verifier(clients)
        }
        None => builder.with_no_client_auth(),
    };
    let TlsIdentity { certificate, key, .. } = identity;
    let (chain, secret) = (certificates(certificate)?, private_key(key)?);
    let mut config =
        builder.with_single_cert(chain, secret).map_err(not_together(certificate, key))?;
    config.alpn_protocols = [&b"h2"[..], b"http/1.1"].map(<[u8]>::to_vec).to_vec();
    Ok(Arc::new(config))
}

fn not_together(certificate: &Path, key: &Path) -> impl FnOnce(rustls::Error) -> TlsError {
    let files = format!("{} and {}", certificate.display(), key.display());
    move |source| TlsError::Identity { files, source }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let error = |source| TlsError::Pem { what: "a private key", path: path.to_owned(), source };
    PrivateKeyDer::from_pem_file(path).map_err(error)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = |source| TlsError::Pem { what: "certificates", path: path.to_owned(), source };
    let certificates: Vec<_> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(error)?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate(path.to_owned()));
    }
    Ok(certificates)
}

fn roots_from(path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        let root = |source| TlsError::Root { path: path.to_owned(), source };
        roots.add(certificate).map_err(root)?;
    }
    Ok(Arc::new(roots))
}

/// The system's roots, loaded once and only if something needs them.
fn system_roots() -> Result<Arc<RootCertStore>, TlsError> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    });
    if roots.is_empty() { Err(TlsError::NoRoots) } else { Ok(Arc::clone(roots)) }
}

/// Accepts a certificate whose public key is pinned, and whose chain holds if one is asked for.
#[derive(Debug)]
struct PinVerifier {
    chain: Option<Arc<WebPkiServerVerifier>>,
    pins: Vec<Pin>,
    provider: Arc<CryptoProvider>,
}

impl PinVerifier {
    fn pinned(&self, certificate: &CertificateDer<'_>) -> bool {
        webpki::EndEntityCert::try_from(certificate).is_ok_and(|certificate| {
            let key = certificate.subject_public_key_info();
            let digest = digest::digest(&digest::SHA256, key.as_ref());
            self.pins.iter().any(|pin| pin == digest.as_ref())
        })
    }
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if !self.pinned(end_entity) {
            return Err(rustls::CertificateError::ApplicationVerificationFailure.into());
        }
        match &self.chain {
            Some(chain) => {
                chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
            None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

//! A self-signed certificate for 127.0.0.1 and localhost, as an appliance makes for itself (V-E1), or
//! one that an authority of its own has signed, as a cluster's.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PublicKeyData,
};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

/// Whether a server speaks TLS, and as whom.
#[derive(Clone, Debug)]
pub enum Tls {
    /// Plain HTTP.
    Off,
    /// TLS 1.2 and 1.3 with this certificate.
    On(Certificate),
}

impl Tls {
    /// TLS with a fresh self-signed certificate.
    pub fn self_signed() -> Self {
        Self::On(Certificate::self_signed(None))
    }

    /// TLS with a certificate for `names` that an authority of its own has signed;
    /// [`Certificate::pem`] is the authority's.
    pub fn own_authority(names: &[&str]) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // With the name of what it signs, some would take that for signed by itself.
        params.distinguished_name.push(DnType::CommonName, "an authority");
        let key = KeyPair::generate().expect("a key can be made");
        let authority =
            CertifiedIssuer::self_signed(params, key).expect("the parameters are valid");
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = parameters(names).signed_by(&key, &authority).expect("both keys sign");
        Self::On(Certificate::new(&key, &certificate, authority.pem(), None))
    }

    /// TLS that also demands the client certificate returned.
    pub fn mutual() -> (Self, ClientCertificate) {
        let (key, certificate) = fresh(&["client.test"]);
        let client = ClientCertificate { pem: certificate.pem(), key_pem: key.serialize_pem() };
        (Self::On(Certificate::self_signed(Some(certificate.der().clone()))), client)
    }
}

/// A client's certificate and key, PEM.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// The certificate.
    pub pem: String,
    /// Its private key, PKCS#8.
    pub key_pem: String,
}

/// A server's own certificate.
#[derive(Clone)]
pub struct Certificate {
    pem: String,
    pin: String,
    config: Arc<ServerConfig>,
}

impl Certificate {
    fn self_signed(client: Option<CertificateDer<'static>>) -> Self {
        // rcgen turns a name that reads as an address into an IP SAN.
        let (key, certificate) = fresh(&["127.0.0.1", "localhost"]);
        Self::new(&key, &certificate, certificate.pem(), client)
    }

    /// `pem` is what a client has to trust.
    fn new(
        key: &KeyPair,
        certificate: &rcgen::Certificate,
        pem: String,
        client: Option<CertificateDer<'static>>,
    ) -> Self {
        let spki = digest(&SHA256, &key.subject_public_key_info());
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for TLS 1.2 and 1.3");
        let builder = match client {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let mut roots = RootCertStore::empty();
                roots.add(client).expect("a fresh certificate is a trust anchor");
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                        .build()
                        .expect("there is one trust anchor");
                builder.with_client_cert_verifier(verifier)
            }
        };
        let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = builder
            .with_single_cert(vec![certificate.der().clone()], private)
            .expect("key and certificate belong together");
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { pem, pin: BASE64_STANDARD.encode(spki), config: Arc::new(config) }
    }

    /// PEM, for `tls.ca_file`.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Base64 of the SHA-256 of the SubjectPublicKeyInfo, for `tls.pin_sha256`.
    pub fn pin_sha256(&self) -> &str {
        &self.pin
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("pin", &self.pin).finish_non_exhaustive()
    }
}

fn fresh(names: &[&str]) -> (KeyPair, rcgen::Certificate) {
    let key = KeyPair::generate().expect("a key can be made");
    let certificate = parameters(names).self_signed(&key).expect("the key signs");
    (key, certificate)
}

fn parameters(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    CertificateParams::new(names).expect("the names are valid")
}

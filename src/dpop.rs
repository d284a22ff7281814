//! Proofs that whoever sends a token has the key that it is bound to (RFC 9449).
//!
//! One proof for each request: it names method and URL, and is good once. Servers may want a nonce
//! of theirs in it; each one's newest is remembered here. Who needs a proof is others' business.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;
use thiserror::Error;

use crate::clock::{Moment, epoch_seconds};
use crate::secret::Secret;

/// The header field that a proof goes into (RFC 9449 §4.1).
pub const DPOP: HeaderName = HeaderName::from_static("dpop");
/// The header field that a nonce comes in (§8).
const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");
/// Longer nonces are not kept; there is no bound in the RFC, but in header blocks there is.
const MAX_NONCE_BYTES: usize = 1024;

/// A key that tokens are bound to, and what servers want to see in its proofs.
pub struct Prover {
    key: EncodingKey,
    header: Header,
    /// The newest nonce of each server, by its origin; origins come from the configuration.
    nonces: Mutex<HashMap<String, String>>,
}

/// Why there is no key to prove with.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ProverError {
    /// Something else than P-256.
    #[error("is no P-256 key")]
    Key,
}

impl Prover {
    /// With a key made now, which ends with it.
    ///
    /// # Errors
    /// The system gives no random bits.
    pub fn generate() -> Result<Self, ProverError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
        Self::new(&pair.map_err(|_| ProverError::Key)?)
    }

    /// With a P-256 key in PKCS#8.
    ///
    /// # Errors
    /// [`ProverError::Key`]
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, ProverError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der);
        Self::new(&pair.map_err(|_| ProverError::Key)?)
    }

    fn new(pair: &EcdsaKeyPair) -> Result<Self, ProverError> {
        let der = pair.to_pkcs8v1().map_err(|_| ProverError::Key)?;
        // An uncompressed point (SEC 1 §2.3.3): 4, then both coordinates.
        let point = pair.public_key().as_ref().get(1..65).ok_or(ProverError::Key)?;
        let (x, y) = point.split_at(32);
        let encode = |number: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(number);
        let jwk = json!({ "kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y) });
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some("dpop+jwt".to_owned());
        header.jwk = Some(serde_json::from_value::<Jwk>(jwk).map_err(|_| ProverError::Key)?);
        let key = EncodingKey::from_ec_der(der.as_ref());
        Ok(Self { key, header, nonces: Mutex::default() })
    }

    /// A proof for one request to `path` at `origin` (`https://api.example`), with the digest of the
    /// token that it carries, if any (RFC 9449 §4.2). `None` if it cannot be signed.
    #[must_use]
    pub fn proof(
        &self,
        now: Moment,
        method: &Method,
        origin: &str,
        path: &str,
        token_hash: Option<&str>,
    ) -> Option<HeaderValue> {
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).ok()?;
        let mut claims = json!({
            "jti": BASE64_URL_SAFE_NO_PAD.encode(id),
            "htm": method.as_str(),
            "htu": format!("{origin}{path}"),
            "iat": epoch_seconds(now.wall),
        });
        if let Some(hash) = token_hash {
            claims["ath"] = hash.into();
        }
        if let Some(nonce) = self.nonces().get(origin) {
            claims["nonce"] = nonce.as_str().into();
        }
        let proof = jsonwebtoken::encode(&self.header, &claims, &self.key).ok()?;
        HeaderValue::from_str(&proof).ok()
    }

    /// Keeps the nonce that an answer of `origin` brings (RFC 9449 §8.2); true if it brings one.
    pub fn remember(&self, origin: &str, headers: &HeaderMap) -> bool {
        let nonce = headers.get(DPOP_NONCE).and_then(|nonce| nonce.to_str().ok());
        let Some(nonce) = nonce.filter(|n| !n.is_empty() && n.len() <= MAX_NONCE_BYTES) else {
            return false;
        };
        self.nonces().insert(origin.to_owned(), nonce.to_owned());
        true
    }

    fn nonces(&self) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
        self.nonces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Prover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prover(…)")
    }
}

/// The `ath` of a token: the SHA-256 of its text (RFC 9449 §4.2).
#[must_use]
pub fn token_hash(token: &Secret) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, token.expose().as_bytes()))
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation};
    use serde_json::Value;

    use super::*;

    fn claims(proof: &HeaderValue) -> Value {
        let text = proof.to_str().unwrap();
        let header = jsonwebtoken::decode_header(text).unwrap();
        assert_eq!(header.typ.as_deref(), Some("dpop+jwt"));
        let key = DecodingKey::from_jwk(&header.jwk.unwrap()).unwrap();
        let mut validation = Validation::new(Algorithm::ES256);
        validation.required_spec_claims.clear();
        jsonwebtoken::decode::<Value>(text, &key, &validation).unwrap().claims
    }

    #[test]
    fn rule_54_a_proof_names_its_request_and_its_token_and_is_good_once() {
        let prover = Prover::generate().unwrap();
        let prove = |hash| {
            prover.proof(Moment::now(), &Method::PUT, "https://api.example:8443", "/a/b", hash)
        };
        let hash = token_hash(&Secret::new("token".to_owned()));
        let (one, other) = (claims(&prove(Some(&hash)).unwrap()), claims(&prove(None).unwrap()));
        assert_eq!(
            (&one["htm"], &one["htu"]),
            (&json!("PUT"), &json!("https://api.example:8443/a/b"))
        );
        // printf token | openssl dgst -sha256 -binary | basenc --base64url
        assert_eq!(one["ath"], "PEaenWxYddN6Q_NT1PiOYfz4EsZu7jRXRlpAsNpBU-A");
        assert_eq!((other.get("ath"), other.get("nonce")), (None, None));
        assert_ne!(one["jti"], other["jti"]);
    }

    #[test]
    fn rule_54_nonces_belong_to_their_servers() {
        let prover = Prover::generate().unwrap();
        let nonce = |text: &str| HeaderMap::from_iter([(DPOP_NONCE, text.parse().unwrap())]);
        assert!(prover.remember("https://a", &nonce("one")));
        assert!(prover.remember("https://b", &nonce("two")));
        assert!(!prover.remember("https://a", &HeaderMap::new()));
        assert!(!prover.remember("https://a", &nonce(&"x".repeat(2000))));
        for (origin, expected) in [("https://a", json!("one")), ("https://b", json!("two"))] {
            let proof = prover.proof(Moment::now(), &Method::GET, origin, "/", None).unwrap();
            assert_eq!(claims(&proof)["nonce"], expected);
        }
        let other = prover.proof(Moment::now(), &Method::GET, "https://c", "/", None).unwrap();
        assert_eq!(claims(&other).get("nonce"), None);
    }
}

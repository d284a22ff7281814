//! Private keys that sign assertions: PEM (PKCS#1, PKCS#8, SEC1) or a JWK (RFC 7517).
//!
//! The key says which algorithms it can sign with; `jsonwebtoken` signs.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, RsaKeyPair,
};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;
use serde_json::{Map, Value};
use thiserror::Error;
use zeroize::Zeroizing;

use super::der;

/// Every algorithm that can be asked for, by its name in RFC 7518 §3.1 and RFC 8037 §3.1.
pub const ALGORITHMS: [(&str, Algorithm); 12] = [
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
    ("HS256", Algorithm::HS256),
    ("HS384", Algorithm::HS384),
    ("HS512", Algorithm::HS512),
];

const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];
/// The members of an RSA key as a JWK (RFC 7518 §6.3), in the order of RFC 8017 §A.1.2.
const RSA_NUMBERS: [&str; 8] = ["n", "e", "d", "p", "q", "dp", "dq", "qi"];
const HMAC: [Algorithm; 3] = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];

/// A key that signs.
pub struct SigningKey {
    key: EncodingKey,
    /// What it can sign with; the first is what it does unless told otherwise.
    algorithms: &'static [Algorithm],
    /// `kid` and `alg` of a JWK.
    key_id: Option<String>,
    algorithm: Option<Algorithm>,
}

/// Why a text is no key that signs. Nothing of the text is in the message.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum KeyError {
    /// Neither PEM nor JSON.
    #[error("is no private key in PEM and no JWK")]
    Form,
    /// Encrypted, a public key, or of a kind that is not known.
    #[error("is no private key that can sign: RSA, P-256, P-384 or Ed25519, not encrypted")]
    Kind,
    /// The algorithm belongs to another kind of key.
    #[error("cannot sign with that algorithm")]
    Algorithm,
}

impl SigningKey {
    /// Reads a private key.
    ///
    /// # Errors
    /// [`KeyError`]
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        if text.starts_with('{') {
            return Self::from_jwk(text);
        }
        if !text.contains("-----BEGIN ") {
            return Err(KeyError::Form);
        }
        match PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| KeyError::Kind)? {
            PrivateKeyDer::Pkcs1(der) => Self::rsa(der.secret_pkcs1_der()),
            PrivateKeyDer::Sec1(der) => Self::ec(|curve| {
                EcdsaKeyPair::from_private_key_der(curve, der.secret_sec1_der()).ok()
            }),
            PrivateKeyDer::Pkcs8(der) => Self::from_pkcs8(der.secret_pkcs8_der()),
            _ => Err(KeyError::Kind),
        }
    }

    /// A client secret as the key of an HMAC (`client_secret_jwt`).
    #[must_use]
    pub fn from_secret(secret: &str) -> Self {
        Self::new(EncodingKey::from_secret(secret.as_bytes()), &HMAC)
    }

    /// The key in PKCS#8, if it is for ES256.
    #[must_use]
    pub fn p256(&self) -> Option<&[u8]> {
        (self.algorithms == [Algorithm::ES256]).then(|| self.key.as_bytes())
    }

    /// Signs `claims` with `algorithm`, or with what the key is for; `key_id` goes before the
    /// key's own.
    ///
    /// # Errors
    /// [`KeyError::Algorithm`]
    pub fn sign(
        &self,
        claims: &impl Serialize,
        algorithm: Option<Algorithm>,
        key_id: Option<&str>,
    ) -> Result<Zeroizing<String>, KeyError> {
        let algorithm = algorithm.or(self.algorithm).unwrap_or(self.algorithms[0]);
        if !self.algorithms.contains(&algorithm) {
            return Err(KeyError::Algorithm);
        }
        let mut header = Header::new(algorithm);
        header.kid = key_id.map(str::to_owned).or_else(|| self.key_id.clone());
        let signed = jsonwebtoken::encode(&header, claims, &self.key);
        signed.map(Zeroizing::new).map_err(|_| KeyError::Kind)
    }

    fn new(key: EncodingKey, algorithms: &'static [Algorithm]) -> Self {
        Self { key, algorithms, key_id: None, algorithm: None }
    }

    fn rsa(pkcs1: &[u8]) -> Result<Self, KeyError> {
        RsaKeyPair::from_der(pkcs1).map_err(|_| KeyError::Kind)?;
        Ok(Self::new(EncodingKey::from_rsa_der(pkcs1), &RSA))
    }

    fn ec(
        pair: impl Fn(&'static EcdsaSigningAlgorithm) -> Option<EcdsaKeyPair>,
    ) -> Result<Self, KeyError> {
        const CURVES: [(&EcdsaSigningAlgorithm, &[Algorithm]); 2] = [
            (&ECDSA_P256_SHA256_FIXED_SIGNING, &[Algorithm::ES256]),
            (&ECDSA_P384_SHA384_FIXED_SIGNING, &[Algorithm::ES384]),
        ];
        for (curve, algorithms) in CURVES {
            if let Some(der) = pair(curve).and_then(|pair| pair.to_pkcs8v1().ok()) {
                return Ok(Self::new(EncodingKey::from_ec_der(der.as_ref()), algorithms));
            }
        }
        Err(KeyError::Kind)
    }

    fn ed25519(pkcs8: &[u8]) -> Self {
        Self::new(EncodingKey::from_ed_der(pkcs8), &[Algorithm::EdDSA])
    }

    fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, KeyError> {
        if RsaKeyPair::from_pkcs8(pkcs8).is_ok() {
            return Self::rsa(der::inside_pkcs8(pkcs8).ok_or(KeyError::Kind)?);
        }
        if Ed25519KeyPair::from_pkcs8(pkcs8).is_ok() {
            return Ok(Self::ed25519(pkcs8));
        }
        Self::ec(|curve| EcdsaKeyPair::from_pkcs8(curve, pkcs8).ok())
    }

    /// RFC 7518 §6.2.2 and §6.3.2, RFC 8037 §2.
    fn from_jwk(text: &str) -> Result<Self, KeyError> {
        let jwk: Map<String, Value> = serde_json::from_str(text).map_err(|_| KeyError::Form)?;
        let word = |name: &str| jwk.get(name).and_then(Value::as_str);
        let number = |name: &str| -> Result<Zeroizing<Vec<u8>>, KeyError> {
            let bytes = word(name).and_then(|text| BASE64_URL_SAFE_NO_PAD.decode(text).ok());
            bytes.map(Zeroizing::new).ok_or(KeyError::Kind)
        };
        let mut key = match word("kty") {
            Some("RSA") => {
                let numbers: Vec<_> =
                    RSA_NUMBERS.into_iter().map(number).collect::<Result<_, _>>()?;
                Self::rsa(&der::rsa_private_key(&numbers))?
            }
            Some("EC") => {
                let (d, x, y) = (number("d")?, number("x")?, number("y")?);
                let point = [&[4][..], &x, &y].concat();
                Self::ec(|curve| {
                    EcdsaKeyPair::from_private_key_and_public_key(curve, &d, &point).ok()
                })?
            }
            Some("OKP") => {
                let pair = Ed25519KeyPair::from_seed_and_public_key(&number("d")?, &number("x")?);
                let der = pair.ok().and_then(|pair| pair.to_pkcs8().ok()).ok_or(KeyError::Kind)?;
                Self::ed25519(der.as_ref())
            }
            _ => return Err(KeyError::Kind),
        };
        key.key_id = word("kid").map(str::to_owned);
        if let Some(wanted) = word("alg") {
            let known = algorithm(wanted).filter(|known| key.algorithms.contains(known));
            key.algorithm = Some(known.ok_or(KeyError::Algorithm)?);
        }
        Ok(key)
    }
}

/// The algorithm of that name.
#[must_use]
pub fn algorithm(name: &str) -> Option<Algorithm> {
    ALGORITHMS.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsBigEndian, AsDer, Curve25519SeedBin, EcPrivateKeyRfc5915Der};
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::KeyPair;
    use base64::prelude::BASE64_STANDARD;
    use jsonwebtoken::{DecodingKey, Validation};
    use serde_json::json;

    use super::*;

    fn pem(label: &str, der: &[u8]) -> String {
        let text = BASE64_STANDARD.encode(der);
        let lines: Vec<&str> =
            text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
    }

    fn base64url(bytes: &[u8]) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Signs and verifies.
    fn signs(text: &str, algorithm: Option<Algorithm>, expected: Algorithm, public: &DecodingKey) {
        let key = SigningKey::parse(text).unwrap();
        let jwt = key.sign(&json!({ "n": 1 }), algorithm, None).unwrap();
        let mut validation = Validation::new(expected);
        validation.required_spec_claims.clear();
        let verified = jsonwebtoken::decode::<Value>(&*jwt, public, &validation);
        assert_eq!(verified.unwrap().claims["n"], 1, "{expected:?}");
    }

    #[test]
    fn rsa_keys_are_read_in_every_form() {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let pkcs8 = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der>::as_der(&pair).unwrap();
        let pkcs1 = der::inside_pkcs8(pkcs8.as_ref()).unwrap();
        let public = DecodingKey::from_rsa_der(pair.public_key().as_ref());
        let numbers = der::integers(pkcs1).unwrap();
        let mut jwk = json!({ "kty": "RSA" });
        for (name, number) in RSA_NUMBERS.iter().zip(&numbers[1..]) {
            jwk[name] = base64url(number).into();
        }
        for text in [
            pem("PRIVATE KEY", pkcs8.as_ref()),
            format!("\r\n{}", pem("RSA PRIVATE KEY", pkcs1).replace('\n', "\r\n")),
            jwk.to_string(),
        ] {
            signs(&text, None, Algorithm::RS256, &public);
            for algorithm in RSA {
                signs(&text, Some(algorithm), algorithm, &public);
            }
            let key = SigningKey::parse(&text).unwrap();
            let other = key.sign(&json!({}), Some(Algorithm::ES256), None);
            assert_eq!(other.unwrap_err(), KeyError::Algorithm);
        }
    }

    #[test]
    fn elliptic_keys_are_read_in_every_form() {
        for (curve, name, length, algorithm) in [
            (&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256", 32, Algorithm::ES256),
            (&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384", 48, Algorithm::ES384),
        ] {
            let pair = EcdsaKeyPair::generate(curve).unwrap();
            let point = pair.public_key().as_ref();
            let public = DecodingKey::from_ec_der(point);
            let private = pair.private_key();
            let number =
                AsBigEndian::<aws_lc_rs::encoding::EcPrivateKeyBin>::as_be_bytes(&private).unwrap();
            let sec1 = AsDer::<EcPrivateKeyRfc5915Der>::as_der(&private).unwrap();
            let (x, y) = point[1..].split_at(length);
            let jwk = json!({ "kty": "EC", "crv": name, "x": base64url(x), "y": base64url(y),
                "d": base64url(number.as_ref()) });
            for text in [
                pem("PRIVATE KEY", pair.to_pkcs8v1().unwrap().as_ref()),
                pem("EC PRIVATE KEY", sec1.as_ref()),
                jwk.to_string(),
            ] {
                signs(&text, None, algorithm, &public);
            }
        }
    }

    #[test]
    fn edwards_keys_are_read_in_every_form() {
        let pair = Ed25519KeyPair::generate().unwrap();
        let public = DecodingKey::from_ed_der(pair.public_key().as_ref());
        let seed = pair.seed().unwrap();
        let seed = AsBigEndian::<Curve25519SeedBin>::as_be_bytes(&seed).unwrap();
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "d": base64url(seed.as_ref()),
            "x": base64url(pair.public_key().as_ref()) });
        for text in [
            pem("PRIVATE KEY", pair.to_pkcs8v1().unwrap().as_ref()),
            pem("PRIVATE KEY", pair.to_pkcs8().unwrap().as_ref()),
            jwk.to_string(),
        ] {
            signs(&text, None, Algorithm::EdDSA, &public);
        }
    }

    #[test]
    fn a_jwk_says_its_id_and_algorithm_and_the_configuration_goes_first() {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let private = pair.private_key();
        let number =
            AsBigEndian::<aws_lc_rs::encoding::EcPrivateKeyBin>::as_be_bytes(&private).unwrap();
        let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
        let jwk = |alg: &str| {
            let jwk = json!({ "kty": "EC", "crv": "P-256", "x": base64url(x), "y": base64url(y),
                "d": base64url(number.as_ref()), "kid": "own", "alg": alg });
            SigningKey::parse(&jwk.to_string())
        };
        let key = jwk("ES256").unwrap();
        for (configured, expected) in [(None, "own"), (Some("other"), "other")] {
            let jwt = key.sign(&json!({}), None, configured).unwrap();
            let header = jsonwebtoken::decode_header(&*jwt).unwrap();
            assert_eq!(header.kid.as_deref(), Some(expected));
        }
        for alg in ["ES384", "RS256", "none", "HS256"] {
            assert_eq!(jwk(alg).err(), Some(KeyError::Algorithm), "{alg}");
        }
    }

    #[test]
    fn what_is_no_key_is_told_without_its_text() {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let encrypted = pem("ENCRYPTED PRIVATE KEY", pair.to_pkcs8v1().unwrap().as_ref());
        for (text, expected) in [
            ("", KeyError::Form),
            ("secret", KeyError::Form),
            ("{\"kty\":", KeyError::Form),
            ("{\"kty\":\"RSA\"}", KeyError::Kind),
            ("{\"kty\":\"oct\",\"k\":\"c2VjcmV0\"}", KeyError::Kind),
            (&pem("PUBLIC KEY", b"x"), KeyError::Kind),
            (&pem("PRIVATE KEY", b"x"), KeyError::Kind),
            (&encrypted, KeyError::Kind),
        ] {
            assert_eq!(SigningKey::parse(text).err(), Some(expected), "{text}");
        }
    }
}

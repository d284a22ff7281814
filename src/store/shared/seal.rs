//! How a document lies in a register: as JSON with a format number, and encrypted if there is a key.
//!
//! AES-256-GCM with a random nonce for each write. The register's name is authenticated too, so that
//! content cannot be moved to another one; the key's id stands beside it, so that a wrong key is told
//! from damage. With a key nothing is taken that was not made with it: whoever can write to the
//! engine cannot put tokens of his own in place.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use super::document::Document;
use super::{Content, MAX_CONTENT_BYTES};
use crate::secret::{Fingerprint, Secret, SecretError, SecretRef};

/// The version that is written, and the only one that is read.
const FORMAT: u32 = 1;
/// AES-256.
const KEY_BYTES: usize = 32;

/// Why a document cannot be written or read. Shows nothing of either.
#[derive(Debug, Error)]
pub enum SealError {
    /// The key cannot be read.
    #[error("the encryption key is not there")]
    Key(#[from] SecretError),
    /// It is no key.
    #[error("{0} holds no key: write 32 random bytes in base64 (openssl rand -base64 32)")]
    NoKey(String),
    /// What lies there was not made by this version.
    #[error("holds something that this version of bearerd did not write")]
    Foreign,
    /// Encrypted, and there is no key.
    #[error("is encrypted with the key {0}: write encryption_key in store_options")]
    KeyWanted(KeyId),
    /// Not encrypted, and there is a key.
    #[error("is not encrypted, and encryption_key is set: take that out, or delete what is there")]
    NotEncrypted,
    /// Another key.
    #[error("is encrypted with the key {held}, and {place} holds the key {given}")]
    OtherKey {
        /// The id of the key that it was made with.
        held: KeyId,
        /// Where the configured one is.
        place: String,
        /// Its id.
        given: KeyId,
    },
    /// The right key, and not what it made, or not for this register.
    #[error("does not match its seal: it was changed, or belongs to another register")]
    Broken,
    /// More than the engine is asked to hold.
    #[error("would be larger than 256 KiB")]
    TooLarge,
}

#[derive(Serialize, Deserialize)]
struct Plain {
    format: u32,
    document: Document,
}

#[derive(Serialize, Deserialize)]
struct Encrypted {
    format: u32,
    key: KeyId,
    /// Nonce, ciphertext and tag, in base64.
    sealed: String,
}

#[derive(Deserialize)]
struct Version {
    format: u32,
    key: Option<KeyId>,
}

/// The beginning of a key's digest: tells keys apart and nothing about them. Whoever can write to the
/// engine chooses what is read here, and it is shown: so nothing else is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct KeyId(String);

/// Hexadecimal digits.
const ID_DIGITS: usize = 8;

impl KeyId {
    fn of(key: &[u8]) -> Self {
        Self(Fingerprint::of(key).to_hex()[..ID_DIGITS].to_owned())
    }
}

impl TryFrom<String> for KeyId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let hex = text.len() == ID_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if hex { Ok(Self(text)) } else { Err("no key's id") }
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Seals and opens what lies in one register.
pub struct Seal {
    register: String,
    key: Option<SecretRef>,
}

impl Seal {
    /// For the register of that name; the key is read at each use.
    #[must_use]
    pub fn new(register: String, key: Option<SecretRef>) -> Self {
        Self { register, key }
    }

    /// What to write for `document`.
    ///
    /// # Errors
    /// [`SealError`] about the key.
    pub fn seal(&self, document: &Document) -> Result<Content, SealError> {
        let plain = Plain { format: FORMAT, document: document.clone() };
        let mut content = json(&plain);
        if let Some(place) = &self.key {
            let Key { id, key } = Key::read(place)?;
            let mut sealed = Zeroizing::new(serde_json::to_vec(document).unwrap_or_default());
            let nonce = key.seal_in_place_append_tag(self.context(), &mut *sealed);
            let nonce = nonce.map_err(|_| SealError::Broken)?;
            let whole = [nonce.as_ref().as_slice(), sealed.as_slice()].concat();
            content = json(&Encrypted { format: FORMAT, key: id, sealed: STANDARD.encode(whole) });
        }
        if content.len() > MAX_CONTENT_BYTES { Err(SealError::TooLarge) } else { Ok(content) }
    }

    /// The document in `content`.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn open(&self, content: &[u8]) -> Result<Document, SealError> {
        let document = self.unwrap(content)?;
        if document.is_plausible() { Ok(document) } else { Err(SealError::Foreign) }
    }

    fn unwrap(&self, content: &[u8]) -> Result<Document, SealError> {
        let version: Version = serde_json::from_slice(content).map_err(|_| SealError::Foreign)?;
        if version.format != FORMAT {
            return Err(SealError::Foreign);
        }
        let Some(place) = &self.key else {
            if let Some(id) = version.key {
                return Err(SealError::KeyWanted(id));
            }
            let plain: Plain = serde_json::from_slice(content).map_err(|_| SealError::Foreign)?;
            return Ok(plain.document);
        };
        let Key { id, key } = Key::read(place)?;
        let held = version.key.ok_or(SealError::NotEncrypted)?;
        if held != id {
            return Err(SealError::OtherKey { held, place: place.place(), given: id });
        }
        let sealed: Encrypted = serde_json::from_slice(content).map_err(|_| SealError::Foreign)?;
        let whole = STANDARD.decode(sealed.sealed).map_err(|_| SealError::Broken)?;
        let (nonce, sealed) = whole.split_at_checked(NONCE_LEN).ok_or(SealError::Broken)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Broken)?;
        let mut opened = Zeroizing::new(sealed.to_vec());
        let opened = key.open_in_place(nonce, self.context(), &mut opened);
        let opened = opened.map_err(|_| SealError::Broken)?;
        serde_json::from_slice(opened).map_err(|_| SealError::Foreign)
    }

    fn context(&self) -> Aad<Vec<u8>> {
        Aad::from(format!("bearerd {FORMAT} {}", self.register).into_bytes())
    }
}

/// Whether there is a key at `place`.
///
/// # Errors
/// [`SealError`].
pub fn check(place: &SecretRef) -> Result<(), SealError> {
    Key::read(place).map(drop)
}

struct Key {
    id: KeyId,
    key: RandomizedNonceKey,
}

impl Key {
    fn read(place: &SecretRef) -> Result<Self, SealError> {
        let bytes = decoded(&place.read()?).ok_or_else(|| SealError::NoKey(place.place()))?;
        let key = RandomizedNonceKey::new(&AES_256_GCM, &bytes);
        let key = key.map_err(|_| SealError::NoKey(place.place()))?;
        Ok(Self { id: KeyId::of(&bytes), key })
    }
}

fn decoded(secret: &Secret) -> Option<Zeroizing<Vec<u8>>> {
    let bytes = Zeroizing::new(STANDARD.decode(secret.expose()).ok()?);
    (bytes.len() == KEY_BYTES).then_some(bytes)
}

/// Writing to memory does not fail.
fn json(value: &impl Serialize) -> Content {
    Zeroizing::new(serde_json::to_vec(value).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(fill: u8) -> SecretRef {
        SecretRef::Value(Secret::new(STANDARD.encode([fill; KEY_BYTES])))
    }

    fn document() -> Document {
        Document::new(7, "canary".to_owned(), None)
    }

    #[test]
    fn what_is_sealed_is_opened_again_and_shows_nothing() {
        for key in [None, Some(key(1))] {
            let seal = Seal::new("r".to_owned(), key.clone());
            let content = seal.seal(&document()).unwrap();
            assert!(seal.open(&content).unwrap() == document());
            let shown = String::from_utf8(content.to_vec()).unwrap().contains("canary");
            assert_eq!(shown, key.is_none());
        }
    }

    #[test]
    fn no_two_writes_look_the_same() {
        let seal = Seal::new("r".to_owned(), Some(key(1)));
        assert_ne!(*seal.seal(&document()).unwrap(), *seal.seal(&document()).unwrap());
    }

    #[test]
    fn another_key_another_register_and_damage_are_told_apart() {
        let content = Seal::new("r".to_owned(), Some(key(1))).seal(&document()).unwrap();
        let open = |register: &str, key, content: &[u8]| {
            Seal::new(register.to_owned(), key).open(content).err().map(|error| error.to_string())
        };
        let error = |register, key| open(register, key, &content).unwrap();
        assert_eq!(open("r", Some(key(1)), &content), None);
        assert!(error("r", Some(key(2))).contains("holds the key"), "{}", error("r", Some(key(2))));
        assert!(error("r", None).contains("write encryption_key"));
        assert!(error("s", Some(key(1))).contains("another register"));
        let plain = Seal::new("r".to_owned(), None).seal(&document()).unwrap();
        assert!(open("r", Some(key(1)), &plain).unwrap().contains("is not encrypted"));
        let mut text = String::from_utf8(content.to_vec()).unwrap();
        let middle = text.len() / 2;
        let other = if &text[middle..=middle] == "A" { "B" } else { "A" };
        text.replace_range(middle..=middle, other);
        assert!(open("r", Some(key(1)), text.as_bytes()).unwrap().contains("was changed"));
        let absurd = String::from_utf8(plain.to_vec()).unwrap();
        let absurd = absurd.replace("\"revision\":1", "\"revision\":18446744073709551615");
        for foreign in ["", "{", "[]", r#"{"format":2}"#, r#"{"format":1}"#, "\u{0}", &absurd] {
            let error = open("r", None, foreign.as_bytes()).unwrap();
            assert!(error.contains("did not write"), "{foreign}: {error}");
        }
    }

    #[test]
    fn what_others_wrote_for_a_keys_id_is_shown_only_if_it_is_one() {
        for (id, shown) in [("0123abcd", true), ("\u{1b}[2J", false), ("canary", false)] {
            let text = serde_json::json!({ "format": 1, "key": id, "sealed": "" }).to_string();
            for key in [None, Some(key(1))] {
                let error = Seal::new("r".to_owned(), key).open(text.as_bytes()).err().unwrap();
                let error = error.to_string();
                assert_eq!(error.contains(id), shown, "{error}");
                assert_eq!(error.contains("did not write"), !shown, "{error}");
            }
        }
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_shown() {
        for text in ["short", "c2hvcnQ=", "not base64 at all but long enough to be one, perhaps"] {
            let place = SecretRef::Value(Secret::new(text.to_owned()));
            let error = Seal::new("r".to_owned(), Some(place)).seal(&document()).err().unwrap();
            let error = error.to_string();
            assert!(error.contains("openssl rand -base64 32") && !error.contains(text), "{error}");
        }
    }
}

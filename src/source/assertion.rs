//! A JWT that is signed anew for each request: who a client says that it is (RFC 7523 §2.2), what it
//! is granted (§2.1), or whatever else a dialect puts one into.

use std::time::Duration;

use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::signing::{self, KeyError, SigningKey};
use super::template::{Rendered, Template};
use super::{Class, FetchError, Reason};
use crate::clock::{Moment, epoch_seconds};

/// How to sign one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assertion {
    /// The placeholder that it stands for.
    pub name: String,
    /// What it is signed with.
    pub key: Key,
    /// The algorithm by name; `None`, or nothing in it: what the key is for.
    pub algorithm: Option<Template>,
    /// The `kid`; `None`, or nothing in it: the key's own, if it has one.
    pub key_id: Option<Template>,
    /// Claims beside `iat`, `exp` and `jti`; one without a value is left out.
    pub claims: Vec<(String, Template)>,
    /// From its signing to its `exp`.
    pub lifetime: Duration,
    /// So much earlier is its `iat`, for servers whose clock is behind.
    pub backdated: Duration,
}

/// What an assertion is signed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// A private key, PEM or JWK.
    Private(Template),
    /// A shared secret, for an HMAC.
    Secret(Template),
}

impl Assertion {
    /// Signs one with a `jti` of its own (RFC 7523 §3).
    ///
    /// # Errors
    /// Terminal: it takes another key to mend it.
    pub fn sign(&self, values: &Rendered, now: Moment) -> Result<Zeroizing<String>, FetchError> {
        let text = |template: &Template| template.render(values, |_, value| value.to_owned());
        let key = match &self.key {
            Key::Private(template) => text(template).map(|pem| SigningKey::parse(&pem)),
            Key::Secret(template) => text(template).map(|text| Ok(SigningKey::from_secret(&text))),
        };
        let key = key.unwrap_or(Err(KeyError::Form)).map_err(|error| self.unfit(error))?;
        let algorithm = self.algorithm.as_ref().and_then(text);
        let algorithm = algorithm.and_then(|name| signing::algorithm(&name));
        let key_id = self.key_id.as_ref().and_then(text);
        let key_id = key_id.as_ref().map(|id| id.as_str());
        let claims = self.claims(values, now);
        key.sign(&claims, algorithm, key_id).map_err(|error| self.unfit(error))
    }

    /// Every template that it is made of.
    pub fn templates(&self) -> impl Iterator<Item = &Template> {
        let (Key::Private(key) | Key::Secret(key)) = &self.key;
        let claims = self.claims.iter().map(|(_, template)| template);
        std::iter::once(key).chain(&self.algorithm).chain(&self.key_id).chain(claims)
    }

    fn claims(&self, values: &Rendered, now: Moment) -> Map<String, Value> {
        let text = |template: &Template| template.render(values, |_, value| value.to_owned());
        let claim = |(name, template): &(String, Template)| {
            Some((name.clone(), Value::String(text(template)?.to_string())))
        };
        let mut claims: Map<String, Value> = self.claims.iter().filter_map(claim).collect();
        let seconds = epoch_seconds(now.wall);
        let issued = seconds.saturating_sub(self.backdated.as_secs());
        claims.insert("iat".to_owned(), issued.into());
        claims.insert("exp".to_owned(), (seconds + self.lifetime.as_secs()).into());
        claims.insert("jti".to_owned(), Value::String(unique()));
        claims
    }

    fn unfit(&self, error: KeyError) -> FetchError {
        let mut failure = FetchError::new(Class::Terminal, Reason::Input);
        failure.hint = Some(format!("{} cannot be signed: its key {error}", self.name));
        failure
    }
}

/// 128 random bits in hexadecimal.
fn unique() -> String {
    let mut bits = [0; 16];
    // What it must be is unlike any other, not secret.
    if aws_lc_rs::rand::fill(&mut bits).is_err() {
        bits = fastrand::u128(..).to_be_bytes();
    }
    format!("{:032x}", u128::from_be_bytes(bits))
}

//! A token as requests carry it: rendered once, looked at by all of them.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use zeroize::Zeroizing;

use crate::clock::Moment;
use crate::dpop::{self, Prover};
use crate::token::AccessToken;

/// A published token, rendered once for all requests that will carry it.
#[derive(Clone)]
pub(super) struct Bearer {
    generation: u64,
    published_at: Moment,
    expires_at: Moment,
    /// `Bearer TOKEN`, or `DPoP TOKEN` if it is bound to a key
    prefixed: HeaderValue,
    /// `TOKEN`, a slice of the same bytes.
    bare: HeaderValue,
    bound: Option<Arc<Bound>>,
    /// It is a former writer's, whose successor has published nothing yet.
    is_lent: bool,
}

/// A key that a token is bound to, with the token's own part of each proof.
pub struct Bound {
    /// Signs proofs.
    pub prover: Arc<Prover>,
    /// The `ath` in them.
    pub token_hash: String,
}

impl Bearer {
    /// Renders `token` under that generation.
    pub(super) fn new(token: &AccessToken, generation: u64) -> Self {
        // RFC 9449 §7.1: a bound token has a scheme of its own.
        let prefix = if token.prover().is_some() { "DPoP " } else { "Bearer " };
        let text = token.value().expose();
        let mut line = Vec::with_capacity(prefix.len() + text.len());
        line.extend_from_slice(prefix.as_bytes());
        line.extend_from_slice(text.as_bytes());
        let line = Bytes::from_owner(Zeroizing::new(line));
        let bare = sensitive(line.slice(prefix.len()..));
        let (published_at, expires_at) = (Moment::now(), token.expires_at());
        let token_hash = || dpop::token_hash(token.value());
        let bound = token
            .prover()
            .map(|prover| Arc::new(Bound { prover: Arc::clone(prover), token_hash: token_hash() }));
        let (prefixed, is_lent) = (sensitive(line), false);
        Self { generation, published_at, expires_at, prefixed, bare, bound, is_lent }
    }

    /// The same token as the first generation of another credential, until that has its own.
    pub(super) fn lent(&self) -> Self {
        Self { generation: 1, is_lent: true, ..self.clone() }
    }

    /// If it is `token`, and was lent: the same token, not lent any more.
    pub(super) fn of_its_own(&self, token: &AccessToken) -> Option<Self> {
        let same = self.is_lent && self.bare.as_bytes() == token.value().expose().as_bytes();
        same.then(|| Self { is_lent: false, expires_at: token.expires_at(), ..self.clone() })
    }

    /// True while it may be sent.
    pub(super) fn usable(&self, now: Moment) -> bool {
        !self.expires_at.reached(now)
    }

    /// The token if it is usable at `now`, as a request with `scheme` carries it.
    pub(super) fn held(&self, now: Moment, scheme: &Scheme) -> Option<Held> {
        if !self.usable(now) {
            return None;
        }
        Some(Held {
            value: self.value(scheme),
            generation: self.generation,
            published_at: self.published_at,
            expires_at: self.expires_at,
            bound: self.bound.clone(),
        })
    }

    fn value(&self, scheme: &Scheme) -> HeaderValue {
        match scheme {
            Scheme::Bearer => self.prefixed.clone(),
            Scheme::Bare => self.bare.clone(),
            Scheme::Other(word) => {
                let line = [word.as_bytes(), b" ", self.bare.as_bytes()].concat();
                sensitive(Bytes::from_owner(Zeroizing::new(line)))
            }
        }
    }
}

/// Marks a header value as one that must not be shown or indexed (RFC 7541 §7.1.3).
fn sensitive(bytes: Bytes) -> HeaderValue {
    // AccessToken admits visible ASCII only and the configuration checks schemes, so this holds;
    // were it ever wrong, an empty value leaks nothing and the upstream says 401.
    let mut value =
        HeaderValue::from_maybe_shared(bytes).unwrap_or_else(|_| HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

/// What stands before the token in the injected header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `Bearer TOKEN` (RFC 6750 §2.1); `DPoP TOKEN` if it is bound to a key (RFC 9449 §7.1).
    Bearer,
    /// The token alone.
    Bare,
    /// Another word, such as `token` or `OAuth`.
    Other(String),
}

/// A token as one request carries it.
pub struct Held {
    /// The injected header's value, marked sensitive.
    pub value: HeaderValue,
    /// Which token it is; a 401 is reported with this.
    pub generation: u64,
    /// When it was put in force.
    pub published_at: Moment,
    /// From then on it is not sent.
    pub expires_at: Moment,
    /// Each request that carries it needs a proof by this.
    pub bound: Option<Arc<Bound>>,
}

//! The access tokens that are out, shared between the providers that issue them and the APIs that
//! judge them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::locked;

/// A registry; clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Tokens(Arc<Mutex<Register>>);

#[derive(Debug, Default)]
struct Register {
    issued: HashMap<String, Issued>,
    order: Vec<String>,
    lag: Duration,
}

#[derive(Debug)]
struct Issued {
    from: Instant,
    until: Option<Instant>,
    revoked: bool,
}

/// What an API finds out about a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Accepted.
    Live,
    /// Not valid yet (Q15).
    Early,
    /// Past its life.
    Expired,
    /// Taken back.
    Revoked,
    /// Never issued.
    Unknown,
}

impl Tokens {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a token live, for so long or for ever.
    pub fn issue(&self, token: &str, life: Option<Duration>) {
        let mut register = locked(&self.0);
        let now = Instant::now();
        let issued = Issued {
            from: now + register.lag,
            until: life.and_then(|life| now.checked_add(life)),
            revoked: false,
        };
        if register.issued.insert(token.to_owned(), issued).is_none() {
            register.order.push(token.to_owned());
        }
    }

    /// Takes a token back; false when it was never issued.
    pub fn revoke(&self, token: &str) -> bool {
        locked(&self.0).issued.get_mut(token).map(|issued| issued.revoked = true).is_some()
    }

    /// Takes all tokens back.
    pub fn revoke_all(&self) {
        locked(&self.0).issued.values_mut().for_each(|issued| issued.revoked = true);
    }

    /// Whether an API accepts it now.
    pub fn is_live(&self, token: &str) -> bool {
        self.verdict(token) == Verdict::Live
    }

    /// What an API finds out about it now.
    pub fn verdict(&self, token: &str) -> Verdict {
        let register = locked(&self.0);
        let now = Instant::now();
        match register.issued.get(token) {
            None => Verdict::Unknown,
            Some(issued) if issued.revoked => Verdict::Revoked,
            Some(issued) if issued.until.is_some_and(|until| until <= now) => Verdict::Expired,
            Some(issued) if issued.from > now => Verdict::Early,
            Some(_) => Verdict::Live,
        }
    }

    /// All tokens issued so far, oldest first.
    pub fn issued(&self) -> Vec<String> {
        locked(&self.0).order.clone()
    }

    /// The newest token.
    pub fn latest(&self) -> Option<String> {
        locked(&self.0).order.last().cloned()
    }

    /// Tokens issued from now on are accepted only after so long (Q15: replication lag, `nbf`).
    pub fn set_lag(&self, lag: Duration) {
        locked(&self.0).lag = lag;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_live_until_it_expires_or_is_revoked() {
        let tokens = Tokens::new();
        tokens.issue("long", None);
        tokens.issue("spent", Some(Duration::ZERO));
        assert_eq!(tokens.verdict("long"), Verdict::Live);
        assert_eq!(tokens.verdict("spent"), Verdict::Expired);
        assert_eq!(tokens.verdict("other"), Verdict::Unknown);
        tokens.revoke_all();
        assert_eq!(tokens.verdict("long"), Verdict::Revoked);
        tokens.set_lag(Duration::from_secs(60));
        tokens.issue("lagging", None);
        assert_eq!(tokens.verdict("lagging"), Verdict::Early);
        assert_eq!(tokens.issued(), ["long", "spent", "lagging"]);
    }
}

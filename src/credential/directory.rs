//! Credentials by name, for those whose tokens are asked for with another one's token (RFC 8693
//! chains). Filled by whoever wires credentials; looked up at each use, so that a reload which
//! replaces a credential reaches those that depend on it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::time::Instant;

use super::{Credential, Held, Scheme};
use crate::clock::Moment;
use crate::secret::Secret;

/// Why a token is not handed out.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum NotLent {
    /// Nothing of that name is configured.
    #[error("no credential of that name")]
    Unknown,
    /// It is of no use without the key (RFC 9449).
    #[error("the token is bound to a key that bearerd keeps: send requests through bearerd")]
    Bound,
    /// There is none, and none has come in time.
    #[error("no usable token; the log and /status of bearerd say why")]
    Unavailable(Duration),
}

/// The credentials that may be asked; clones are the same one.
#[derive(Clone, Default)]
pub struct Directory(Arc<Mutex<HashMap<String, Credential>>>);

impl Directory {
    /// Has exactly these from now on.
    pub fn set(&self, credentials: &[Credential]) {
        let named = credentials.iter().map(|one| (one.name().to_owned(), one.clone()));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = named.collect();
    }

    /// The token of the credential `name` if it is usable now, for those who only look whether it is
    /// still the same.
    #[must_use]
    pub fn held(&self, name: &str) -> Option<Secret> {
        secret(&self.find(name)?.unused(Moment::now(), &Scheme::Bare)?)
    }

    /// The same, and if there is none waits for one until `deadline`, as a request would.
    pub async fn token(&self, name: &str, deadline: Instant) -> Option<Secret> {
        let credential = self.find(name)?;
        if let Some(held) = credential.bearer(Moment::now(), &Scheme::Bare) {
            return secret(&held);
        }
        let held = credential.newer_than(0, deadline, &Scheme::Bare).await.ok()?;
        secret(&held)
    }

    /// The same for another program, which is told why if there is none.
    ///
    /// # Errors
    /// [`NotLent`]
    pub async fn lend(&self, name: &str, deadline: Instant) -> Result<Secret, NotLent> {
        let credential = self.find(name).ok_or(NotLent::Unknown)?;
        let held = match credential.bearer(Moment::now(), &Scheme::Bare) {
            Some(held) => held,
            None => credential
                .newer_than(0, deadline, &Scheme::Bare)
                .await
                .map_err(|none| NotLent::Unavailable(none.retry_after))?,
        };
        if held.bound.is_some() {
            return Err(NotLent::Bound);
        }
        secret(&held).ok_or(NotLent::Unavailable(Duration::from_secs(1)))
    }

    fn find(&self, name: &str) -> Option<Credential> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

fn secret(held: &Held) -> Option<Secret> {
    Some(Secret::new(held.value.to_str().ok()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::publish;
    use super::*;
    use crate::token::AccessToken;

    #[tokio::test(start_paused = true)]
    async fn who_asks_with_a_token_uses_it_and_who_compares_it_does_not() {
        let (publisher, credential) = publish("c", 16);
        let (now, life) = (Moment::now(), Duration::from_mins(1));
        let token = AccessToken::new(Secret::new("t".to_owned()), now, life).unwrap();
        publisher.publish(&token, token.expires_at());
        let directory = Directory::default();
        directory.set(&[credential]);
        assert!(directory.held("c").is_some() && !publisher.take_used());
        assert!(directory.token("c", now.mono).await.is_some() && publisher.take_used());
    }
}

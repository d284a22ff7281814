//! Credentials by name, for those whose tokens are asked for with another one's token (RFC 8693
//! chains). Filled by whoever wires credentials; looked up at each use, so that a reload which
//! replaces a credential reaches those that depend on it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use super::{Credential, Held, Scheme};
use crate::clock::Moment;
use crate::secret::Secret;

/// The credentials that may be asked; clones are the same one.
#[derive(Clone, Default)]
pub struct Directory(Arc<Mutex<HashMap<String, Credential>>>);

impl Directory {
    /// Has exactly these from now on.
    pub fn set(&self, credentials: &[Credential]) {
        let named = credentials.iter().map(|one| (one.name().to_owned(), one.clone()));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = named.collect();
    }

    /// The token of the credential `name` if it is usable now.
    #[must_use]
    pub fn held(&self, name: &str) -> Option<Secret> {
        secret(&self.find(name)?.bearer(Moment::now(), &Scheme::Bare)?)
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

    fn find(&self, name: &str) -> Option<Credential> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

fn secret(held: &Held) -> Option<Secret> {
    Some(Secret::new(held.value.to_str().ok()?.to_owned()))
}

//! Where a rotating refresh token lives between processes.
//!
//! A [`Record`] is what is kept; a [`Store`] keeps it. [`Rotation`] is the refresher's view: which
//! refresh token is in force, given what was configured, what was stored and what arrived since.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::clock::Moment;
use crate::secret::{Secret, SecretError, SecretRef};
use crate::source::Fetched;
use crate::token::AccessToken;

pub mod file;

/// What a store keeps about one credential.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Record {
    /// The newest refresh token.
    pub refresh_token: Zeroizing<String>,
    /// SHA-256 of the configured refresh token that this chain began with; another one in the
    /// configuration means that somebody signed in anew.
    pub bootstrap_sha256: Option<String>,
    /// The access token that came along, so that a restart costs no refresh.
    pub access_token: Option<Zeroizing<String>>,
    /// When the access token was obtained, in seconds since the epoch.
    pub obtained_at: u64,
    /// When the access token expires, in seconds since the epoch, rounded down.
    pub expires_at: u64,
}

/// Why the store could not be read or written. Names the place, never the content.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The operating system said no.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The content is not what bearerd wrote.
    #[error(
        "{path} {problem}; restore it, or delete it to begin again with the configured refresh token"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Another process owns it.
    #[error("{path} is held by {holder}: one refresh token has one owner")]
    Held {
        /// The lock file.
        path: PathBuf,
        /// Who holds it, as that process wrote it.
        holder: String,
    },
}

/// The stores that a configuration can name.
pub enum Store {
    /// A file on a local disk.
    File(file::FileStore),
}

impl Store {
    /// Takes ownership of the place and reads what it holds.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was changed.
    pub fn open(&mut self) -> Result<Option<Record>, StoreError> {
        match self {
            Self::File(file) => file.open(),
        }
    }

    /// Writes `record` durably: after `Ok` it survives a crash.
    ///
    /// # Errors
    /// [`StoreError`]; the previous record is still there.
    pub fn save(&mut self, record: &Record) -> Result<(), StoreError> {
        match self {
            Self::File(file) => file.save(record),
        }
    }
}

/// The refresh token in force, and its way to the store.
pub struct Rotation {
    bootstrap: Option<SecretRef>,
    store: Option<Store>,
    record: Option<Record>,
    unsynced: bool,
}

impl Rotation {
    /// A chain that begins with `bootstrap` and is kept in `store`.
    #[must_use]
    pub fn new(bootstrap: Option<SecretRef>, store: Option<Store>) -> Self {
        Self { bootstrap, store, record: None, unsynced: false }
    }

    /// Goes on with what the owner before this one held, which has the same bootstrap and store.
    pub fn inherit(&mut self, former: Self) {
        *self = former;
        if self.store.is_none() {
            // The access token that came with the last rotation, which may be long ago.
            self.forget_access_token();
        }
    }

    /// Goes on with the refresh token of the owner before this one, which has the same bootstrap but
    /// kept it elsewhere, or nowhere.
    pub fn adopt(&mut self, former: Self) {
        let Some(record) = former.record else { return };
        self.record = Some(Record { access_token: None, ..record });
        self.unsynced = self.store.is_some();
    }

    /// Takes the store over and reads it. Without a store there is nothing to do, and what is not
    /// yet in the store is newer than what it holds.
    ///
    /// # Errors
    /// [`StoreError`]: until it succeeds no refresh token may be sent.
    pub fn open(&mut self) -> Result<(), StoreError> {
        match &mut self.store {
            Some(store) if !self.unsynced => self.record = store.open()?,
            // Only to own it; what it holds, or that it cannot be read, does not matter.
            Some(store) => {
                if let Err(held @ StoreError::Held { .. }) = store.open() {
                    return Err(held);
                }
            }
            None => {}
        }
        Ok(())
    }

    /// The stored access token if it is still usable at `now`.
    #[must_use]
    pub fn restored(&self, now: Moment) -> Option<AccessToken> {
        let record = self.record.as_ref()?;
        if self.replaced_by_operator() {
            return None;
        }
        let ends = SystemTime::UNIX_EPOCH + Duration::from_secs(record.expires_at);
        let left = ends.duration_since(now.wall).ok()?;
        // A clock stepped back must not lengthen the token's life.
        let life = Duration::from_secs(record.expires_at.saturating_sub(record.obtained_at));
        let value = Secret::new(record.access_token.as_ref()?.to_string());
        AccessToken::new(value, now, left.min(life)).ok().filter(|token| token.usable(now))
    }

    /// The refresh token to send: the newest that arrived, else the stored one, unless the
    /// configured one was replaced since; then, or with nothing stored, the configured one.
    ///
    /// # Errors
    /// The configured one is needed and cannot be read.
    pub fn current(&self) -> Result<Option<Secret>, SecretError> {
        match (&self.record, &self.bootstrap) {
            (Some(record), _) if !self.replaced_by_operator() => {
                Ok(Some(Secret::new(record.refresh_token.to_string())))
            }
            (_, Some(bootstrap)) => bootstrap.read().map(Some),
            (_, None) => Ok(None),
        }
    }

    /// Takes over what an answer brought, in memory first and then in the store.
    ///
    /// # Errors
    /// The store was not written: [`Self::unsynced`] until [`Self::sync`] succeeds. What arrived is
    /// in force all the same, since the old refresh token must never be sent again.
    pub fn take(&mut self, sent: Option<&Secret>, fetched: &Fetched) -> Result<(), StoreError> {
        let Some(refresh_token) = fetched.refresh_token.as_ref().or(sent) else {
            return Ok(());
        };
        if self.store.is_none() && fetched.refresh_token.is_none() {
            return Ok(());
        }
        let token = &fetched.token;
        self.record = Some(Record {
            refresh_token: Zeroizing::new(refresh_token.expose().to_owned()),
            bootstrap_sha256: self.began_with(sent),
            access_token: Some(Zeroizing::new(token.value().expose().to_owned())),
            obtained_at: crate::clock::epoch_seconds(token.obtained_at().wall),
            expires_at: crate::clock::epoch_seconds(token.expires_at().wall),
        });
        self.unsynced = self.store.is_some();
        self.sync()
    }

    /// Takes over a new refresh token that came without a usable access token, in memory first and
    /// then in the store.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn replace(&mut self, sent: Option<&Secret>, newest: &Secret) -> Result<(), StoreError> {
        self.record = Some(Record {
            refresh_token: Zeroizing::new(newest.expose().to_owned()),
            bootstrap_sha256: self.began_with(sent),
            access_token: None,
            obtained_at: 0,
            expires_at: 0,
        });
        self.unsynced = self.store.is_some();
        self.sync()
    }

    /// Leaves the access token out of the record from now on: it was revoked.
    pub fn forget_access_token(&mut self) {
        if let Some(record) = &mut self.record
            && record.access_token.take().is_some()
        {
            self.unsynced = self.store.is_some();
        }
    }

    /// Writes what is not yet in the store.
    ///
    /// # Errors
    /// The store was not written.
    pub fn sync(&mut self) -> Result<(), StoreError> {
        if let (true, Some(store), Some(record)) = (self.unsynced, &mut self.store, &self.record) {
            store.save(record)?;
            self.unsynced = false;
        }
        Ok(())
    }

    /// True while the store lacks the newest refresh token.
    #[must_use]
    pub fn unsynced(&self) -> bool {
        self.unsynced
    }

    /// True if there is a store to write to.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        self.store.is_some()
    }

    /// Another refresh token was configured than the one that the chain began with.
    fn replaced_by_operator(&self) -> bool {
        match (&self.record, self.bootstrap_fingerprint()) {
            // A chain that began with another way in has `None` here.
            (Some(record), Some(configured)) => record.bootstrap_sha256 != Some(configured),
            _ => false,
        }
    }

    /// What the chain that `sent` belongs to began with: `sent` itself unless it was a successor.
    /// Even if another way in was taken after it was refused: it is not to be sent again.
    fn began_with(&self, sent: Option<&Secret>) -> Option<String> {
        let sent_sha256 = sent.map(|sent| sent.fingerprint().to_hex());
        match &self.record {
            Some(record)
                if sent.is_none_or(|sent| sent.expose() == *record.refresh_token)
                    && sent_sha256 != self.bootstrap_fingerprint() =>
            {
                record.bootstrap_sha256.clone()
            }
            _ => sent_sha256,
        }
    }

    fn bootstrap_fingerprint(&self) -> Option<String> {
        let secret = self.bootstrap.as_ref()?.read().ok()?;
        Some(secret.fingerprint().to_hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    fn fetched(refresh_token: Option<&str>) -> Fetched {
        let life = Duration::from_secs(100);
        let token = AccessToken::new(secret("t"), Moment::now(), life).unwrap();
        Fetched { token, refresh_token: refresh_token.map(secret) }
    }

    fn configured(text: Option<&str>, record: Option<&Record>) -> Rotation {
        let bootstrap = text.map(|text| SecretRef::Value(secret(text)));
        Rotation { record: record.cloned(), ..Rotation::new(bootstrap, None) }
    }

    fn current(rotation: &Rotation) -> Option<String> {
        rotation.current().unwrap().map(|secret| secret.expose().to_owned())
    }

    /// What a chain leaves behind that began with a password.
    fn after_login() -> Record {
        let mut rotation = configured(None, None);
        rotation.take(None, &fetched(Some("login-1"))).unwrap();
        rotation.take(Some(&secret("login-1")), &fetched(Some("login-2"))).unwrap();
        rotation.record.unwrap()
    }

    #[test]
    fn a_refresh_token_configured_after_a_login_is_taken_up_once() {
        for put_in_place in ["operator", "login-2"] {
            let mut rotation = configured(Some(put_in_place), Some(&after_login()));
            assert_eq!(current(&rotation).as_deref(), Some(put_in_place));
            assert!(rotation.restored(Moment::now()).is_none());
            rotation.take(Some(&secret(put_in_place)), &fetched(Some("next"))).unwrap();
            assert_eq!(current(&rotation).as_deref(), Some("next"));
            let restarted = configured(Some(put_in_place), rotation.record.as_ref());
            assert_eq!(current(&restarted).as_deref(), Some("next"), "{put_in_place}");
        }
        let unchanged = configured(None, Some(&after_login()));
        assert_eq!(current(&unchanged).as_deref(), Some("login-2"));
    }

    #[test]
    fn a_dead_configured_refresh_token_is_not_sent_again_after_a_login_instead_of_it() {
        for record in [None, Some(after_login())] {
            let mut rotation = configured(Some("dead"), record.as_ref());
            rotation.take(Some(&secret("dead")), &fetched(Some("by-login"))).unwrap();
            let restarted = configured(Some("dead"), rotation.record.as_ref());
            assert_eq!(current(&restarted).as_deref(), Some("by-login"));
        }
    }
}

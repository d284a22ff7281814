//! Which refresh token is in force, given what was configured, what was stored and what arrived
//! since.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Record, Store, StoreError};
use crate::clock::Moment;
use crate::secret::{Secret, SecretError, SecretRef};
use crate::source::{FetchError, Fetched};
use crate::token::AccessToken;

/// Whose tokens a credential obtains, and which; as digests of what is configured, so that a stored
/// or inherited token is not used for somebody or something else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The account at the identity provider: a refresh token goes to no other.
    pub account: String,
    /// Everything that a token is asked for with, secrets excepted: an access token that was asked
    /// for differently is not the one that is wanted.
    pub request: String,
}

/// The refresh token in force, and its way to the store.
pub struct Rotation {
    bootstrap: Option<SecretRef>,
    store: Option<Store>,
    identity: Option<Identity>,
    record: Option<Record>,
    unsynced: bool,
    /// Others want each record, also of an answer that replaced nothing.
    shared: bool,
}

impl Rotation {
    /// A chain that begins with `bootstrap` and is kept in `store`.
    #[must_use]
    pub fn new(bootstrap: Option<SecretRef>, store: Option<Store>) -> Self {
        let (identity, record, unsynced, shared) = (None, None, false, false);
        Self { bootstrap, store, identity, record, unsynced, shared }
    }

    /// The same, for tokens of `identity` only.
    #[must_use]
    pub fn of(self, identity: impl Into<Option<Identity>>) -> Self {
        Self { identity: identity.into(), ..self }
    }

    /// The same, for tokens that are shared with others.
    #[must_use]
    pub fn shared(self) -> Self {
        Self { shared: true, ..self }
    }

    /// Takes over what another process has stored. `begun` are the digests of configured refresh
    /// tokens that were used: one of them is nothing new.
    pub fn adopt(&mut self, record: Record, begun: &[String]) {
        let configured = self.configured().filter(|digest| begun.contains(digest));
        let bootstrap_sha256 = configured.or(record.bootstrap_sha256);
        self.record = Some(Record { bootstrap_sha256, ..record });
    }

    /// What is held, for a place that has nothing yet.
    #[must_use]
    pub fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// The configured refresh token if it still has this digest.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn configured_as(&self, digest: &str) -> Result<Option<Secret>, SecretError> {
        let secret = self.bootstrap.as_ref().map(SecretRef::read).transpose()?;
        Ok(secret.filter(|secret| secret.fingerprint().to_hex() == digest))
    }

    /// SHA-256 of the configured refresh token, as it is now.
    #[must_use]
    pub fn configured(&self) -> Option<String> {
        let secret = self.bootstrap.as_ref()?.read().ok()?;
        Some(secret.fingerprint().to_hex())
    }

    /// Goes on with what `former` held, the owner before this one of tokens of the same account.
    pub fn inherit(&mut self, former: Self) {
        let same_place = match (&self.store, &former.store) {
            (Some(one), Some(other)) => one.is(other),
            (one, other) => one.is_none() && other.is_none(),
        };
        if same_place {
            (self.store, self.unsynced) = (former.store, former.unsynced);
        }
        let Some(record) = former.record else { return };
        if same_place {
            self.record = Some(record);
        } else if !self.replaced_by_operator(&record) {
            // With another refresh token configured this store may be ahead of it.
            self.record = Some(record);
            self.unsynced = self.store.is_some();
        }
    }

    /// Whether this one's tokens are of the same account as those of `other`.
    #[must_use]
    pub fn same_account(&self, other: &Self) -> bool {
        match (&self.identity, &other.identity) {
            (Some(one), Some(other)) => one.account == other.account,
            _ => false,
        }
    }

    /// Whether this one asks for the same tokens as `other`.
    #[must_use]
    pub fn same_request(&self, other: &Self) -> bool {
        self.identity.is_some() && self.identity == other.identity
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

    /// True if the store holds the tokens of another account, as after a change of the configuration.
    #[must_use]
    pub fn holds_anothers(&self) -> bool {
        self.record.as_ref().is_some_and(|record| self.anothers(record))
    }

    /// The stored access token if it is still usable at `now`, and what this one asks for.
    #[must_use]
    pub fn restored(&self, now: Moment) -> Option<AccessToken> {
        let record = self.record.as_ref()?;
        let wanted =
            record.identity.as_ref().is_none_or(|held| self.identity.as_ref() == Some(held));
        if !wanted || self.replaced_by_operator(record) {
            return None;
        }
        // What lies in a store that others can write to may be any number.
        let ends = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(record.expires_at))?;
        let left = ends.duration_since(now.wall).ok()?;
        // A clock stepped back must not lengthen the token's life.
        let life = Duration::from_secs(record.expires_at.saturating_sub(record.obtained_at));
        let value = Secret::new(record.access_token.as_ref()?.to_string());
        AccessToken::new(value, now, left.min(life)).ok().filter(|token| token.usable(now))
    }

    /// The refresh token to send: the newest that arrived, else the stored one, unless the
    /// configured one was replaced since; then, or with nothing stored, the configured one. None
    /// goes to another account than it came from.
    ///
    /// # Errors
    /// The configured one is needed and cannot be read.
    pub fn current(&self) -> Result<Option<Secret>, SecretError> {
        match &self.record {
            Some(record) if !self.replaced_by_operator(record) => {
                let newest = record.refresh_token.as_ref().filter(|_| !self.anothers(record));
                Ok(newest.map(|newest| Secret::new(newest.to_string())))
            }
            _ => self.bootstrap.as_ref().map(SecretRef::read).transpose(),
        }
    }

    /// Takes over what an answer brought, in memory first and then in the store.
    ///
    /// # Errors
    /// The store was not written: [`Self::unsynced`] until [`Self::sync`] succeeds. What arrived is
    /// in force all the same, since the old refresh token must never be sent again.
    pub fn take(&mut self, sent: Option<&Secret>, fetched: &Fetched) -> Result<(), StoreError> {
        let old = sent.filter(|_| !fetched.gave_up);
        let refresh_token = fetched.refresh_token.as_ref().or(old);
        let rotated = fetched.refresh_token.is_some() || fetched.gave_up;
        // An access token alone does not take the place of a refresh token, another account's included.
        let nothing_lost = self.record.as_ref().is_none_or(|r| r.refresh_token.is_none());
        let kept = self.store.is_some() && (refresh_token.is_some() || nothing_lost);
        if !rotated && !kept && !self.shared {
            return Ok(());
        }
        self.record =
            Some(self.record_of(refresh_token, self.began_with(sent), Some(&fetched.token)));
        self.unsynced = self.store.is_some();
        self.sync()
    }

    /// Takes over what a failed attempt means for the refresh token, in memory first and then in the
    /// store: another one that came without a usable access token, or that `sent` is not to be sent
    /// again. `None` if it is as it was; else as [`Self::take`].
    pub fn after_failure(
        &mut self,
        sent: Option<&Secret>,
        error: &FetchError,
    ) -> Option<Result<(), StoreError>> {
        let began_with = self.began_with(sent);
        let record = match &error.rotated {
            Some(newest) => self.record_of(Some(newest), began_with, None),
            None if error.gave_up => {
                // The access token that lies there is still good.
                let own = self.record.take().filter(|record| !self.anothers(record));
                let own = own.unwrap_or_else(|| self.record_of(None, None, None));
                Record { refresh_token: None, bootstrap_sha256: began_with, ..own }
            }
            None => return None,
        };
        self.record = Some(record);
        self.unsynced = self.store.is_some();
        Some(self.sync())
    }

    /// Whether a person's login could be left in the store, as far as can be told beforehand.
    ///
    /// # Errors
    /// [`StoreError`]: why not.
    pub fn can_leave(&self) -> Result<(), StoreError> {
        self.store.as_ref().map_or(Ok(()), Store::can_leave)
    }

    /// Leaves what a person's login brought for whoever owns the store.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was left.
    pub fn leave(&self, fetched: &Fetched) -> Result<(), StoreError> {
        let Some(store) = &self.store else { return Ok(()) };
        store.leave(&self.record_of_login(fetched))
    }

    /// What a person's login brought, as a store keeps it.
    #[must_use]
    pub fn record_of_login(&self, fetched: &Fetched) -> Record {
        // The login is what is newest: the configured refresh token counts again once it is another.
        let began_with = self.configured();
        self.record_of(fetched.refresh_token.as_ref(), began_with, Some(&fetched.token))
    }

    /// True while what a login left has not been taken up.
    #[must_use]
    pub fn login_waits(&self) -> bool {
        self.store.as_ref().is_some_and(|store| !matches!(store.left(), Ok(None)))
    }

    /// Goes on with what a login left, if one did; true then. What is not yet in the store is given
    /// up for it.
    ///
    /// # Errors
    /// [`StoreError`]: it cannot be taken up now, and nothing has changed.
    pub fn take_up_login(&mut self) -> Result<bool, StoreError> {
        let Some(store) = &mut self.store else { return Ok(false) };
        let Some(left) = store.left()? else { return Ok(false) };
        let own = self.identity.as_ref().map(|identity| &identity.account);
        if left.identity.as_ref().map(|identity| &identity.account) != own {
            return Err(StoreError::AnothersLogin);
        }
        self.record = store.take_up()?;
        // In place, but not durably so.
        self.unsynced = true;
        Ok(true)
    }

    fn record_of(
        &self,
        refresh_token: Option<&Secret>,
        bootstrap_sha256: Option<String>,
        token: Option<&AccessToken>,
    ) -> Record {
        let kept = |secret: &Secret| Zeroizing::new(secret.expose().to_owned());
        let seconds = |moment: Moment| crate::clock::epoch_seconds(moment.wall);
        Record {
            refresh_token: refresh_token.map(kept),
            bootstrap_sha256,
            access_token: token.map(|token| kept(token.value())),
            obtained_at: token.map_or(0, |token| seconds(token.obtained_at())),
            expires_at: token.map_or(0, |token| seconds(token.expires_at())),
            identity: self.identity.clone(),
        }
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
    fn replaced_by_operator(&self, record: &Record) -> bool {
        // A chain that began with another way in has `None` there.
        let configured = self.configured();
        configured.is_some_and(|configured| record.bootstrap_sha256 != Some(configured))
    }

    fn anothers(&self, record: &Record) -> bool {
        let held = record.identity.as_ref().map(|identity| &identity.account);
        held.is_some_and(|held| self.identity.as_ref().is_none_or(|own| own.account != *held))
    }

    /// What the chain that `sent` belongs to began with: `sent` itself unless it was a successor.
    /// Even if another way in was taken after it was refused: it is not to be sent again.
    fn began_with(&self, sent: Option<&Secret>) -> Option<String> {
        let sent_sha256 = sent.map(|sent| sent.fingerprint().to_hex());
        match self.record.as_ref().filter(|record| !self.anothers(record)) {
            Some(record)
                if sent.is_none_or(|sent| record.is_refreshed_by(sent))
                    && sent_sha256 != self.configured() =>
            {
                record.bootstrap_sha256.clone()
            }
            _ => sent_sha256,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::FileStore;
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    fn fetched(refresh_token: Option<&str>) -> Fetched {
        let life = Duration::from_secs(100);
        let token = AccessToken::new(secret("t"), Moment::now(), life).unwrap();
        let (gave_up, renewable) = (false, false);
        Fetched { token, refresh_token: refresh_token.map(secret), gave_up, renewable }
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

    #[test]
    fn a_refresh_token_that_was_given_up_is_not_sent_again_until_another_is_configured() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("store.json");
        let store = || Some(Store::File(FileStore::new(path.clone())));
        let gave_up = || Fetched { gave_up: true, ..fetched(None) };
        for stored in [true, false] {
            let _ = std::fs::remove_file(&path);
            let store = || stored.then(store).flatten();
            let mut rotation = Rotation { store: store(), ..configured(Some("dead"), None) };
            rotation.open().unwrap();
            rotation.take(Some(&secret("dead")), &gave_up()).unwrap();
            assert_eq!(current(&rotation), None);
            rotation.take(None, &fetched(None)).unwrap();
            assert_eq!(current(&rotation), None);
            let record = rotation.record.clone();
            drop(rotation);
            // After a restart as well, with the access token that came last.
            let mut restarted = Rotation { store: store(), ..configured(Some("dead"), None) };
            if stored {
                restarted.open().unwrap();
                assert_eq!(current(&restarted), None);
                assert!(restarted.restored(Moment::now()).is_some());
            }
            let mut mended = configured(Some("alive"), record.as_ref());
            assert_eq!(current(&mended).as_deref(), Some("alive"));
            mended.take(Some(&secret("alive")), &fetched(Some("next"))).unwrap();
            assert_eq!(current(&mended).as_deref(), Some("next"));
        }
    }

    #[test]
    fn a_refused_refresh_token_is_not_sent_again_although_the_other_way_in_failed() {
        use crate::source::{Class, Reason};
        let home = tempfile::tempdir().unwrap();
        let store = || Some(Store::File(FileStore::new(home.path().join("store.json"))));
        let mut rotation = Rotation { store: store(), ..configured(Some("first"), None) };
        rotation.open().unwrap();
        rotation.take(Some(&secret("first")), &fetched(Some("second"))).unwrap();
        let mut error = FetchError::new(Class::Transient, Reason::Server);
        assert!(rotation.after_failure(Some(&secret("second")), &error).is_none());
        assert_eq!(current(&rotation).as_deref(), Some("second"));
        error.gave_up = true;
        rotation.after_failure(Some(&secret("second")), &error).unwrap().unwrap();
        drop(rotation);
        let mut restarted = Rotation { store: store(), ..configured(Some("first"), None) };
        restarted.open().unwrap();
        assert_eq!(current(&restarted), None);
        assert!(restarted.restored(Moment::now()).is_some(), "the token at hand is good");
        let mended = configured(Some("third"), restarted.record.as_ref());
        assert_eq!(current(&mended).as_deref(), Some("third"));
    }

    #[test]
    fn an_answer_without_a_refresh_token_keeps_the_one_that_was_sent() {
        let home = tempfile::tempdir().unwrap();
        let store = || Some(Store::File(FileStore::new(home.path().join("store.json"))));
        let mut rotation = Rotation { store: store(), ..configured(Some("first"), None) };
        rotation.open().unwrap();
        rotation.take(Some(&secret("first")), &fetched(None)).unwrap();
        assert_eq!(current(&rotation).as_deref(), Some("first"));
        rotation.take(Some(&secret("first")), &fetched(Some("second"))).unwrap();
        rotation.take(Some(&secret("second")), &fetched(None)).unwrap();
        drop(rotation);
        let mut restarted = Rotation { store: store(), ..configured(Some("first"), None) };
        restarted.open().unwrap();
        assert_eq!(current(&restarted).as_deref(), Some("second"));
        assert!(restarted.restored(Moment::now()).is_some());
    }

    #[test]
    fn without_a_refresh_token_the_access_token_is_kept_but_not_in_the_place_of_one() {
        let home = tempfile::tempdir().unwrap();
        let identity =
            |account: &str| Some(Identity { account: account.to_owned(), request: "r".to_owned() });
        let opened = |account: &str| {
            let store = Store::File(FileStore::new(home.path().join("store.json")));
            let mut rotation = Rotation::new(None, Some(store)).of(identity(account));
            rotation.open().unwrap();
            rotation
        };
        opened("a").take(None, &fetched(None)).unwrap();
        assert!(opened("b").restored(Moment::now()).is_none());
        let mut own = opened("a");
        assert!(own.restored(Moment::now()).is_some());
        own.take(None, &fetched(Some("first"))).unwrap();
        drop(own);
        opened("b").take(None, &fetched(None)).unwrap();
        assert_eq!(current(&opened("a")).as_deref(), Some("first"));
    }

    #[test]
    fn a_record_of_before_identities_is_taken_up_and_one_of_another_account_is_not_used() {
        let identity = |account: &str, request: &str| {
            Some(Identity { account: account.to_owned(), request: request.to_owned() })
        };
        let held = |by: Option<Identity>, account: &str, request: &str| {
            let mut former = configured(Some("first"), None).of(by);
            former.take(Some(&secret("first")), &fetched(Some("second"))).unwrap();
            let next = configured(Some("first"), former.record.as_ref());
            let next = next.of(identity(account, request));
            (current(&next), next.restored(Moment::now()).is_some())
        };
        let second = || Some("second".to_owned());
        assert_eq!(held(None, "a", "r"), (second(), true));
        assert_eq!(held(identity("a", "r"), "a", "r"), (second(), true));
        assert_eq!(held(identity("a", "r"), "a", "other"), (second(), false));
        assert_eq!(held(identity("b", "r"), "a", "r"), (None, false), "nor the spent one");
    }
}

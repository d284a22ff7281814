//! Carries out what the protocol says: reads and writes the register, seals and opens what lies
//! there, and gives the owner its verdicts.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::document::{Document, millis};
use super::protocol::{Claim, Effect, Event, Fate, Goal, Outcome, Protocol, Terms, Verdict};
use super::seal::{Seal, SealError};
use super::{Engine, Held, Register, RegisterError, Settings, Swapped, Version};
use crate::clock::Moment;
use crate::store::Record;

/// The longest that one read or write may take.
const OPERATION: Duration = Duration::from_secs(2);
/// For how long, and how often, a login is tried to be written.
const LOGIN_WITHIN: Duration = Duration::from_secs(30);
const LOGIN_AGAIN: Duration = Duration::from_millis(250);
/// How long a new register is left alone.
const SETTLE: Duration = Duration::from_secs(2);

/// One process's way to agree with the others on a refresh token.
pub struct Agreement {
    settings: Settings,
    engine: Engine,
    seal: Seal,
    protocol: Protocol,
}

/// What the owner's credential is like, for the protocol.
#[derive(Clone, Debug)]
pub struct Party {
    /// How long the identity provider accepts a refresh token that it has replaced.
    pub grace: Option<Duration>,
    /// Refresh tokens are replaced when they are used.
    pub rotates: bool,
    /// There is another way in.
    pub fallback: bool,
    /// Whose tokens are wanted.
    pub account: Option<String>,
}

impl Agreement {
    /// At the register that `settings` name, under a name that no other process has.
    #[must_use]
    pub fn new(settings: &Settings, party: Party) -> Self {
        let engine = Engine::new(&settings.place);
        let seal = Seal::new(settings.place.register(), settings.encryption_key.clone());
        let holder = format!("{:016x}", fastrand::u64(..));
        let protocol = Protocol::new(holder, terms(settings, party));
        Self { settings: settings.clone(), engine, seal, protocol }
    }

    /// Whether both are about the same register.
    #[must_use]
    pub fn is_at(&self, other: &Self) -> bool {
        self.settings.place.is(&other.settings.place)
    }

    /// Goes on where `former` ended, if that is about the same register: what it owes is owed still.
    pub fn inherit(&mut self, former: Self) {
        if self.is_at(&former) {
            self.protocol.inherit(former.protocol);
        }
    }

    /// What this process calls itself.
    #[must_use]
    pub fn holder(&self) -> &str {
        self.protocol.holder()
    }

    /// Asks to call the identity provider.
    ///
    /// # Errors
    /// [`RegisterError`]: without an answer nobody may call.
    pub async fn claim(&mut self, claim: Claim) -> Result<Verdict, RegisterError> {
        self.run(Event::Begin(Goal::Claim(claim))).await
    }

    /// Looks at what the others did, and writes what is owed.
    ///
    /// # Errors
    /// [`RegisterError`].
    pub async fn look(&mut self) -> Result<Verdict, RegisterError> {
        self.run(Event::Begin(Goal::Look)).await
    }

    /// Says what came of the call.
    ///
    /// # Errors
    /// [`RegisterError`]: not written yet; [`Self::look`] does it again.
    pub async fn answered(&mut self, outcome: Outcome) -> Result<Verdict, RegisterError> {
        self.run(Event::Answered(outcome)).await
    }

    /// Whether the register can be read, and what lies there understood.
    ///
    /// # Errors
    /// [`RegisterError`]: why not.
    pub async fn reachable(&mut self) -> Result<(), RegisterError> {
        self.read().await.map(drop)
    }

    /// Puts what a person's login brought over whatever is there: it settles every doubt, and an
    /// attempt that is under way finds itself overtaken. There is no other copy of it, so a register
    /// that does not answer is asked again for a while.
    ///
    /// # Errors
    /// [`RegisterError`]: not written, as far as is known.
    pub async fn sign_in(&mut self, record: Record) -> Result<(), RegisterError> {
        let nonce = format!("{}-login", self.holder());
        let end = Moment::now().plus(LOGIN_WITHIN);
        let mut unknown = None;
        loop {
            let error = match self.try_sign_in(&nonce, &record, &mut unknown).await {
                Ok(true) => return Ok(()),
                Ok(false) => self.busy(),
                Err(error @ RegisterError::Unusable { .. }) => return Err(error),
                Err(error) => error,
            };
            if end.reached(Moment::now()) {
                return Err(error);
            }
            sleep(LOGIN_AGAIN).await;
        }
    }

    /// One round; true if it is there now. `unknown` is the age that a write of unknown fate went over.
    async fn try_sign_in(
        &mut self,
        nonce: &str,
        record: &Record,
        unknown: &mut Option<(u64, u64)>,
    ) -> Result<bool, RegisterError> {
        let (version, held) = self.read().await?;
        let age = held.as_ref().map_or((0, 0), |held| held.age());
        if held.as_ref().is_some_and(|h| h.nonce == nonce || h.record.as_ref() == Some(record)) {
            return Ok(true);
        }
        // It may have landed and have been used since: written once more, it would be spent twice.
        if unknown.is_some_and(|before| before != age) {
            let place = self.settings.place.to_string();
            let problem = "was written by others meanwhile: what became of this login is not known";
            return Err(RegisterError::Unusable { place, problem: problem.to_owned() });
        }
        let epoch = (age.0 + 1).max(millis(Moment::now()) / 1000);
        let (nonce, record) = (nonce.to_owned(), record.clone());
        let document = match held {
            Some(held) => held.signed_in(nonce, epoch, record),
            None => Document::new(epoch, nonce, Some(record)),
        };
        let fate = self.swap(&version, &document).await?;
        if matches!(fate, Fate::Unknown) {
            *unknown = Some(age);
        }
        Ok(matches!(fate, Fate::Done(_)))
    }

    fn busy(&self) -> RegisterError {
        let source = std::io::Error::other("others write all the time, or what is written is lost");
        RegisterError::Unreachable { place: self.settings.place.to_string(), source: source.into() }
    }

    /// Returns when the others may have written; see [`Register::changed`].
    pub async fn changed(&mut self) {
        self.engine.changed().await;
    }

    /// How often to look, beside that.
    #[must_use]
    pub fn look_every(&self) -> Duration {
        self.settings.place.look_every()
    }

    /// True while something that came of a call is not written yet.
    #[must_use]
    pub fn unsettled(&self) -> bool {
        self.protocol.unsettled()
    }

    /// True while new tokens are in this process only.
    #[must_use]
    pub fn unsynced(&self) -> bool {
        self.protocol.unsynced()
    }

    async fn run(&mut self, first: Event) -> Result<Verdict, RegisterError> {
        let mut event = first;
        loop {
            event = match self.protocol.step(event, Moment::now()) {
                Effect::Tell(verdict) => return Ok(verdict),
                Effect::Read => Event::Read(Some(self.read().await?)),
                Effect::Swap(version, document) => {
                    Event::Swapped(Some(self.swap(&version, &document).await?))
                }
            };
        }
    }

    async fn read(&mut self) -> Result<(Version, Option<Box<Document>>), RegisterError> {
        let read = timeout(OPERATION, self.engine.read()).await;
        let Held { version, content } = read.unwrap_or_else(|_| Err(self.silent()))?;
        let document = content.map(|content| self.seal.open(&content)).transpose();
        let document = document.map_err(|error| self.unusable(&error))?;
        Ok((version, document.map(Box::new)))
    }

    async fn swap(
        &mut self,
        version: &Version,
        document: &Document,
    ) -> Result<Fate, RegisterError> {
        let content = self.seal.seal(document).map_err(|error| self.unusable(&error))?;
        match timeout(OPERATION, self.engine.swap(version, &content)).await {
            Ok(Ok(swapped)) => {
                if let Swapped::Unknown(error) = &swapped {
                    let error = crate::telemetry::chain(error);
                    tracing::debug!(error, "a write to the store has to be read back");
                }
                Ok(swapped.into())
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Ok(Fate::Unknown),
        }
    }

    fn silent(&self) -> RegisterError {
        let source = std::io::Error::from(std::io::ErrorKind::TimedOut);
        RegisterError::Unreachable { place: self.settings.place.to_string(), source: source.into() }
    }

    fn unusable(&self, error: &SealError) -> RegisterError {
        let place = self.settings.place.to_string();
        RegisterError::Unusable { place, problem: crate::telemetry::chain(error) }
    }
}

fn terms(settings: &Settings, party: Party) -> Terms {
    let Party { grace, rotates, fallback, account } = party;
    Terms { lease: settings.deadline, settle: SETTLE, grace, rotates, fallback, account }
}

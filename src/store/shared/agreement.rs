//! Carries out what the protocol says: reads and writes the register, seals and opens what lies
//! there, and gives the owner its verdicts.

use std::time::Duration;

use tokio::time::timeout;

use super::document::{Document, millis};
use super::protocol::{Claim, Effect, Event, Fate, Goal, Outcome, Protocol, Terms, Verdict};
use super::seal::{Seal, SealError};
use super::{Engine, Held, Register, RegisterError, Settings, Swapped, Version};
use crate::clock::Moment;
use crate::store::Record;

/// The longest that one read or write may take.
const OPERATION: Duration = Duration::from_secs(2);
/// Each lost race is somebody else's progress; so many are not lost in a row.
const MAX_LOGIN_ROUNDS: u32 = 16;
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

    /// Goes on where `former` ended, if that is about the same register: what it owes is owed still.
    pub fn inherit(&mut self, former: Self) {
        if former.settings.place == self.settings.place {
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
    /// attempt that is under way finds itself overtaken.
    ///
    /// # Errors
    /// [`RegisterError`]: not written, as far as is known.
    pub async fn sign_in(&mut self, record: Record) -> Result<(), RegisterError> {
        let nonce = format!("{}-login", self.holder());
        let mut unknown = None;
        for _ in 0..MAX_LOGIN_ROUNDS {
            let (version, held) = self.read().await?;
            if held.as_ref().is_some_and(|held| held.nonce == nonce) {
                return Ok(());
            }
            let at = held.as_ref().map(|held| (held.epoch, held.revision));
            // It may have landed and have been used since: once more, and it would be spent twice.
            if unknown.is_some_and(|before| before != at) {
                let place = self.settings.place.to_string();
                let problem = "does not tell what became of a write; sign in again".to_owned();
                return Err(RegisterError::Unusable { place, problem });
            }
            let epoch = millis(Moment::now()) / 1000;
            let document = match held {
                Some(held) => held.signed_in(nonce.clone(), record.clone()),
                None => Document::new(epoch, nonce.clone(), Some(record.clone())),
            };
            unknown = match self.swap(&version, &document).await? {
                Fate::Done(_) => return Ok(()),
                Fate::Conflict => None,
                Fate::Unknown => Some(at),
            };
        }
        Err(self.silent())
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

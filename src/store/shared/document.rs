//! What the processes that share a refresh token have written down for each other: the tokens, who
//! is fetching, what is in doubt, and what is over. Pure data, and how each of its successors is made.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Moment;
use crate::secret::Fingerprint;
use crate::store::Record;

/// Configured refresh tokens that are remembered as used; older ones are forgotten.
const MAX_BEGUN: usize = 16;
/// No process counts so far. What is counted on from there never overflows, and others can read it
/// (RFC 8259 §6).
const MAX_COUNT: u64 = 1 << 53;
const MAX_IN_A_ROW: u32 = 1 << 31;

/// The state that is agreed on.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Document {
    /// Which life of the register this is: another, higher one begins when it was found empty.
    pub epoch: u64,
    /// Counts the tokens of this life from 1; 0 = none yet. Never decreases.
    pub generation: u64,
    /// Counts the writes of this life. Never decreases.
    pub revision: u64,
    /// No other write has this one, so that a writer knows its own again.
    pub nonce: String,
    /// The tokens of this generation.
    pub record: Option<Record>,
    /// SHA-256 of configured refresh tokens that were taken up, or refused: none is sent again.
    pub begun: Vec<String>,
    /// Who is fetching the next generation.
    pub intent: Option<Intent>,
    /// A refresh token was sent, and nobody knows what came of it.
    pub doubt: Option<Doubt>,
    /// The refresh token is not to be sent again by anybody.
    pub dead: Option<Dead>,
    /// The last attempt failed: how often in a row, and how long all of them wait.
    pub pause: Option<Pause>,
}

/// That one process is about to call the identity provider, or does. While it stands nobody else may.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Intent {
    /// The generation that it will make.
    pub generation: u64,
    /// The process.
    pub holder: String,
    /// The attempt.
    pub nonce: String,
    /// When it was written, in milliseconds since the epoch.
    pub since: u64,
    /// When it is over, in milliseconds since the epoch, by its writer's clock: for people. Processes
    /// count from when they first saw it, by a clock that nobody can step.
    pub deadline: u64,
    /// What is sent.
    pub spends: Token,
}

/// A refresh token, without saying it.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Token {
    /// None: another way in is taken.
    Nothing,
    /// The one of the document.
    Stored,
    /// The configured one, by its SHA-256.
    Configured(String),
}

/// A refresh token that may be spent.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Doubt {
    /// Which.
    pub about: Token,
    /// When it was sent first, in milliseconds since the epoch, at the earliest.
    pub since: u64,
    /// How often it was sent, as far as can be known.
    pub sends: u32,
}

/// Why a refresh token is over.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Dead {
    /// The identity provider refused it.
    Refused,
    /// The register went back to an older state: which refresh token is the newest is not known.
    Lost,
}

/// The patience that everybody has after a failure.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Pause {
    /// The write that it came with.
    pub by: String,
    /// In milliseconds, from when it is first seen.
    pub wait: u64,
    /// In a row.
    pub failures: u32,
}

impl Document {
    /// The first one of a life; `record` is what was kept elsewhere until now.
    #[must_use]
    pub fn new(epoch: u64, nonce: String, record: Option<Record>) -> Self {
        let begun = record.iter().filter_map(|record| record.bootstrap_sha256.clone()).collect();
        let generation = u64::from(record.is_some());
        let (intent, doubt, dead, pause) = (None, None, None, None);
        Self { epoch, generation, revision: 1, nonce, record, begun, intent, doubt, dead, pause }
    }

    /// True if processes can have counted so far.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        let intended = self.intent.as_ref().map_or(0, |intent| intent.generation);
        let counts = [self.epoch, self.generation, self.revision, intended];
        let sends = self.doubt.as_ref().map_or(0, |doubt| doubt.sends);
        let failures = self.pause.as_ref().map_or(0, |pause| pause.failures);
        let in_a_row = [sends, failures];
        counts.iter().all(|count| *count < MAX_COUNT)
            && in_a_row.iter().all(|count| *count < MAX_IN_A_ROW)
    }

    /// Where it stands in time.
    #[must_use]
    pub fn age(&self) -> (u64, u64) {
        (self.epoch, self.generation)
    }

    /// The same state, as the next write.
    #[must_use]
    pub fn next(&self, nonce: String) -> Self {
        Self { revision: self.revision + 1, nonce, ..self.clone() }
    }

    /// The next generation, with what an attempt that sent `spent` has brought. It settles everything.
    #[must_use]
    pub fn renewed(&self, nonce: String, spent: &Token, record: Record) -> Self {
        let mut next = self.next(nonce);
        next.generation += 1;
        next.record = Some(record);
        for used in [Some(spent), self.doubt.as_ref().map(|doubt| &doubt.about)] {
            if let Some(Token::Configured(digest)) = used {
                next.begin(digest);
            }
        }
        (next.intent, next.doubt, next.dead, next.pause) = (None, None, None, None);
        next
    }

    /// The next generation, with what a person's login has brought, in a life of its own: whoever
    /// remembers a later generation of a register that went back takes it over all the same. Of what
    /// was before, nothing is sent any more.
    #[must_use]
    pub fn signed_in(&self, nonce: String, epoch: u64, record: Record) -> Self {
        let began_with = record.bootstrap_sha256.clone();
        let spent = began_with.map_or(Token::Nothing, Token::Configured);
        let mut next = self.renewed(nonce, &spent, record);
        next.epoch = epoch;
        // What an attempt under way sends is spent by it, whatever comes of that.
        if let Some(Intent { spends: Token::Configured(digest), .. }) = &self.intent {
            next.begin(digest);
        }
        next
    }

    /// The identity provider refused `spent`: it is over, the rest is as it was.
    #[must_use]
    pub fn refused(&self, nonce: String, spent: &Token) -> Self {
        let mut next = self.next(nonce);
        let stored = self.record.as_ref().is_some_and(|record| record.refresh_token.is_some());
        if let Token::Configured(digest) = spent {
            next.begin(digest);
        }
        // A configured one that is no good does not end a chain that is.
        if *spent == Token::Stored || !stored {
            next.dead = Some(Dead::Refused);
        }
        next.doubt = next.doubt.filter(|doubt| doubt.about != *spent);
        next.intent = None;
        next
    }

    /// The attempt failed, and nothing was spent.
    #[must_use]
    pub fn failed(&self, nonce: String) -> Self {
        Self { intent: None, ..self.next(nonce) }
    }

    /// This one, with what everybody waits after a `failure`, if there is something.
    #[must_use]
    pub fn paused(self, failure: Option<(Duration, u32)>) -> Self {
        let pause = failure.map(|(wait, failures)| Pause {
            by: self.nonce.clone(),
            wait: whole(wait),
            failures,
        });
        Self { pause: pause.or(self.pause), ..self }
    }

    /// The register went back to `found`: what was known, in a life of its own. Who is calling with
    /// that, or with what was put in place since, goes on: what comes of it is the newest. If refresh
    /// tokens rotate, nobody sends the one that was known: it may not be.
    #[must_use]
    pub fn brought_back(
        &self,
        nonce: String,
        epoch: u64,
        found: Option<&Self>,
        rotates: bool,
    ) -> Self {
        let mut next = self.next(nonce);
        next.epoch = epoch;
        next.dead = next.dead.or(rotates.then_some(Dead::Lost));
        if let Some(found) = found {
            next.intent = next.intent.or_else(|| found.intent_unknown_to(self));
            next.recall(found);
        }
        next
    }

    /// This one, with what a later one of the same generation says about what was sent: by whom,
    /// who may be calling still, how often, and with what end. `None` if that is nothing more.
    #[must_use]
    pub fn recalling(&self, later: &Self) -> Option<Self> {
        let mut whole = self.clone();
        whole.intent = whole.intent.or_else(|| later.intent.clone());
        whole.dead = whole.dead.or(later.dead);
        whole.recall(later);
        if whole == *self {
            return None;
        }
        whole.revision = whole.revision.max(later.revision);
        Some(whole)
    }

    fn recall(&mut self, other: &Self) {
        let sends = |doubt: &Option<Doubt>| doubt.as_ref().map_or(0, |doubt| doubt.sends);
        if sends(&other.doubt) > sends(&self.doubt) {
            self.doubt.clone_from(&other.doubt);
        }
        for digest in &other.begun {
            if !self.begun.contains(digest) {
                self.begin(digest);
            }
        }
    }

    /// What was kept elsewhere until now moves in where nothing is: it settles everything, since what
    /// that chain began with is spent.
    #[must_use]
    pub fn moved_in(&self, nonce: String, record: Record) -> Self {
        let began_with = record.bootstrap_sha256.clone();
        let spent = began_with.map_or(Token::Nothing, Token::Configured);
        self.doubted(nonce.clone()).renewed(nonce, &spent, record)
    }

    /// The intent that stands is over, and nobody knows what came of it.
    #[must_use]
    pub fn doubted(&self, nonce: String) -> Self {
        let mut next = self.next(nonce);
        next.doubt = self.doubt_about_intent();
        next.intent = None;
        next
    }

    /// What is in doubt if the intent that stands is over without a word.
    #[must_use]
    pub fn doubt_about_intent(&self) -> Option<Doubt> {
        let Some(intent) = self.intent.as_ref().filter(|i| i.spends != Token::Nothing) else {
            return self.doubt.clone();
        };
        let (about, since) = (intent.spends.clone(), intent.since);
        Some(match self.doubt.as_ref().filter(|doubt| doubt.about == about) {
            Some(doubt) => Doubt { sends: doubt.sends + 1, ..doubt.clone() },
            None => Doubt { about, since, sends: 1 },
        })
    }

    /// True if a configured refresh token with this digest was never taken up: somebody put it in
    /// place.
    #[must_use]
    pub fn is_new(&self, digest: &str) -> bool {
        let token = Token::Configured(digest.to_owned());
        let sent = self.intent.as_ref().is_some_and(|intent| intent.spends == token)
            || self.doubt.as_ref().is_some_and(|doubt| doubt.about == token);
        !sent && !self.begun.iter().any(|begun| begun == digest)
    }

    /// Who is calling with a configured refresh token that `other` knows nothing of: that chain is newer.
    fn intent_unknown_to(&self, other: &Self) -> Option<Intent> {
        let new =
            |token: &Token| matches!(token, Token::Configured(digest) if other.is_new(digest));
        self.intent.clone().filter(|intent| new(&intent.spends))
    }

    /// True if a configured refresh token was taken up last that `other` knows nothing of.
    #[must_use]
    pub fn began_since(&self, other: &Self) -> bool {
        self.begun.last().is_some_and(|digest| !other.begun.contains(digest))
    }

    /// True if it knows what nothing else does: a refresh token that came from the identity provider's
    /// last answer, or that one is over.
    #[must_use]
    pub fn is_precious(&self) -> bool {
        let newest = self.record.as_ref().and_then(|record| record.refresh_token.as_ref());
        let digest = newest.map(|newest| Fingerprint::of(newest.as_bytes()).to_hex());
        self.dead.is_some() || digest.is_some_and(|digest| !self.begun.contains(&digest))
    }

    fn begin(&mut self, digest: &str) {
        self.begun.retain(|begun| begun != digest);
        self.begun.push(digest.to_owned());
        let excess = self.begun.len().saturating_sub(MAX_BEGUN);
        self.begun.drain(..excess);
    }
}

/// Whole milliseconds.
#[must_use]
pub fn whole(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds of `now` since the epoch.
#[must_use]
pub fn millis(now: Moment) -> u64 {
    whole(now.wall.duration_since(std::time::UNIX_EPOCH).unwrap_or_default())
}

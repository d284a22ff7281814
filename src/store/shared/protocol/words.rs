//! The words of the protocol: what comes in, what goes out, and why there may be nothing to do.

use std::time::Duration;

use crate::clock::Moment;
use crate::secret::Secret;
use crate::store::Record;
use crate::store::shared::Version;
use crate::store::shared::document::{Dead, Document};

/// What is the same for every attempt.
#[derive(Clone, Debug)]
pub struct Terms {
    /// How long an intent stands.
    pub lease: Duration,
    /// How long a new register is left alone, and by a new process any, so that those who know what
    /// was lost can object.
    pub settle: Duration,
    /// How long the identity provider accepts a refresh token that it has replaced.
    pub grace: Option<Duration>,
    /// Refresh tokens are replaced when they are used.
    pub rotates: bool,
    /// There is another way in for when the refresh token may be spent.
    pub fallback: bool,
    /// Whose tokens are wanted.
    pub account: Option<String>,
}

impl Terms {
    /// When an intent that was written `since` must have been answered: before others may think it
    /// over, since they saw it later.
    pub(super) fn call(&self) -> Duration {
        self.lease.mul_f64(2.0 / 3.0)
    }
}

/// What comes in.
pub enum Event {
    /// The owner wants something; whatever was under way is over.
    Begin(Goal),
    /// What was read.
    Read(Version, Option<Box<Document>>),
    /// What came of the write.
    Swapped(Fate),
    /// What came of the call.
    Answered(Outcome),
}

/// What the owner may want.
#[derive(Clone)]
pub enum Goal {
    /// To know what the others did.
    Look,
    /// To call the identity provider.
    Claim(Claim),
    /// To have the last outcome written, if it is not yet.
    Settle,
}

/// With what a claim is made.
#[derive(Clone, Default)]
pub struct Claim {
    /// SHA-256 of the configured refresh token, as it is now.
    pub configured: Option<String>,
    /// The pause that everybody has after a failure does not count: an input changed.
    pub hasty: bool,
}

/// A [`Swapped`](crate::store::shared::Swapped), without the reason.
pub enum Fate {
    /// Written.
    Done(Version),
    /// Not written, somebody else was faster.
    Conflict,
    /// Only reading can tell.
    Unknown,
}

/// What came of a call.
#[derive(Clone)]
pub enum Outcome {
    /// New tokens.
    Renewed(Box<Record>),
    /// The refresh token was refused; and if another way in failed after that, as [`Self::Failed`].
    Refused(Option<(Duration, u32)>),
    /// The refresh token was sent, and no answer came.
    Lost,
    /// It failed otherwise, and nothing was spent: how long all wait, and how many failures in a row
    /// that makes.
    Failed(Option<(Duration, u32)>),
}

/// What is to be done next. A read or a write that surely did not happen has no event: the owner is
/// told, and begins again later.
pub enum Effect {
    /// Read the register; then [`Event::Read`].
    Read,
    /// Write conditionally; then [`Event::Swapped`].
    Swap(Version, Box<Document>),
    /// Tell the owner; then [`Event::Begin`] or [`Event::Answered`].
    Tell(Verdict),
    /// Nothing that was written got through: the register is of no use now; then [`Event::Begin`].
    GiveUp,
}

/// What the owner is to do.
pub enum Verdict {
    /// Call the identity provider, and say what came of it.
    Call(Call),
    /// Take this over: somebody else made it.
    Adopt(Box<Document>),
    /// Nothing, for this reason.
    Rest(Rest),
}

impl From<Rest> for Effect {
    fn from(rest: Rest) -> Self {
        Self::Tell(Verdict::Rest(rest))
    }
}

/// A call that nobody else may make now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What to send.
    pub sends: Sends,
    /// It may be spent: another way in is better.
    pub in_doubt: bool,
    /// Nothing may be sent any more from then on, and the answer should be there.
    pub until: Moment,
    /// Failures of all processes in a row.
    pub failures: u32,
}

/// The refresh token that a call sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sends {
    /// None: another way in is taken.
    Nothing,
    /// That of the document over which the intent was written.
    Stored(Secret),
    /// The configured one, by its SHA-256.
    Configured(String),
}

/// Why there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// All is written, and nothing is new.
    Settled,
    /// Somebody else is at it, until then if no word comes.
    Busy(Moment),
    /// The register, or this process, is new: others may object until then.
    New(Moment),
    /// The refresh token may be spent, and the access token is used up first, until then.
    Doubtful(Moment),
    /// The last attempt failed, of whichever process.
    Paused(Moment),
    /// The refresh token is over.
    Dead(Dead),
    /// The register holds the tokens of another account.
    Foreign,
}

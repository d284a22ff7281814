//! Where access tokens come from: the trait that the refresher drives, and the closed set of
//! sources that a configuration can name.
//!
//! A source turns "now" and the refresh token in force into a new access token or a classified
//! error. It keeps no token, decides no schedule and stores nothing.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use thiserror::Error;

use crate::clock::Moment;
use crate::secret::{Fingerprint, Secret, SecretError};
use crate::token::AccessToken;

pub mod answer;
pub mod assertion;
mod der;
pub mod dialect;
pub mod discovery;
pub mod endpoint;
pub mod exchange;
pub mod exec;
pub mod expiry;
pub mod file;
pub mod json;
pub mod oauth2;
mod proof;
pub mod signing;
pub mod speaker;
pub mod template;
pub mod vendor;

/// How much is taken from whoever says what the token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The largest answer that is read, in bytes.
    pub answer_bytes: usize,
    /// From the first byte sent to an identity provider to the last one read, connecting included.
    pub answer_time: Duration,
    /// The longest token that is injected, in bytes.
    pub token_bytes: usize,
    /// The life of a token that does not tell its own.
    pub default_lifetime: Duration,
}

impl Bounds {
    /// No token is longer, whatever the configuration says.
    pub const LONGEST_TOKEN: usize = crate::token::MAX_TOKEN_BYTES;
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            answer_bytes: 1 << 20,
            answer_time: Duration::from_secs(10),
            token_bytes: 16 << 10,
            default_lifetime: Duration::from_mins(5),
        }
    }
}

/// What one attempt is made with.
#[derive(Clone, Copy)]
pub struct Attempt<'a> {
    /// Read before anything is sent; lifetimes count from here.
    pub now: Moment,
    /// The refresh token in force, for sources that use one.
    pub refresh_token: Option<&'a Secret>,
    /// The last answer to `refresh_token` was lost: it may be spent. A source that knows another
    /// way in takes that.
    pub in_doubt: bool,
    /// The token in force, while it is usable.
    pub held: Option<&'a AccessToken>,
    /// An upstream refused that one.
    pub refused: bool,
    /// From then on nothing is sent any more, and no answer is waited for: somebody else may be at it.
    pub until: Option<Moment>,
}

impl Attempt<'_> {
    /// One that is made with nothing at hand.
    #[must_use]
    pub fn at(now: Moment) -> Self {
        let (refresh_token, held, until) = (None, None, None);
        Self { now, refresh_token, in_doubt: false, held, refused: false, until }
    }
}

/// What a successful attempt brings.
#[derive(Debug)]
pub struct Fetched {
    /// The new access token.
    pub token: AccessToken,
    /// A new refresh token, which replaces the one sent (RFC 6749 §6); `None` keeps it.
    pub refresh_token: Option<Secret>,
    /// The refresh token at hand was refused or is in doubt, and another way in was taken: it is not
    /// to be sent again.
    pub gave_up: bool,
    /// The identity provider can lengthen the token's life.
    pub renewable: bool,
}

/// Obtains access tokens.
pub trait TokenSource: Send {
    /// Obtains one, within a deadline of its own.
    fn fetch(
        &mut self,
        attempt: Attempt<'_>,
    ) -> impl Future<Output = Result<Fetched, FetchError>> + Send;

    /// Revokes `token` (RFC 7009), where the identity provider offers that.
    fn revoke(
        &mut self,
        token: &AccessToken,
    ) -> impl Future<Output = Result<(), FetchError>> + Send;

    /// A digest of every secret and file that a fetch would read now; tells whether trying again
    /// after a terminal answer can have another outcome.
    fn inputs(&self) -> Fingerprint;

    /// A digest of the certificate that tokens may be bound to (RFC 8705 §3), as it is now; `None` if
    /// there is none, or it cannot be read.
    fn certificate(&self) -> Option<Fingerprint> {
        None
    }

    /// What this source needs from the refresher.
    fn traits(&self) -> Traits;
}

/// What the refresher has to know about a source.
#[derive(Clone, Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // facts that do not depend on each other
pub struct Traits {
    /// The token itself is read from a file that somebody else replaces: look at it often, and
    /// fetch when it changed.
    pub watched: bool,
    /// Answers may replace the refresh token, so a fetch under way is never abandoned.
    pub rotating: bool,
    /// Terminal answers are final until an input changes: a one-time code is good once.
    pub one_time: bool,
    /// Another way in exists for when the refresh token may be spent.
    pub fallback: bool,
    /// How long the identity provider accepts a refresh token that it has already replaced.
    pub rotation_grace: Option<Duration>,
    /// Answers usually do replace the refresh token.
    pub rotation_expected: bool,
    /// Tokens are bound to a key of this process: one from a former process is of no use.
    pub bound: bool,
}

/// The sources that a configuration can name.
pub enum Source {
    /// A token endpoint, spoken to in a dialect.
    Dialect(Box<speaker::DialectSource>),
    /// A file that somebody else keeps current.
    File(file::FileSource),
    /// A program that prints one.
    Exec(exec::ExecSource),
}

impl TokenSource for Source {
    async fn fetch(&mut self, attempt: Attempt<'_>) -> Result<Fetched, FetchError> {
        match self {
            Self::Dialect(source) => source.fetch(attempt).await,
            Self::File(source) => source.fetch(attempt).await,
            Self::Exec(source) => source.fetch(attempt).await,
        }
    }

    async fn revoke(&mut self, token: &AccessToken) -> Result<(), FetchError> {
        match self {
            Self::Dialect(source) => source.revoke(token).await,
            Self::File(source) => source.revoke(token).await,
            Self::Exec(source) => source.revoke(token).await,
        }
    }

    fn inputs(&self) -> Fingerprint {
        match self {
            Self::Dialect(source) => source.inputs(),
            Self::File(source) => source.inputs(),
            Self::Exec(source) => source.inputs(),
        }
    }

    fn certificate(&self) -> Option<Fingerprint> {
        match self {
            Self::Dialect(source) => source.certificate(),
            Self::File(_) | Self::Exec(_) => None,
        }
    }

    fn traits(&self) -> Traits {
        match self {
            Self::Dialect(source) => source.traits(),
            Self::File(source) => source.traits(),
            Self::Exec(source) => source.traits(),
        }
    }
}

/// Whether trying again by itself makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It may pass: back off and try again.
    Transient,
    /// The identity provider said no: pause for long, or until an input changes.
    Terminal,
}

/// Why an attempt failed, from a closed set; the word in logs and `/status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No connection, or it broke.
    Network,
    /// The peer's certificate or the handshake was not acceptable.
    Tls,
    /// No answer within the deadline.
    Timeout,
    /// The identity provider found the request malformed.
    BadRequest,
    /// The grant (refresh token, API token, password) is not accepted.
    BadGrant,
    /// The client or its authentication is not accepted.
    BadClient,
    /// A person has to act.
    NeedsOperator,
    /// No token endpoint there.
    NotFound,
    /// The identity provider reports a conflict.
    Conflict,
    /// Too many requests.
    RateLimited,
    /// The identity provider failed.
    Server,
    /// An answer that is no token answer.
    Unusable,
    /// A secret or token file could not be read.
    Input,
    /// A program did not run or did not succeed.
    Command,
}

impl Reason {
    /// The word for logs, `/status` and dialect files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::BadRequest => "bad_request",
            Self::BadGrant => "bad_grant",
            Self::BadClient => "bad_client",
            Self::NeedsOperator => "needs_operator",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::RateLimited => "rate_limited",
            Self::Server => "server",
            Self::Unusable => "unusable",
            Self::Input => "input",
            Self::Command => "command",
        }
    }
}

/// A classified failure. It shows nothing that came from outside except closed words and numbers.
#[derive(Debug, Error)]
pub struct FetchError {
    /// Whether to try again.
    pub class: Class,
    /// What kind of failure.
    pub reason: Reason,
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// The OAuth `error`, if it was one that we know.
    pub oauth_error: Option<&'static str>,
    /// Which of the dialect's matchers fired.
    pub matcher: Option<String>,
    /// What a person can do about it.
    pub hint: Option<String>,
    /// The server's `Retry-After`.
    pub retry_after: Option<Duration>,
    /// The request went out and no whole answer came back: a rotating refresh token may be spent.
    pub ambiguous: bool,
    /// A new refresh token that came with an unusable answer: it replaces the one sent all the same.
    pub rotated: Option<Box<Secret>>,
    /// The refresh token was refused, and it is another way in that failed after that: it is not to be
    /// sent again.
    pub gave_up: bool,
    /// The cause, when it lies on our side.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl FetchError {
    /// A failure with nothing else known.
    #[must_use]
    pub fn new(class: Class, reason: Reason) -> Self {
        Self {
            class,
            reason,
            status: None,
            oauth_error: None,
            matcher: None,
            hint: None,
            retry_after: None,
            ambiguous: false,
            rotated: None,
            gave_up: false,
            source: None,
        }
    }

    /// True if only a person can mend it.
    #[must_use]
    pub fn needs_operator(&self) -> bool {
        self.reason == Reason::NeedsOperator
    }

    /// Adds what lies beneath.
    #[must_use]
    pub fn caused_by(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => {
                write!(f, "identity provider answered {status} ({})", self.reason.as_str())?;
            }
            None => write!(f, "no token answer ({})", self.reason.as_str())?,
        }
        if let Some(error) = self.oauth_error {
            write!(f, ", error {error}")?;
        }
        if let Some(matcher) = &self.matcher {
            write!(f, ", rule {matcher}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, ": {hint}")?;
        }
        Ok(())
    }
}

impl From<SecretError> for FetchError {
    /// Transient: the file may be about to be replaced, and nothing was sent.
    fn from(error: SecretError) -> Self {
        Self::new(Class::Transient, Reason::Input).caused_by(error)
    }
}

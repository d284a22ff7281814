//! One rotating refresh token for many processes, on an engine that exists already.
//!
//! All that is asked of the engine is a [`Register`]: one small content under a version, replaced
//! only by whoever has seen the present one. Nothing here believes in locks or time-outs of the
//! engine. What the processes write there to agree is the business of `document` and `protocol`.

use std::fmt;
use std::time::Duration;

use thiserror::Error;
use zeroize::Zeroizing;

use crate::secret::SecretRef;

mod agreement;
pub mod document;
pub mod kubernetes;
#[cfg(test)]
pub mod memory;
pub mod protocol;
#[cfg(feature = "redis")]
pub mod redis;
pub mod seal;

pub use agreement::{Agreement, Party};

/// How long an intent stands unless the configuration says otherwise.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// What a configuration says about a store that several processes share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where.
    pub place: Place,
    /// 32 bytes in base64: with it everything is encrypted.
    pub encryption_key: Option<SecretRef>,
    /// How long the others wait for a process that has begun to refresh; that one waits for two
    /// thirds of it.
    pub deadline: Duration,
}

/// The registers that a configuration can name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A Secret in Kubernetes.
    Kubernetes(kubernetes::Place),
    /// A key at a Redis server.
    #[cfg(feature = "redis")]
    Redis(redis::Place),
    /// For tests: a name in this process.
    #[cfg(test)]
    Memory(memory::Memory),
}

impl Place {
    /// Whether both are the same register, however it is reached.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            #[cfg(feature = "redis")]
            (Self::Redis(one), Self::Redis(other)) => one.is(other),
            (Self::Kubernetes(one), Self::Kubernetes(other)) => one.is(other),
            _ => self == other,
        }
    }

    /// What it is called at its engine; what is encrypted for one is no good for another.
    #[must_use]
    pub fn register(&self) -> String {
        match self {
            Self::Kubernetes(place) => place.to_string(),
            #[cfg(feature = "redis")]
            Self::Redis(place) => place.key.clone(),
            #[cfg(test)]
            Self::Memory(_) => "memory".to_owned(),
        }
    }
}

impl fmt::Display for Place {
    /// Without a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kubernetes(place) => place.fmt(f),
            #[cfg(feature = "redis")]
            Self::Redis(place) => place.fmt(f),
            #[cfg(test)]
            Self::Memory(_) => f.write_str("memory"),
        }
    }
}

impl Settings {
    /// The secrets that reaching and reading it takes, by the keys that name them.
    pub fn secrets(&self) -> impl Iterator<Item = (&'static str, &SecretRef)> {
        let password = match &self.place {
            // Read anew for each call.
            Place::Kubernetes(_) => None,
            #[cfg(feature = "redis")]
            Place::Redis(place) => place.password.as_ref(),
            #[cfg(test)]
            Place::Memory(_) => None,
        };
        let (key, password) = (self.encryption_key.iter(), password.into_iter());
        key.map(|key| ("encryption_key", key)).chain(password.map(|word| ("password", word)))
    }
}

/// The engines that there are.
enum Engine {
    Kubernetes(Box<kubernetes::Kubernetes>),
    #[cfg(feature = "redis")]
    Redis(Box<redis::Redis>),
    #[cfg(test)]
    Memory(memory::Memory),
}

impl Engine {
    fn new(place: &Place) -> Self {
        match place {
            Place::Kubernetes(place) => {
                Self::Kubernetes(Box::new(kubernetes::Kubernetes::new(place.clone())))
            }
            #[cfg(feature = "redis")]
            Place::Redis(place) => Self::Redis(Box::new(redis::Redis::new(place.clone()))),
            #[cfg(test)]
            Place::Memory(memory) => Self::Memory(memory.clone()),
        }
    }
}

impl Register for Engine {
    async fn read(&mut self) -> Result<Held, RegisterError> {
        match self {
            Self::Kubernetes(kubernetes) => kubernetes.read().await,
            #[cfg(feature = "redis")]
            Self::Redis(redis) => redis.read().await,
            #[cfg(test)]
            Self::Memory(memory) => memory.read().await,
        }
    }

    async fn swap(
        &mut self,
        expected: &Version,
        content: &Content,
    ) -> Result<Swapped, RegisterError> {
        match self {
            Self::Kubernetes(kubernetes) => kubernetes.swap(expected, content).await,
            #[cfg(feature = "redis")]
            Self::Redis(redis) => redis.swap(expected, content).await,
            #[cfg(test)]
            Self::Memory(memory) => memory.swap(expected, content).await,
        }
    }

    async fn changed(&mut self) {
        match self {
            Self::Kubernetes(kubernetes) => kubernetes.changed().await,
            #[cfg(feature = "redis")]
            Self::Redis(redis) => redis.changed().await,
            #[cfg(test)]
            Self::Memory(memory) => memory.changed().await,
        }
    }

    fn listens(&self) -> bool {
        match self {
            Self::Kubernetes(kubernetes) => kubernetes.listens(),
            #[cfg(feature = "redis")]
            Self::Redis(redis) => redis.listens(),
            #[cfg(test)]
            Self::Memory(memory) => memory.listens(),
        }
    }
}

/// A register at an engine that several processes share.
///
/// Any of these futures may be dropped before it is ready (the caller bounds them all), and the next
/// call must work all the same: an implementation connects, and connects again, by itself.
pub trait Register: Send {
    /// Reads what is held now, at the place where writes are decided: no copy that may lag behind.
    ///
    /// # Errors
    /// [`RegisterError`]; nothing is known then.
    fn read(&mut self) -> impl Future<Output = Result<Held, RegisterError>> + Send;

    /// Replaces what is held by `content` if it is still what was read as `expected`, and tells the
    /// other processes.
    ///
    /// # Errors
    /// [`RegisterError`]: it was not written, and never will be. When that is not certain, as after
    /// a connection that broke while the answer was awaited, it is [`Swapped::Unknown`].
    fn swap(
        &mut self,
        expected: &Version,
        content: &Content,
    ) -> impl Future<Output = Result<Swapped, RegisterError>> + Send;

    /// Returns when another process may have written since the last return, and each time that the
    /// way of knowing was interrupted. It may return for no reason, though not in a loop, and need
    /// never return: everybody polls as well.
    fn changed(&mut self) -> impl Future<Output = ()> + Send;

    /// Whether [`Self::changed`] hears of writes at present; who does not looks more often.
    fn listens(&self) -> bool;
}

/// What a register holds, as its owner wants it: it carries secrets, and is wiped when dropped.
pub type Content = Zeroizing<Vec<u8>>;

/// The most that is written or read, in bytes: two tokens of 16 KiB and their frame fit many times.
pub const MAX_CONTENT_BYTES: usize = 256 << 10;

/// Which write it is that a register holds the content of; also of no content yet. It is the
/// engine's own word, compared and never interpreted, and no two writes share one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(pub String);

/// What was read.
pub struct Held {
    /// For the next [`Register::swap`].
    pub version: Version,
    /// `None` if nothing was written yet.
    pub content: Option<Content>,
}

/// What came of a conditional write.
#[derive(Debug)]
pub enum Swapped {
    /// It is written durably, as this version.
    Done(Version),
    /// Somebody else wrote before: not written.
    Conflict,
    /// Written, not written, or about to be: only reading can tell.
    Unknown(RegisterError),
}

/// Why a register is of no use now. Names the place, never what it holds.
#[derive(Debug, Error)]
pub enum RegisterError {
    /// It may be again by itself.
    #[error("{place} cannot be reached")]
    Unreachable {
        /// Where it is, without a password.
        place: String,
        /// The reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A person has to mend something: access, or what lies there.
    #[error("{place} {problem}")]
    Unusable {
        /// Where it is, without a password.
        place: String,
        /// What is wrong, and what to do about it.
        problem: String,
    },
}

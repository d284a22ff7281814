//! One rotating refresh token for many processes, on an engine that exists already.
//!
//! All that is asked of the engine is a [`Register`]: one small content under a version, replaced
//! only by whoever has seen the present one. Nothing here believes in locks or time-outs of the
//! engine. What the processes write there to agree is the business of `document` and `protocol`.

use thiserror::Error;
use zeroize::Zeroizing;

pub mod document;
pub mod protocol;

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

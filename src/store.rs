//! Where a rotating refresh token lives between processes.
//!
//! A [`Record`] is what is kept; a [`Store`] keeps it. [`Rotation`] is the refresher's view of both.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::secret::Secret;

pub mod file;
mod handover;
mod rotation;
pub mod shared;

pub use handover::{Destination, Handover};
pub use rotation::{Identity, Rotation};

/// What a store keeps about one credential.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Record {
    /// The newest refresh token; `None` if it was given up for another way in.
    pub refresh_token: Option<Zeroizing<String>>,
    /// SHA-256 of the configured refresh token that this chain began with; another one in the
    /// configuration means that somebody signed in anew.
    pub bootstrap_sha256: Option<String>,
    /// The access token that came along, so that a restart costs no refresh.
    pub access_token: Option<Zeroizing<String>>,
    /// When the access token was obtained, in seconds since the epoch.
    pub obtained_at: u64,
    /// When the access token expires, in seconds since the epoch, rounded down.
    pub expires_at: u64,
    /// Whose tokens these are; a record without it is anybody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
}

impl Record {
    fn is_refreshed_by(&self, sent: &Secret) -> bool {
        self.refresh_token.as_ref().is_some_and(|newest| newest.as_str() == sent.expose())
    }
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
        "{path} {problem}; restore it, or delete it to begin again with the configured refresh token \
         or another login"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// What it holds may be known to others.
    #[error("{path} may be read by others; run chmod 600 {path}, and sign in anew if somebody has")]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// It is another user's, who could not read what this process writes, or may not be trusted.
    #[error("{path} belongs to user {user}; run this as that user: sudo -u '#{user}' …")]
    AnothersFile {
        /// The file.
        path: PathBuf,
        /// The owner's user id.
        user: u32,
    },
    /// What a login left there is for another account than the configured one.
    #[error("the store holds a login of another account; log in again with this configuration")]
    AnothersLogin,
    /// Another process owns it.
    #[error("{path} is held by {holder}: one refresh token has one owner")]
    Held {
        /// The lock file.
        path: PathBuf,
        /// Who holds it, as that process wrote it.
        holder: String,
    },
    /// A store that several processes share.
    #[error(transparent)]
    Shared(#[from] shared::RegisterError),
}

impl StoreError {
    /// True if nobody but a person may mend it: it is damaged, or somebody else's, or exposed.
    #[must_use]
    pub fn needs_operator(&self) -> bool {
        matches!(self, Self::Unreadable { .. } | Self::Exposed { .. } | Self::AnothersFile { .. })
    }
}

/// What a configuration says about a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreSettings {
    /// A file, for one process.
    File(PathBuf),
    /// One that several processes share.
    Shared(Box<shared::Settings>),
}

impl StoreSettings {
    /// Whether both are the same place.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(one), Self::File(other)) => one == other,
            (Self::Shared(one), Self::Shared(other)) => one.place.is(&other.place),
            _ => false,
        }
    }

    /// The files that it takes to reach and read it, and that may be replaced.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let shared = match self {
            Self::File(_) => None,
            Self::Shared(settings) => Some(&**settings),
        };
        let secrets = shared.into_iter().flat_map(shared::Settings::secrets);
        secrets.filter_map(|(_, secret)| secret.path())
    }
}

impl fmt::Display for StoreSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Shared(settings) => settings.place.fmt(f),
        }
    }
}

/// The stores of one process, which it reads once and owns then.
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

    /// Whether a login can leave something there, as far as can be told beforehand.
    ///
    /// # Errors
    /// [`StoreError`]: why not.
    pub fn can_leave(&self) -> Result<(), StoreError> {
        match self {
            Self::File(file) => file.can_leave(),
        }
    }

    /// Leaves what a login brought for whoever owns the place, durably.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was left.
    pub fn leave(&self, record: &Record) -> Result<(), StoreError> {
        match self {
            Self::File(file) => file.leave(record),
        }
    }

    /// What a login left and the owner has not taken up yet.
    ///
    /// # Errors
    /// [`StoreError`]: it cannot be read, or anybody could have left it.
    pub fn left(&self) -> Result<Option<Record>, StoreError> {
        match self {
            Self::File(file) => file.left(),
        }
    }

    /// Puts what a login left in the place of the record; only the owner may.
    ///
    /// # Errors
    /// [`StoreError`]; it is still there.
    pub fn take_up(&mut self) -> Result<Option<Record>, StoreError> {
        match self {
            Self::File(file) => file.take_up(),
        }
    }

    /// Whether both are the same place.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        let (Self::File(one), Self::File(other)) = (self, other);
        one.path() == other.path()
    }
}

//! A secret that cannot be printed by accident, and where one is read from.
//!
//! A [`SecretRef`] is what the configuration holds; it is read again at each use, because secrets
//! are replaced on disk while the process runs. What a secret means is the caller's business.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::{constant_time, digest};
use thiserror::Error;
use zeroize::{ZeroizeOnDrop, Zeroizing};

/// The largest secret file that is read, in bytes.
pub const MAX_SECRET_BYTES: u64 = 1 << 20;

/// Text that is wiped when dropped and shows itself only through [`Secret::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl ZeroizeOnDrop for Secret {}

impl Secret {
    /// Takes `text` over; the caller keeps no copy.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself. Every call is a place to review.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// SHA-256 of the text: tells whether two secrets are the same without keeping either.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.expose().as_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A SHA-256 digest, in lowercase hexadecimal where it is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut out = [0; 32];
        out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
        Self(out)
    }

    /// True if both are the same, found out in a time that does not depend on where they differ.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }

    /// 64 hexadecimal digits.
    #[must_use]
    pub fn to_hex(self) -> String {
        use fmt::Write;
        self.0.iter().fold(String::with_capacity(64), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

/// Where a secret is read from, again at each use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretRef {
    /// A file: a mounted Kubernetes Secret, a systemd credential.
    File(PathBuf),
    /// An environment variable. Visible to anybody who may read the process's environment.
    Env(String),
    /// Written into the configuration itself.
    Value(Secret),
}

impl SecretRef {
    /// Reads the secret as it is now.
    ///
    /// # Errors
    /// [`SecretError`] names the place and what is wrong there, never the content.
    pub fn read(&self) -> Result<Secret, SecretError> {
        self.read_lines(Lines::One)
    }

    /// Reads it as text of any number of lines: a private key in PEM, a JSON document.
    ///
    /// # Errors
    /// As [`SecretRef::read`].
    pub fn read_text(&self) -> Result<Secret, SecretError> {
        self.read_lines(Lines::Any)
    }

    fn read_lines(&self, lines: Lines) -> Result<Secret, SecretError> {
        match self {
            Self::File(path) => read_lines(path, lines),
            Self::Env(name) => {
                let text = std::env::var(name).map_err(|_| SecretError::Env(name.clone()))?;
                clean(text, &self.place(), lines)
            }
            Self::Value(secret) => Ok(secret.clone()),
        }
    }

    /// Where it is, for messages.
    #[must_use]
    pub fn place(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Env(name) => format!("environment variable {name}"),
            Self::Value(_) => "the value in the configuration".to_owned(),
        }
    }

    /// The file, for those that watch it.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Env(_) | Self::Value(_) => None,
        }
    }
}

/// How many lines a secret may have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lines {
    One,
    Any,
}

/// Why a secret could not be read.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The operating system would not give the file.
    #[error("cannot read {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A directory, FIFO, socket or device: reading one could hang or never end.
    #[error("{0} is not a regular file")]
    NotAFile(PathBuf),
    /// More than [`MAX_SECRET_BYTES`].
    #[error("{0} is larger than 1 MiB")]
    TooLarge(PathBuf),
    /// Unset, or not UTF-8.
    #[error("environment variable {0} is not set to UTF-8 text")]
    Env(String),
    /// The text cannot be a credential.
    #[error("{place} {problem}")]
    Malformed {
        /// The file or variable.
        place: String,
        /// What is wrong with the text.
        problem: &'static str,
    },
}

/// Reads a file as one line of text.
///
/// # Errors
/// As [`SecretRef::read`].
pub fn read_file(path: &Path) -> Result<Secret, SecretError> {
    read_lines(path, Lines::One)
}

fn read_lines(path: &Path, lines: Lines) -> Result<Secret, SecretError> {
    let bytes = read_bytes(path)?;
    let place = path.display().to_string();
    match std::str::from_utf8(&bytes) {
        Ok(text) => clean(text.to_owned(), &place, lines),
        Err(_) => Err(SecretError::Malformed { place, problem: "is not UTF-8 text" }),
    }
}

/// Reads a whole small regular file; never blocks on a FIFO.
///
/// # Errors
/// As [`SecretRef::read`].
pub fn read_bytes(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let io = |source| SecretError::Io { path: path.to_owned(), source };
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file: File =
        OpenOptions::new().read(true).custom_flags(nonblocking).open(path).map_err(io)?;
    if !file.metadata().map_err(io)?.is_file() {
        return Err(SecretError::NotAFile(path.to_owned()));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(MAX_SECRET_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > MAX_SECRET_BYTES {
        return Err(SecretError::TooLarge(path.to_owned()));
    }
    Ok(bytes)
}

/// Trims what editors and `echo` add (a byte order mark, trailing newlines) and refuses the rest.
fn clean(text: String, place: &str, lines: Lines) -> Result<Secret, SecretError> {
    let text = Zeroizing::new(text);
    let trimmed = text.trim_start_matches('\u{feff}').trim_end_matches(['\n', '\r']);
    let problem = if trimmed.is_empty() {
        "is empty"
    } else if trimmed.contains('\0') {
        "contains a NUL byte"
    } else if lines == Lines::One && trimmed.contains(['\n', '\r']) {
        "contains more than one line"
    } else {
        return Ok(Secret::new(trimmed.to_owned()));
    };
    Err(SecretError::Malformed { place: place.to_owned(), problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_the_secret() {
        let secret = SecretRef::Value(Secret::new("hunter2".into()));
        assert_eq!(format!("{secret:?}"), "Value(Secret(…))");
    }

    /// That the compiler keeps it is zeroize's promise; that it is asked for is ours.
    #[test]
    fn what_holds_a_secret_is_wiped_when_dropped() {
        fn wiped(_: &impl ZeroizeOnDrop) {}
        let secret = Secret::new("hunter2".into());
        wiped(&secret);
        wiped(&secret.0);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        std::fs::write(&path, "hunter2").unwrap();
        wiped(&read_bytes(&path).unwrap());
    }

    #[test]
    fn files_are_trimmed_and_unfit_ones_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let read = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            SecretRef::File(path.clone()).read().map(|s| s.expose().to_owned())
        };
        assert_eq!(read("\u{feff}abc def\r\n".as_bytes()).unwrap(), "abc def");
        for (content, problem) in [
            (&b"\n"[..], "is empty"),
            (b"a\nb", "contains more than one line"),
            (b"a\0b", "contains a NUL byte"),
            (b"\xff\xfe", "is not UTF-8 text"),
        ] {
            let error = read(content).unwrap_err().to_string();
            assert!(error.ends_with(problem) && error.contains("/s"), "{error}");
        }
        assert!(matches!(read(&vec![b'a'; (1 << 20) + 1]), Err(SecretError::TooLarge(_))));
    }

    #[test]
    fn a_fifo_or_directory_is_refused_without_hanging() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        for path in [fifo, dir.path().to_owned()] {
            let error = SecretRef::File(path).read().unwrap_err();
            assert!(matches!(error, SecretError::NotAFile(_)), "{error}");
        }
    }
}

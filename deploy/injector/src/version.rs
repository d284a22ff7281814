//! What the cluster knows without a feature gate: native sidecars from 1.29 on, `preStop.sleep` from
//! 1.30 on.
//! The version is told at the start, or asked of the API server (`/version`).

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use http::Request;
use http::header::AUTHORIZATION;
use http_body_util::Full;
use serde::Deserialize;
use thiserror::Error;

use crate::call::{CallError, Server};
use crate::settings::Mode;

/// A version of Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u32,
    minor: u32,
}

impl Version {
    /// Native sidecars are there.
    #[must_use]
    pub fn has_native_sidecars(self) -> bool {
        self >= Self { major: 1, minor: 29 }
    }

    /// `preStop.sleep` is there. An older API server drops the word, and refuses the empty hook that
    /// is left.
    #[must_use]
    pub fn has_sleep_hook(self) -> bool {
        self >= Self { major: 1, minor: 30 }
    }

    /// The form for whom does not say.
    #[must_use]
    pub fn preferred_mode(self) -> Mode {
        if self.has_native_sidecars() { Mode::Native } else { Mode::Ordinary }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// It is not like `1.31` or `v1.31.2-vendor.1`.
#[derive(Debug, Error)]
#[error("{0:?} is not a version of Kubernetes; write it like 1.31")]
pub struct VersionError(String);

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let mut parts = text.strip_prefix('v').unwrap_or(text).splitn(3, '.').map(number);
        match (parts.next().flatten(), parts.next().flatten()) {
            (Some(major), Some(minor)) => Ok(Self { major, minor }),
            _ => Err(VersionError(text.to_owned())),
        }
    }
}

/// The number that a part begins with: some vendors say `29+`.
fn number(part: &str) -> Option<u32> {
    let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
    part[..end].parse().ok()
}

/// The API server, as a pod reaches it.
#[derive(Clone, Debug)]
pub struct ApiServer {
    /// Where it is, and how it is known.
    pub server: Server,
    /// For servers that want to know who asks; need not be there.
    pub token_file: PathBuf,
}

/// Why the version is not known.
#[derive(Debug, Error)]
pub enum AskError {
    /// No answer.
    #[error("the API server cannot be asked")]
    Call(#[from] CallError),
    /// It says something else.
    #[error("the API server's answer is no version")]
    Answer,
}

#[derive(Deserialize)]
struct Info {
    major: String,
    minor: String,
}

impl ApiServer {
    /// Asks for the version.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn version(&self) -> Result<Version, AskError> {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = http::Uri::from_static("/version");
        if let Some(token) = bearer(&self.token_file) {
            request.headers_mut().insert(AUTHORIZATION, token);
        }
        let answer = self.server.call(request).await?;
        let info: Info = serde_json::from_slice(&answer).map_err(|_| AskError::Answer)?;
        format!("{}.{}", info.major, info.minor).parse().map_err(|_| AskError::Answer)
    }
}

/// A cluster may answer nobody whom it does not know. Read each time: the kubelet renews it.
fn bearer(path: &Path) -> Option<http::HeaderValue> {
    let token = std::fs::read_to_string(path).ok()?;
    let mut value = http::HeaderValue::from_str(&format!("Bearer {}", token.trim())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_in_every_vendors_spelling() {
        for (text, native) in [
            ("1.28", false),
            ("1.28.99", false),
            ("v1.29.0", true),
            ("1.29+", true),
            ("v1.31.5-gke.1014001", true),
            ("v1.30.4+k3s1", true),
            ("1.37", true),
            ("2.0", true),
        ] {
            let version: Version = text.parse().unwrap();
            assert_eq!(version.has_native_sidecars(), native, "{text}");
        }
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in ["", "1", "v1", "one.two", "1.x", ".29", "latest"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }
}

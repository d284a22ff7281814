//! A token that somebody else keeps current in a file: a projected service account token, a token
//! that an agent writes.

use std::path::PathBuf;

use super::answer::access_token;
use super::expiry::{self, Rule, Shape};
use super::json::Document;
use super::{Attempt, Bounds, Class, FetchError, Fetched, Reason, TokenSource, Traits};
use crate::secret::{Fingerprint, Secret, read_file};
use crate::token::AccessToken;

/// Reads a token from a file.
pub struct FileSource {
    path: PathBuf,
    bounds: Bounds,
}

impl FileSource {
    /// Reads `path`; a token whose expiry cannot be told is looked at again within the default
    /// lifetime of `bounds`.
    #[must_use]
    pub fn new(path: PathBuf, bounds: Bounds) -> Self {
        Self { path, bounds }
    }

    fn read(&self) -> Result<Secret, FetchError> {
        Ok(read_file(&self.path)?)
    }
}

impl TokenSource for FileSource {
    async fn fetch(&mut self, attempt: Attempt<'_>) -> Result<Fetched, FetchError> {
        let value = self.read()?;
        let exp =
            Rule { at: String::new(), shape: Shape::JwtExp, issued: None, zero_is_never: false };
        let nothing = Document::from_form(b"");
        let life = expiry::lifetime(&[exp], &nothing, value.expose(), attempt.now);
        let lifetime = life.lifetime.unwrap_or(self.bounds.default_lifetime);
        if lifetime.is_zero() {
            let mut error = FetchError::new(Class::Transient, Reason::Input);
            error.hint = Some(format!("the token in {} has expired", self.path.display()));
            return Err(error);
        }
        let token = access_token(value, attempt.now, lifetime, self.bounds)?;
        Ok(Fetched { token, refresh_token: None, gave_up: false, renewable: false })
    }

    /// The file is somebody else's.
    async fn revoke(&mut self, _: &AccessToken) -> Result<(), FetchError> {
        Ok(())
    }

    fn inputs(&self) -> Fingerprint {
        let content = read_file(&self.path).ok();
        Fingerprint::of(content.as_ref().map_or("", Secret::expose).as_bytes())
    }

    fn traits(&self) -> Traits {
        Traits { watched: true, ..Traits::default() }
    }
}

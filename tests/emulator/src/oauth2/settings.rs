//! The switches of the generic provider and what they are at the start.

use std::time::Duration;

use serde_json::{Value, json};

/// `expires_in` of a success.
#[derive(Clone, Debug, PartialEq)]
pub enum ExpiresIn {
    /// The life that the token really has.
    True,
    /// This value, whatever the life is.
    Value(Value),
    /// No such field.
    Absent,
}

/// What a refresh does to the refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// A new one replaces it.
    New,
    /// It is sent back.
    Same,
    /// It stays and the answer has none.
    Absent,
}

/// What a refresh token does after it was replaced and its grace is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// It is refused, and every token of its family dies.
    RevokesFamily,
    /// It is refused.
    Refused,
    /// It works as before.
    Allowed,
}

#[derive(Debug)]
pub(super) struct Settings {
    pub(super) lifetime: Duration,
    pub(super) expires_in: ExpiresIn,
    pub(super) rotation: Rotation,
    pub(super) reuse: Reuse,
    pub(super) grace: Duration,
    pub(super) same_token: bool,
    pub(super) single_live: bool,
    pub(super) token_type: Option<String>,
    pub(super) extra: Value,
    pub(super) jwt: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(3600),
            expires_in: ExpiresIn::True,
            rotation: Rotation::New,
            reuse: Reuse::RevokesFamily,
            grace: Duration::ZERO,
            same_token: false,
            single_live: false,
            token_type: Some("Bearer".to_owned()),
            extra: json!({}),
            jwt: false,
        }
    }
}

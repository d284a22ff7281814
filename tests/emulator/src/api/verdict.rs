//! Reading the credential of a request, as strictly as an API can.

use std::fmt;

use super::policy::Policy;
use crate::http::Recorded;

/// What a request presents.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Presented {
    None,
    /// The field twice, or beside an `Authorization` that is not wanted (C-E11).
    Two,
    /// Another scheme, another casing of it (Q3), or no token after it.
    Malformed,
    Token(String),
}

impl Presented {
    pub(super) fn read(request: &Recorded, policy: &Policy) -> Self {
        let beside =
            !policy.header.eq_ignore_ascii_case("authorization") && request.has("authorization");
        match request.headers(&policy.header).as_slice() {
            [] if beside => Self::Malformed,
            [] => Self::None,
            [value] if !beside => Self::token(value, policy.scheme.as_deref()),
            _ => Self::Two,
        }
    }

    fn token(value: &[u8], scheme: Option<&str>) -> Self {
        let value = String::from_utf8_lossy(value);
        let token = match scheme {
            None => Some(&*value),
            Some(scheme) => value.strip_prefix(scheme).and_then(|rest| rest.strip_prefix(' ')),
        };
        match token {
            Some(token) if !token.is_empty() && !token.contains(' ') => {
                Self::Token(token.to_owned())
            }
            _ => Self::Malformed,
        }
    }
}

/// The token itself stays out of a test's output.
impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Two => "two",
            Self::Malformed => "malformed",
            Self::Token(_) => "token",
        })
    }
}

//! An access token and its lifetime, judged at a given moment. Pure: no clock, no I/O.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::clock::Moment;
use crate::dpop::Prover;
use crate::secret::Secret;

/// The longest token that is ever injected, in bytes. RFC 6749 gives no bound; header blocks have
/// one.
pub const MAX_TOKEN_BYTES: usize = 64 << 10;

/// Longer lives are cut to this: a year is "for ever" for a process, and sums cannot overflow.
pub const MAX_LIFETIME: Duration = Duration::from_hours(366 * 24);

/// A token that may be injected, and how long it may be.
#[derive(Clone, Debug)]
pub struct AccessToken {
    value: Secret,
    obtained_at: Moment,
    expires_at: Moment,
    prover: Option<Arc<Prover>>,
}

/// Why a string cannot be injected as a bearer.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum TokenError {
    /// Nothing to inject.
    #[error("the access token is empty")]
    Empty,
    /// More than was allowed.
    #[error("the access token is longer than limits.token_bytes")]
    TooLong,
    /// Control characters, spaces or non-ASCII: outside RFC 6750 §2.1's `b64token` in a way that
    /// could split or corrupt a header.
    #[error("the access token has characters other than visible ASCII")]
    Characters,
}

impl AccessToken {
    /// A token obtained at `obtained_at`, which is read *before* the request for it was sent, so
    /// that the lifetime is never overestimated by the round trip.
    ///
    /// # Errors
    /// [`TokenError`] if `value` could not be one header field value.
    pub fn new(value: Secret, obtained_at: Moment, lifetime: Duration) -> Result<Self, TokenError> {
        match value.expose().as_bytes() {
            [] => Err(TokenError::Empty),
            bytes if bytes.len() > MAX_TOKEN_BYTES => Err(TokenError::TooLong),
            bytes if !bytes.iter().all(u8::is_ascii_graphic) => Err(TokenError::Characters),
            _ => {
                let expires_at = obtained_at.plus(lifetime.min(MAX_LIFETIME));
                Ok(Self { value, obtained_at, expires_at, prover: None })
            }
        }
    }

    /// The same token, bound to a key: each request that carries it needs a proof (RFC 9449).
    #[must_use]
    pub fn bound_to(self, prover: Arc<Prover>) -> Self {
        Self { prover: Some(prover), ..self }
    }

    /// What proves that we have the key that it is bound to, if it is.
    #[must_use]
    pub fn prover(&self) -> Option<&Arc<Prover>> {
        self.prover.as_ref()
    }

    /// The token itself.
    #[must_use]
    pub fn value(&self) -> &Secret {
        &self.value
    }

    /// When the request that earned it was about to be sent.
    #[must_use]
    pub fn obtained_at(&self) -> Moment {
        self.obtained_at
    }

    /// From then on it is never sent.
    #[must_use]
    pub fn expires_at(&self) -> Moment {
        self.expires_at
    }

    /// From [`Self::obtained_at`] to [`Self::expires_at`].
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        self.expires_at.mono - self.obtained_at.mono
    }

    /// True while it may be sent: neither clock has reached the expiry.
    #[must_use]
    pub fn usable(&self, now: Moment) -> bool {
        !self.expires_at.reached(now)
    }

    /// Where the token is in its life, given when its refresh is scheduled.
    #[must_use]
    pub fn phase(&self, now: Moment, refresh_at: Moment) -> Phase {
        if !self.usable(now) {
            Phase::Expired
        } else if refresh_at.reached(now) {
            Phase::Due
        } else {
            Phase::Fresh
        }
    }
}

/// A token's place in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Usable, and its refresh lies ahead.
    Fresh,
    /// Usable, and the refresher is at it.
    Due,
    /// Never sent again.
    Expired,
}

impl Phase {
    /// The word in `/status`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Due => "due",
            Self::Expired => "expired",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    fn token(at: Moment, life: u64) -> AccessToken {
        AccessToken::new(Secret::new("t".into()), at, secs(life)).unwrap()
    }

    #[test]
    fn either_clock_alone_ends_a_token() {
        let at = Moment::now();
        let token = token(at, 100);
        assert!(token.usable(at.plus(secs(99))));
        assert!(!token.usable(at.plus(secs(100))));
        assert!(!token.usable(Moment { mono: at.mono + secs(100), wall: at.wall }));
        assert!(!token.usable(Moment { mono: at.mono, wall: at.wall + secs(100) }), "suspended");
        assert!(token.usable(Moment { mono: at.mono + secs(1), wall: at.wall - secs(9000) }));
    }

    #[test]
    fn phases_follow_the_refresh_point() {
        let at = Moment::now();
        let token = token(at, 100);
        let phase = |s| token.phase(at.plus(secs(s)), at.plus(secs(70)));
        assert_eq!([phase(0), phase(70), phase(100)], [Phase::Fresh, Phase::Due, Phase::Expired]);
    }

    #[test]
    fn what_could_split_a_header_is_no_token() {
        let at = Moment::now();
        let new = |s: &str| AccessToken::new(Secret::new(s.into()), at, secs(1)).map(|_| ());
        assert_eq!(new(""), Err(TokenError::Empty));
        for bad in ["a b", "a\r\nx: y", "a\0", "ä", "a\t", "a\u{7f}"] {
            assert_eq!(new(bad), Err(TokenError::Characters), "{bad:?}");
        }
        assert_eq!(new(&"a".repeat(MAX_TOKEN_BYTES + 1)), Err(TokenError::TooLong));
        assert_eq!(new("aZ9-._~+/=|{}"), Ok(()));
    }

    #[test]
    fn absurd_lifetimes_are_cut() {
        let at = Moment::now();
        let token = AccessToken::new(Secret::new("t".into()), at, Duration::MAX).unwrap();
        assert_eq!(token.lifetime(), MAX_LIFETIME);
    }
}

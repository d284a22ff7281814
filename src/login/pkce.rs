//! Proof Key for Code Exchange (RFC 7636): who exchanges a code proves that he asked for it.

use aws_lc_rs::{digest, rand};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::LoginError;
use crate::secret::Secret;

/// The code verifier of one login.
pub(super) struct Verifier(Secret);

impl Verifier {
    /// A fresh one: 32 random bytes are 43 characters (§4.1, §7.1).
    pub(super) fn new() -> Result<Self, LoginError> {
        random().map(Self)
    }

    /// What is sent with the code.
    pub(super) fn expose(&self) -> &str {
        self.0.expose()
    }

    /// What is sent ahead, by the method S256 (§4.2).
    pub(super) fn challenge(&self) -> String {
        let digest = digest::digest(&digest::SHA256, self.0.expose().as_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(digest)
    }
}

/// 256 random bits that nobody guesses, as text for a URL.
pub(super) fn random() -> Result<Secret, LoginError> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| LoginError::Random)?;
    Ok(Secret::new(BASE64_URL_SAFE_NO_PAD.encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_that_of_rfc_7636_appendix_b() {
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let verifier = Verifier(Secret::new(verifier.to_owned()));
        assert_eq!(verifier.challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn every_login_has_a_verifier_of_its_own_that_a_url_can_hold() {
        let (one, other) = (Verifier::new().unwrap(), Verifier::new().unwrap());
        assert_ne!(one.expose(), other.expose());
        let fits = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
        assert!(one.expose().len() == 43 && one.expose().chars().all(fits));
    }
}

//! Dialect files.

use bearerd::config::parse_dialect;

use super::{answer, configuration};

const ANSWERS: [&[u8]; 4] = [
    b"200 application/json\n{\"access_token\":\"a\",\"token_type\":\"bearer\",\"expires_in\":60}",
    b"200 application/x-www-form-urlencoded\naccess_token=a&token_type=bearer&expires_in=60",
    b"200 text/plain\na",
    b"400 application/json\n{\"error\":\"invalid_grant\"}",
];

/// A dialect that answers can be read with, or mistakes that say where they are.
pub fn check(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    match parse_dialect(text) {
        Ok(dialect) => {
            assert!(!dialect.name.is_empty() && !dialect.obtain.is_empty());
            assert!(dialect.keys.iter().filter(|key| key.rotating).count() <= 1);
            for given in ANSWERS {
                let _ = answer::check_with(&dialect, &answer::answer(given));
            }
            true
        }
        Err(problems) => configuration::check_problems(text, &problems),
    }
}

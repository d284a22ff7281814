//! The file in which a rotating refresh token lives.

use bearerd::store::file::{decode, encode};

use super::assert_tellable;

/// What was written, or a word about why it is not that; and what is read is written the same.
pub fn check(data: &[u8]) -> bool {
    match decode(data) {
        Ok(record) => {
            assert!(decode(&encode(&record)).is_ok_and(|again| again == record));
            true
        }
        Err(problem) => {
            assert_tellable(problem);
            false
        }
    }
}

//! What must hold for every input from outside, one module for each parser: `check` panics where it
//! does not, and says whether the input was accepted. libFuzzer calls them from `fuzz_targets/`, and `tests/fuzz.rs` with the corpus and
//! with changed copies of it, on a stable compiler.

pub mod answer;
pub mod challenge;
pub mod configuration;
pub mod dialect;
pub mod replay;
pub mod route;
pub mod shared;
pub mod state;

/// In no error and no log line: the inputs of the corpus hold it where secrets are.
pub const CANARY: &str = "cAnArY";

/// What a person is told: one or more lines of text, and nothing secret.
pub fn assert_tellable(told: &str) {
    assert!(!told.is_empty() && !told.contains(CANARY), "{told}");
    assert!(told.chars().all(|c| c == '\n' || !c.is_control()), "{told:?}");
}

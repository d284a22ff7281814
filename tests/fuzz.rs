//! What the fuzzers of `tests/fuzz` hold, on a stable compiler: their corpus, and copies of it that
//! are changed in the ways that find most: bytes set, cut out, doubled, put together.

// Tests panic by trade, and what libFuzzer calls is public.
#![allow(unreachable_pub, clippy::expect_used)]

#[path = "fuzz/src/lib.rs"]
mod targets;

use std::fs;
use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Changed copies of the corpus that each parser is given.
const CASES: u32 = 2000;
/// The largest part that is cut out or doubled.
const PART: usize = 64;

/// One change to an input; places are taken modulo its length.
#[derive(Clone, Debug)]
enum Change {
    Set(usize, u8),
    Cut(usize, usize),
    Double(usize, usize),
    Insert(usize, &'static str),
    /// Ends here, and goes on with another input.
    Splice(usize, prop::sample::Index),
}

/// What stands between the parts of what is parsed here, and at the bounds of numbers.
const WORDS: [&str; 22] = [
    "\"",
    "\\",
    ",",
    ":",
    "=",
    "{",
    "}",
    "[",
    "]",
    "\n",
    "\r\n",
    "\0",
    "%2f",
    "..",
    "\u{feff}",
    "é",
    "-1",
    "1e999",
    "18446744073709551616",
    "null",
    "[[routes]]\n",
    "error",
];

fn change() -> impl Strategy<Value = Change> {
    let at = || any::<usize>();
    prop_oneof![
        3 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        2 => (at(), 1..PART).prop_map(|(at, length)| Change::Cut(at, length)),
        2 => (at(), 1..PART).prop_map(|(at, length)| Change::Double(at, length)),
        3 => (at(), prop::sample::select(&WORDS[..])).prop_map(|(at, word)| Change::Insert(at, word)),
        1 => (at(), any::<prop::sample::Index>()).prop_map(|(at, other)| Change::Splice(at, other)),
    ]
}

fn changed(mut input: Vec<u8>, changes: &[Change], corpus: &[Vec<u8>]) -> Vec<u8> {
    for change in changes {
        let place = |at: usize| at % (input.len() + 1);
        match change {
            Change::Set(at, byte) => {
                let at = place(*at);
                if let Some(place) = input.get_mut(at) {
                    *place = *byte;
                }
            }
            Change::Cut(at, length) => {
                let from = place(*at);
                input.drain(from..(from + length).min(input.len()));
            }
            Change::Double(at, length) => {
                let from = place(*at);
                let part = input[from..(from + length).min(input.len())].to_vec();
                input.splice(from..from, part);
            }
            Change::Insert(at, word) => {
                let at = place(*at);
                input.splice(at..at, word.bytes());
            }
            Change::Splice(at, other) => {
                let other = other.get(corpus);
                let at = place(*at);
                input.truncate(at);
                input.extend_from_slice(&other[at.min(other.len())..]);
            }
        }
    }
    input
}

fn holds(target: &str, more: &[&str], check: fn(&[u8]) -> bool) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let corpus = root.join("tests/fuzz/corpus").join(target);
    let mut inputs: Vec<Vec<u8>> = Vec::new();
    for directory in std::iter::once(corpus).chain(more.iter().map(|more| root.join(more))) {
        let entries = fs::read_dir(&directory).expect("a directory of inputs");
        let entries = entries.map(|entry| entry.expect("an entry").path());
        let mut files: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
        files.sort();
        inputs.extend(files.iter().map(|file| fs::read(file).expect("an input")));
    }
    let accepted = inputs.iter().filter(|input| check(input)).count();
    assert!(accepted > 0 && accepted < inputs.len(), "{accepted} of {} accepted", inputs.len());
    let strategy = (any::<prop::sample::Index>(), vec(change(), 1..8));
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&strategy, |(first, changes)| {
        check(&changed(first.get(&inputs).clone(), &changes, &inputs));
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn answers_of_token_endpoints() {
    holds("answer", &[], targets::answer::check);
}

#[test]
fn challenges_of_upstreams() {
    holds("challenge", &[], targets::challenge::check);
}

#[test]
fn configurations() {
    holds("configuration", &["deploy/examples"], targets::configuration::check);
}

#[test]
fn dialect_files() {
    holds("dialect", &["src/source/vendor"], targets::dialect::check);
}

#[test]
fn bodies_that_are_sent_again() {
    holds("replay", &[], targets::replay::check);
}

#[test]
fn requests_that_are_let_in() {
    holds("route", &[], targets::route::check);
}

#[test]
fn files_of_the_store() {
    holds("state", &[], targets::state::check);
}

#[test]
fn documents_that_processes_share() {
    holds("shared", &[], targets::shared::check);
}

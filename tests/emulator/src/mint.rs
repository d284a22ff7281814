//! Making tokens: opaque ones, UUIDs and JWTs whose signature is random, since nobody here verifies
//! it. What is random in them is remembered: it must not come to light anywhere else.

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex};

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::locked;
use crate::style::hex;

/// So much of a secret tells it from everything else.
const PART: usize = 12;

/// Parts of everything that was made, as it is and in base64.
static MINTED: LazyLock<Mutex<HashSet<[u8; PART]>>> = LazyLock::new(Mutex::default);

/// So many random bytes in base64url.
pub fn opaque(bytes: usize) -> String {
    let text = BASE64_URL_SAFE_NO_PAD.encode(random(bytes));
    remember(&text);
    text
}

/// The first piece of `text` that is a part of something that was made in this process.
pub fn leaked(text: &str) -> Option<&str> {
    let minted = locked(&MINTED);
    let at = text.as_bytes().windows(PART).position(|window| minted.contains(window))?;
    text.get(at..at + PART)
}

/// Its ends, as they are and percent-encoded; and of how it looks in base64, inside of something else,
/// the first piece that is all its own.
fn remember(secret: &str) {
    let mut minted = locked(&MINTED);
    let mut add = |text: &[u8]| {
        if let Some(part) = text.first_chunk() {
            minted.insert(*part);
        }
    };
    for form in [secret.to_owned(), percent_encoded(secret)] {
        add(form.as_bytes());
        add(&form.as_bytes()[form.len().saturating_sub(PART)..]);
    }
    for before in 0..3 {
        let within = [&[0; 2][..before], secret.as_bytes()].concat();
        let own = before + usize::from(before > 0);
        add(&BASE64_STANDARD.encode(&within).as_bytes()[own..]);
        add(&BASE64_URL_SAFE_NO_PAD.encode(&within).as_bytes()[own..]);
    }
}

/// As the strictest encoder has it: letters and digits only.
fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte.is_ascii_alphanumeric() {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// A random UUID.
pub fn uuid() -> String {
    let digits = hex(&random(16));
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

/// A JWT of exactly these texts, with 256 signature bytes as RS256 and RS512 have.
pub fn jwt(header: &str, claims: &str) -> String {
    let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", encode(header), encode(claims), opaque(256))
}

/// A JWT with an `exp` and whatever other claims.
pub fn jwt_until(expires: u64, issued: u64, mut claims: Value) -> String {
    crate::step::merge(&mut claims, json!({ "exp": expires, "iat": issued, "jti": uuid() }));
    jwt(r#"{"alg":"RS256","typ":"JWT"}"#, &claims.to_string())
}

/// The claims of a JWT, not verified.
pub fn claims(token: &str) -> Option<Value> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn random(bytes: usize) -> Vec<u8> {
    let mut random = vec![0; bytes];
    aws_lc_rs::rand::fill(&mut random).expect("the system gives random bytes");
    random
}

#[test]
fn what_was_made_is_recognised_in_every_form() {
    let token = opaque(32);
    let basic = BASE64_STANDARD.encode(format!("client:{token}"));
    let percent = percent_encoded(&format!("-{token}_"));
    for text in [&token, &token[..12], &token[token.len() - 12..], &basic, &percent] {
        assert!(leaked(&format!("a line with {text} in it")).is_some(), "{text}");
    }
    assert_eq!(leaked(&format!("a line with {} in it", &token[..11])), None);
}

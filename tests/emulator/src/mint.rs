//! Making tokens: opaque ones, UUIDs and JWTs whose signature is random, since nobody here verifies
//! it.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::style::hex;

/// So many random bytes in base64url.
pub fn opaque(bytes: usize) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(random(bytes))
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

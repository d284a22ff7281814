//! The answers, spelled as the tenant spells them: `"key" : value`, a charset after the media type
//! (T-E5).

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::Book;
use crate::http::{Body, JsonStyle, Reply};
use crate::mint;
use crate::style::{epoch, slashed};
use crate::tokens::Tokens;

const ISSUER: &str = "https://sample.portal.tencentciam.com";
const MEDIA_TYPE: &str = "application/json;charset=UTF-8";
const ID_TOKEN_LIFE: Duration = Duration::from_secs(1800);

/// T1 and T2: the access token and the answer.
pub(super) fn success(
    book: &Book,
    tokens: &Tokens,
    client: &str,
    refresh_token: Option<&str>,
) -> (String, Reply) {
    let access_token = access_token(client, book.lifetime);
    tokens.issue(&access_token, Some(book.lifetime));
    let mut answer = json!({
        "access_token": access_token,
        "scope": "openid",
        "id_token": id_token(client),
        "token_type": "Bearer",
        // A second less than `exp` says: the smaller wins.
        "expires_in": book.lifetime.as_secs().saturating_sub(1).max(1),
    });
    if let Some(refresh_token) = refresh_token {
        answer["refresh_token"] = Value::from(refresh_token);
    }
    (access_token, spaced(200, answer))
}

/// `{"error" : "invalid_grant"}`, as the refresh page has it (T3).
pub(super) fn refused_spaced(status: u16, error: &str) -> Reply {
    spaced(status, json!({ "error": error }))
}

/// `{"error":"invalid_client"}`, as the sibling pages have it (T4, T5).
pub(super) fn refused(status: u16, error: &str) -> Reply {
    styled(status, json!({ "error": error }), JsonStyle::Compact)
}

/// T6: no body, and it says so.
pub(super) fn empty_unauthorized() -> Reply {
    Reply::status(401)
}

fn spaced(status: u16, value: Value) -> Reply {
    styled(status, value, JsonStyle::Spaced)
}

fn styled(status: u16, value: Value, style: JsonStyle) -> Reply {
    Reply::status(status).header("Content-Type", MEDIA_TYPE).body(Body::Json(value, style))
}

/// Here `scope` is an array, and the slashes of `iss` are escaped.
fn access_token(client: &str, life: Duration) -> String {
    let now = epoch(SystemTime::now());
    jwt(json!({
        "iss": ISSUER,
        "sub": mint::uuid(),
        "aud": client,
        "scope": ["openid"],
        "iat": now,
        "nbf": now,
        "exp": now + life.as_secs(),
        "jti": mint::uuid(),
    }))
}

fn id_token(client: &str) -> String {
    let now = epoch(SystemTime::now());
    jwt(json!({
        "iss": ISSUER,
        "sub": mint::uuid(),
        "aud": client,
        "azp": client,
        "iat": now,
        "exp": now + ID_TOKEN_LIFE.as_secs(),
        "jti": mint::uuid(),
    }))
}

/// The header's order is the samples': kid, typ, alg.
fn jwt(claims: Value) -> String {
    let header = format!(r#"{{"kid":"{}","typ":"JWT","alg":"RS256"}}"#, mint::uuid());
    mint::jwt(&header, &slashed(&claims))
}

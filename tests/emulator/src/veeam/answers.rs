//! The answers: tokens shaped like the decoded samples, times with seven fraction digits,
//! problem+json.

use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::{Book, RefreshToken};
use crate::http::Reply;
use crate::mint;
use crate::step::Step;
use crate::style::{epoch, rfc3339};
use crate::tokens::Tokens;

const REFRESH_LIFE: Duration = Duration::from_secs(1_209_600);
/// Up to version 5; 60 minutes in 8.1.
const SHORT_REFRESH_LIFE: Duration = Duration::from_secs(15 * 60);
/// `.issued` and `.expires` of the sample are this much less than the life apart.
const SAMPLE_GAP: Duration = Duration::from_nanos(4_002_600);
/// 40 upper-case hex digits, as the samples have; these are nobody's.
const KEY_ID: &str = "0123456789ABCDEF0123456789ABCDEF01234567";

/// Who gets tokens, and of which kind.
pub(super) struct Issue<'u> {
    pub(super) user: &'u str,
    pub(super) short_lived: bool,
}

/// What was issued.
pub(super) struct Issued {
    pub(super) access_token: String,
    pub(super) refresh_token: String,
    user_id: String,
}

/// V3 for a script, whoever signs in.
pub fn redirect_to() -> Step {
    Step::from(redirected())
}

/// V1.
pub(super) fn success(book: &mut Book, tokens: &Tokens, wanted: &Issue<'_>) -> Reply {
    let now = SystemTime::now();
    let issued = issue(book, wanted);
    tokens.issue(&issued.access_token, Some(book.lifetime));
    let offset = Duration::from_millis(book.expires_offset_ms.unsigned_abs());
    let expires = now + book.lifetime.saturating_sub(SAMPLE_GAP);
    let expires = if book.expires_offset_ms < 0 { expires - offset } else { expires + offset };
    let mut answer = blank();
    crate::step::merge(
        &mut answer,
        json!({
            "access_token": issued.access_token,
            "token_type": "bearer",
            "refresh_token": issued.refresh_token,
            "expires_in": book.lifetime.as_secs(),
            ".issued": rfc3339(now, book.fraction_digits),
            ".expires": rfc3339(expires, book.fraction_digits),
            "userId": issued.user_id,
            "username": wanted.user,
            "roleName": "PortalAdmin",
            "userType": "Internal",
            "shortLived": wanted.short_lived,
        }),
    );
    Reply::json(200, answer)
}

/// Makes a pair of tokens with the same `jti`, told apart by `aud` (V-E4). The refresh token counts
/// from now on; the access token is the caller's to register.
pub(super) fn issue(book: &mut Book, wanted: &Issue<'_>) -> Issued {
    let refresh_life = if wanted.short_lived { SHORT_REFRESH_LIFE } else { REFRESH_LIFE };
    let issued_at = epoch(SystemTime::now());
    let (user_id, jti) = (mint::uuid(), mint::uuid());
    let token = |audience: &str, life: Duration| {
        let claims = json!({
            "unique_name": wanted.user,
            "role": "PortalAdmin",
            "nameid": user_id,
            "jti": jti,
            "iat": issued_at,
            "nbf": issued_at,
            "exp": issued_at + life.as_secs(),
            "aud": format!("{audience}{}", mint::uuid()),
        });
        let header = format!(r#"{{"alg":"RS512","kid":"{KEY_ID}","typ":"JWT"}}"#);
        mint::jwt(&header, &claims.to_string())
    };
    let access_token = token("api/default/", book.lifetime);
    let refresh_token = token("auth/refresh/", refresh_life);
    book.siblings.insert(access_token.clone(), refresh_token.clone());
    let until = Instant::now() + refresh_life;
    let held = RefreshToken { user: wanted.user.to_owned(), dead: false, until };
    book.refresh_tokens.insert(refresh_token.clone(), held);
    Issued { access_token, refresh_token, user_id }
}

/// V2.
pub(super) fn mfa_wanted(user: &str, mfa_token: &str) -> Reply {
    let mut answer = blank();
    let fields = json!({ "mfa_token": mfa_token, "mfa_enabled": true, "username": user });
    crate::step::merge(&mut answer, fields);
    Reply::json(200, answer)
}

/// V3.
pub(super) fn redirected() -> Reply {
    let mut answer = blank();
    crate::step::merge(&mut answer, json!({ "redirectTo": "https://idp.example.test/saml" }));
    Reply::json(200, answer)
}

/// Every field of the schema, empty: nearly all are nullable.
fn blank() -> Value {
    json!({
        "access_token": null,
        "token_type": null,
        "refresh_token": null,
        "expires_in": null,
        ".issued": null,
        ".expires": null,
        "userId": null,
        "username": null,
        "roleName": null,
        "userType": null,
        "latestNewsShown": true,
        "mfa_enabled": false,
        "mfa_token": null,
        "redirectTo": null,
        "shortLived": false,
    })
}

/// V4: 400 with `errors`.
pub(super) fn bad_request(key: &str, message: &str) -> Reply {
    problem(
        400,
        &json!({
            "type": "https://tools.ietf.org/html/rfc7231#section-6.5.1",
            "title": "One or more validation errors occurred.",
            "status": 400,
            "detail": null,
            "errors": { key: [message] },
            "traceId": mint::uuid(),
        }),
    )
}

/// V5.
pub(super) fn unauthorized(detail: &str) -> Reply {
    problem(401, &plain(401, "Unauthorized", detail))
}

pub(super) fn forbidden() -> Reply {
    problem(403, &plain(403, "Forbidden", "The user may not do this."))
}

fn plain(status: u16, title: &str, detail: &str) -> Value {
    json!({
        "type": "https://tools.ietf.org/html/rfc7235#section-3.1",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": null,
        "traceId": mint::uuid(),
    })
}

fn problem(status: u16, problem: &Value) -> Reply {
    Reply::bytes(status, "application/problem+json; charset=utf-8", problem.to_string())
}

//! The envelopes, as they were seen, and the rows that only a script can bring about.

use std::time::{Duration, SystemTime};

use serde_json::json;

use super::BadToken;
use crate::http::Reply;
use crate::mint;
use crate::step::Step;
use crate::style::epoch;

/// C5: 409.
pub fn conflict() -> Step {
    Step::Json(409, json!({ "moduleCode": 340, "message": "conflict" }))
}

/// C6: 429, with whatever `Retry-After` (seconds or [`http_date`](crate::http_date)) or none.
pub fn rate_limited(retry_after: Option<&str>) -> Step {
    let step = Step::Json(429, json!({ "moduleCode": 340, "message": "too many requests" }));
    match retry_after {
        Some(value) => step.retry_after(value),
        None => step,
    }
}

/// C7: 500 with an envelope. `Step::Html(500)` is the other one.
pub fn server_error() -> Step {
    Step::Json(500, json!({ "moduleCode": 340, "message": "internal error" }))
}

/// C2: 200 with `cspErrorCode` and no access token.
pub fn error_in_success() -> Step {
    Step::Json(200, json!({ "cspErrorCode": "540.120-340.800", "message": "invalid_grant" }))
}

/// A refusal that is not about which token it is (C3).
pub(super) fn refused(message: &str) -> Reply {
    Reply::json(400, json!({ "moduleCode": 340, "message": message }))
}

/// The message quotes the end of the token (C-E6: redaction).
pub(super) fn bad_token(shape: BadToken, token: &str) -> Reply {
    let end = token.char_indices().rev().nth(4).map_or(token, |(at, _)| &token[at..]);
    let message = format!("invalid_grant: Invalid refresh token: xxxx...{end}");
    match shape {
        BadToken::Number400 => Reply::json(400, json!({ "moduleCode": 340, "message": message })),
        BadToken::String400 => Reply::json(400, json!({ "moduleCode": "340", "message": message })),
        BadToken::Envelope404 => Reply::json(
            404,
            json!({
                "metadata": null,
                "traceId": mint::uuid(),
                "statusCode": 404,
                "message": message,
                "requestId": mint::uuid(),
                "moduleCode": "540",
                "cspErrorCode": "540.120-340.800",
            }),
        ),
    }
}

pub(super) fn access_token(life: Duration) -> String {
    let now = epoch(SystemTime::now());
    let claims = json!({ "iss": "https://gaz.csp-vidm-prod.com", "context": mint::uuid() });
    mint::jwt_until(now + life.as_secs(), now, claims)
}

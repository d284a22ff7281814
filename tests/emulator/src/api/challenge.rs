//! How an API says no: the challenges of RFC 6750 and the vendors' own.

use serde_json::json;

use super::verdict::Presented;
use crate::http::Reply;
use crate::mint::uuid;
use crate::step::Step;

/// The shape of a refusal.
#[derive(Clone, Debug)]
pub enum Challenge {
    /// 401 `Bearer error="invalid_token"`; bare `Bearer` when there was no credential (RFC 6750
    /// §3.1).
    InvalidToken,
    /// 401 with bare `Bearer`.
    Bearer,
    /// 401 without `WWW-Authenticate`.
    Silent,
    /// 401 with `Basic` of this realm only.
    Basic(String),
    /// 401 with exactly these `WWW-Authenticate` fields.
    Fields(Vec<String>),
    /// Veeam: 401 problem+json without `WWW-Authenticate` (V-E13).
    Veeam,
    /// Tencent: 400 `invalid_request` without a token, 401 `invalid_token` with a bad one (T-E8).
    Tencent,
    /// Anything, such as 403 or 419 for an expired token (Q9).
    Answer(Box<Reply>),
}

impl Challenge {
    /// Anything, such as 403 or 419 for an expired token (Q9).
    pub fn answer(reply: Reply) -> Self {
        Self::Answer(Box::new(reply))
    }

    pub(super) fn refusal(&self, presented: &Presented) -> Reply {
        if *presented == Presented::Two {
            return Reply::json(400, json!({ "error": "invalid_request" }));
        }
        let unauthorized = Reply::json(401, json!({ "error": "unauthorized" }));
        let challenge = |fields: &str| unauthorized.clone().header("WWW-Authenticate", fields);
        match self {
            Self::InvalidToken if *presented == Presented::None => challenge("Bearer"),
            Self::InvalidToken => challenge("Bearer error=\"invalid_token\""),
            Self::Bearer => challenge("Bearer"),
            Self::Silent => unauthorized,
            Self::Basic(realm) => challenge(&format!("Basic realm=\"{realm}\"")),
            Self::Fields(fields) => fields
                .iter()
                .fold(unauthorized, |reply, field| reply.header("WWW-Authenticate", field)),
            Self::Veeam => problem(),
            Self::Tencent if *presented == Presented::None => bearer(400, "invalid_request"),
            Self::Tencent => bearer(401, "invalid_token"),
            Self::Answer(reply) => (**reply).clone(),
        }
    }
}

/// Tencent: the token has not the scope (T-E8). For a script.
pub fn insufficient_scope() -> Step {
    Step::from(bearer(403, "insufficient_scope"))
}

/// Tencent: the token's user is gone (T-E8). For a script.
pub fn user_not_found() -> Step {
    Step::Json(404, json!({ "error": "user_not_found" }))
}

fn bearer(status: u16, error: &str) -> Reply {
    let challenge = format!("Bearer error=\"{error}\", error_description=\"{error}\"");
    Reply::status(status).header("WWW-Authenticate", challenge)
}

fn problem() -> Reply {
    let problem = json!({
        "type": "https://tools.ietf.org/html/rfc7235#section-3.1",
        "title": "Unauthorized",
        "status": 401,
        "detail": "The request does not contain an access token, or the access token is invalid.",
        "instance": null,
        "traceId": uuid(),
    });
    Reply::bytes(401, "application/problem+json; charset=utf-8", problem.to_string())
}

//! The token and revocation endpoints: who may have what, and how it is said (RFC 6749 §5.1, §5.2).

use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::family::Rules;
use super::settings::{ExpiresIn, Settings};
use super::{Book, person};
use crate::form::Form;
use crate::front::Desk;
use crate::http::{Recorded, Reply};
use crate::mint;
use crate::step::merge;
use crate::style::epoch;
use crate::tokens::Tokens;

/// An error of RFC 6749 §5.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    InvalidRequest,
    InvalidClient,
    InvalidGrant,
    UnsupportedGrantType,
    AuthorizationPending,
    SlowDown,
    ExpiredToken,
    AccessDenied,
}

/// The access token that a client or family got last.
#[derive(Debug)]
pub(super) struct Held {
    token: String,
    until: Instant,
}

pub(super) fn token(
    book: &mut Book,
    tokens: &Tokens,
    request: &Recorded,
    desk: &Desk,
) -> Result<Reply, Refusal> {
    let (form, client) = authenticated(book, request, desk)?;
    match form.value("grant_type").ok_or(Refusal::InvalidRequest)? {
        // RFC 6749 §4.4.3: no refresh token here.
        "client_credentials" => Ok(success(book, tokens, &client, None, None)),
        "refresh_token" => {
            let presented = form.value("refresh_token").ok_or(Refusal::InvalidRequest)?;
            let Settings { rotation, reuse, grace, .. } = book.settings;
            let rules = Rules { rotation, reuse, grace };
            match book.families.refresh(presented, &client, &rules, tokens) {
                Some(done) => {
                    Ok(success(book, tokens, &client, Some(done.family), done.refresh_token))
                }
                None => {
                    desk.failure(&client);
                    Err(Refusal::InvalidGrant)
                }
            }
        }
        "password" => {
            let name = form.value("username").ok_or(Refusal::InvalidRequest)?;
            let password = form.value("password").ok_or(Refusal::InvalidRequest)?;
            if book.users.get(name).map(String::as_str) != Some(password) {
                desk.failure(name);
                return Err(Refusal::InvalidGrant);
            }
            Ok(first(book, tokens, &client))
        }
        "authorization_code" => {
            person::exchange(book, &form, &client)?;
            Ok(first(book, tokens, &client))
        }
        "urn:ietf:params:oauth:grant-type:device_code" => {
            person::poll(book, &form, &client, desk)?;
            Ok(first(book, tokens, &client))
        }
        _ => Err(Refusal::UnsupportedGrantType),
    }
}

/// What a person's sign-in brings: a family of its own.
fn first(book: &mut Book, tokens: &Tokens, client: &str) -> Reply {
    let refresh_token = book.families.start(client);
    let family = book.families.newest();
    success(book, tokens, client, Some(family), Some(refresh_token))
}

/// RFC 7009: an unknown token is a success.
pub(super) fn revoke(
    book: &mut Book,
    tokens: &Tokens,
    request: &Recorded,
    desk: &Desk,
) -> Result<Reply, Refusal> {
    let (form, client) = authenticated(book, request, desk)?;
    let token = form.value("token").ok_or(Refusal::InvalidRequest)?;
    tokens.revoke(token);
    book.families.revoke(token, &client, tokens);
    Ok(Reply::status(200))
}

pub(super) fn authenticated(
    book: &Book,
    request: &Recorded,
    desk: &Desk,
) -> Result<(Form, String), Refusal> {
    let form = request.form();
    let is_form = request.media_type().as_deref() == Some("application/x-www-form-urlencoded");
    // RFC 6749 §3.2: no parameter more than once.
    if !is_form || form.repeated().is_some() {
        return Err(Refusal::InvalidRequest);
    }
    let client = book.clients.authenticate(request, &form).map_err(|(refusal, id)| {
        if let Some(id) = id {
            desk.failure(&id);
        }
        refusal
    })?;
    Ok((form, client))
}

fn success(
    book: &mut Book,
    tokens: &Tokens,
    client: &str,
    family: Option<usize>,
    refresh_token: Option<String>,
) -> Reply {
    let holder = family.map_or_else(|| client.to_owned(), |family| format!("{client}/{family}"));
    let (access_token, life) = access_token(book, tokens, &holder);
    if let Some(family) = family {
        book.families.adopt(family, &access_token);
    }
    let settings = &book.settings;
    let mut answer = json!({ "access_token": access_token });
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            answer[name] = value;
        }
    };
    set("token_type", settings.token_type.clone().map(Value::from));
    set("refresh_token", refresh_token.map(Value::from));
    set(
        "expires_in",
        match &settings.expires_in {
            ExpiresIn::True => Some(json!(life.as_secs())),
            ExpiresIn::Value(value) => Some(value.clone()),
            ExpiresIn::Absent => None,
        },
    );
    merge(&mut answer, settings.extra.clone());
    // RFC 6749 §5.1 demands both.
    Reply::json(200, answer).header("Cache-Control", "no-store").header("Pragma", "no-cache")
}

/// A new access token, or the one held if the provider repeats itself (Q18), with the rest of its
/// life.
fn access_token(book: &mut Book, tokens: &Tokens, holder: &str) -> (String, Duration) {
    let held = book.last.get(holder);
    if let Some(held) = held.filter(|held| book.settings.same_token && tokens.is_live(&held.token))
    {
        return (held.token.clone(), held.until.saturating_duration_since(Instant::now()));
    }
    if let Some(held) = held.filter(|_| book.settings.single_live) {
        tokens.revoke(&held.token);
    }
    let life = book.settings.lifetime;
    let token = if book.settings.jwt {
        let now = epoch(SystemTime::now());
        mint::jwt_until(now + life.as_secs(), now, json!({ "sub": holder }))
    } else {
        mint::opaque(32)
    };
    tokens.issue(&token, Some(life));
    let held = Held { token: token.clone(), until: Instant::now() + life };
    book.last.insert(holder.to_owned(), held);
    (token, life)
}

impl Refusal {
    /// A client that failed by the `Authorization` field is told the scheme (RFC 6749 §5.2).
    pub(super) fn reply(self, by_header: bool) -> Reply {
        let (status, error) = match self {
            Self::InvalidRequest => (400, "invalid_request"),
            Self::InvalidClient => (401, "invalid_client"),
            Self::InvalidGrant => (400, "invalid_grant"),
            Self::UnsupportedGrantType => (400, "unsupported_grant_type"),
            Self::AuthorizationPending => (400, "authorization_pending"),
            Self::SlowDown => (400, "slow_down"),
            Self::ExpiredToken => (400, "expired_token"),
            Self::AccessDenied => (400, "access_denied"),
        };
        let reply =
            Reply::json(status, json!({ "error": error })).header("Cache-Control", "no-store");
        match self {
            Self::InvalidClient if by_header => {
                reply.header("WWW-Authenticate", "Basic realm=\"token\"")
            }
            _ => reply,
        }
    }
}

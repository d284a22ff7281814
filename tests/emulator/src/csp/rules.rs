//! What a request for an exchange must look like, and who gets a token.

use super::answers::{bad_token, refused};
use super::{ApiToken, Book, Lenient};
use crate::front::Desk;
use crate::http::{Recorded, Reply};
use crate::oauth2::basic;
use crate::tokens::Tokens;

pub(super) fn authorize(
    book: &mut Book,
    tokens: &Tokens,
    request: &Recorded,
    desk: &Desk,
) -> Reply {
    let violated = desk.common_violations(request, &["authorization", "x-api-version"]);
    if violated && !book.allows(Lenient::Query) {
        return refused("invalid request");
    }
    if !accepts_json(request, desk) {
        return Reply::status(406);
    }
    let Some((token, passcode)) = presented(book, request, desk) else {
        return refused("invalid request body"); // C3
    };
    let bad = book.bad_token;
    let Some(held) = book.api_tokens.get_mut(&token) else {
        desk.failure(&token);
        return bad_token(bad, &token); // C3, C4
    };
    if held.expired || !passes(held, passcode.as_deref()) {
        desk.failure(&token);
        return refused("invalid_grant: Invalid refresh token or passcode"); // C3
    }
    let (access_token, reply) = book.success(tokens, &token);
    if let Some(held) = book.api_tokens.get_mut(&token) {
        held.access_tokens.push(access_token);
    }
    reply
}

/// The sibling exchange: Basic, `grant_type=client_credentials`, optional `orgId`.
pub(super) fn client_credentials(
    book: &Book,
    tokens: &Tokens,
    request: &Recorded,
    desk: &Desk,
) -> Reply {
    let form = request.form();
    let checked = form.check(&["grant_type", "orgId?"], true);
    if desk.common_violations(request, &[]) || checked.is_err() || !is_form(request) {
        return refused("invalid request body");
    }
    if form.value("grant_type") != Some("client_credentials") {
        return refused("unsupported_grant_type");
    }
    let client = request.headers("authorization").first().and_then(|header| basic(header));
    match client {
        Some((id, secret)) if book.clients.get(&id) == Some(&secret) => {
            // No API token was sent: there is nothing to echo.
            let reply = book.success(tokens, "").1;
            reply.edit_json(|answer| {
                answer.as_object_mut().map(|fields| fields.remove("refresh_token"));
            })
        }
        client => {
            desk.failure(&client.map(|(id, _)| id).unwrap_or_default());
            refused("invalid_client: Invalid client credentials")
        }
    }
}

/// Token and passcode, found where the documents, or the lenient modes, have them.
fn presented(book: &Book, request: &Recorded, desk: &Desk) -> Option<(String, Option<String>)> {
    let in_query = || {
        let query = crate::form::Form::parse(request.query()?.as_bytes());
        query.value("refresh_token").map(|token| (token.to_owned(), None))
    };
    if book.allows(Lenient::Query)
        && let Some(found) = in_query()
    {
        return Some(found);
    }
    if book.allows(Lenient::Json) && request.media_type().as_deref() == Some("application/json") {
        let body: serde_json::Value = serde_json::from_slice(&request.body).ok()?;
        return body["refresh_token"].as_str().map(|token| (token.to_owned(), None));
    }
    if !is_form(request) {
        return None;
    }
    let form = request.form();
    let old_name = book.allows(Lenient::FormRefreshToken) && form.value("refresh_token").is_some();
    let name = if old_name { "refresh_token" } else { "api_token" };
    if !book.allows(Lenient::ExtraParameters)
        && let Err(fault) = form.check(&[name, "passcode?"], true)
    {
        desk.violation(format!("token request: {fault:?}"));
        return None;
    }
    Some((form.value(name)?.to_owned(), form.value("passcode").map(str::to_owned)))
}

/// C-E4: with MFA a code is wanted, and good once.
fn passes(held: &mut ApiToken, passcode: Option<&str>) -> bool {
    if !held.mfa {
        return true;
    }
    let passes = passcode.is_some() && held.passcode.as_deref() == passcode;
    if passes {
        held.passcode = None;
    }
    passes
}

fn accepts_json(request: &Recorded, desk: &Desk) -> bool {
    let accepts = request.header("accept").is_some_and(|value| value.contains("application/json"));
    if !accepts {
        desk.violation("no Accept: application/json");
    }
    accepts
}

fn is_form(request: &Recorded) -> bool {
    request.media_type().as_deref() == Some("application/x-www-form-urlencoded")
}

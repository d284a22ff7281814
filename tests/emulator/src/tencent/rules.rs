//! What a request must look like, and who gets tokens.

use super::answers::{empty_unauthorized, refused, refused_spaced, success};
use super::{Book, Rotation};
use crate::form::Form;
use crate::front::Desk;
use crate::http::{Recorded, Reply};
use crate::oauth2::basic;
use crate::tokens::Tokens;

pub(super) fn token(book: &mut Book, tokens: &Tokens, request: &Recorded, desk: &Desk) -> Reply {
    let form = request.form();
    let client = match client(book, request, &form, desk) {
        Ok(client) => client,
        Err(refusal) => return refusal,
    };
    let by_header = request.has("authorization");
    let parameter = match form.value("grant_type") {
        None => return refused(400, "invalid_request"),
        Some("refresh_token") if book.refresh_enabled => "refresh_token",
        Some("client_credentials") => "scope?",
        // T6; a refresh that is switched off is taken for the same (T-E4).
        Some(_) => return empty_unauthorized(),
    };
    let documented: &[&str] = match by_header {
        true => &["grant_type", parameter],
        false => &["client_id", "client_secret", "grant_type", parameter],
    };
    if let Err(fault) = form.check(documented, !book.any_order) {
        desk.violation(format!("token request: {fault:?}"));
        return refused(400, "invalid_request");
    }
    if parameter == "scope?" {
        return success(book, tokens, &client, None).1;
    }
    let presented = form.value("refresh_token").unwrap_or_default();
    refresh(book, tokens, &client, presented, desk)
}

fn refresh(book: &mut Book, tokens: &Tokens, client: &str, presented: &str, desk: &Desk) -> Reply {
    if book.alive(presented, client).is_none() {
        desk.failure(client);
        return refused_spaced(400, "invalid_grant"); // T3
    }
    let next = match book.rotation {
        Rotation::Same => Some(presented.to_owned()),
        Rotation::Absent => None, // T2
        Rotation::New | Rotation::NewOldLives => {
            book.rotations += 1;
            Some(book.issue(client))
        }
    };
    let (access_token, reply) = success(book, tokens, client, next.as_deref());
    let holder = next.as_deref().unwrap_or(presented);
    if let Some(grant) = book.refresh_tokens.get_mut(holder) {
        grant.access_tokens.push(access_token);
    }
    if book.rotation == Rotation::New
        && let Some(grant) = book.alive(presented, client)
    {
        grant.dead = true;
    }
    reply
}

/// T-E7: an access token takes only itself along, a refresh token its access tokens too.
pub(super) fn revoke(book: &mut Book, tokens: &Tokens, request: &Recorded, desk: &Desk) -> Reply {
    let form = request.form();
    let client = match client(book, request, &form, desk) {
        Ok(client) => client,
        // The revocation page knows this error only.
        Err(_) => return refused(401, "invalid_client"),
    };
    let Some(token) = form.value("token") else {
        return refused(400, "invalid_request");
    };
    tokens.revoke(token);
    if let Some(grant) = book.alive(token, &client) {
        grant.dead = true;
        grant.access_tokens.drain(..).for_each(|token| {
            tokens.revoke(&token);
        });
    }
    Reply::status(200)
}

/// The client, authenticated by exactly one method (T-E2).
fn client(book: &Book, request: &Recorded, form: &Form, desk: &Desk) -> Result<String, Reply> {
    let is_form = request.media_type().as_deref() == Some("application/x-www-form-urlencoded");
    if desk.common_violations(request, &["x-api-version"]) || !is_form {
        return Err(refused(400, "invalid_request"));
    }
    if let Some(name) = form.repeated() {
        desk.violation(format!("token request: {name} twice"));
        return Err(refused(400, "invalid_request"));
    }
    let (id, secret) = match request.headers("authorization").as_slice() {
        [] => {
            let id = form.value("client_id").ok_or_else(|| refused(400, "invalid_request"))?;
            (id.to_owned(), form.value("client_secret").unwrap_or_default().to_owned())
        }
        [header] if form.value("client_secret").is_none() => {
            basic(header).ok_or_else(|| refused(401, "invalid_client"))?
        }
        _ => {
            desk.violation("two methods of client authentication");
            return Err(refused(400, "invalid_request"));
        }
    };
    match book.clients.get(&id) {
        Some(expected) if *expected == secret => Ok(id),
        Some(_) => {
            desk.failure(&id);
            Err(refused(401, "invalid_client")) // T5
        }
        None => {
            desk.failure(&id);
            Err(refused(400, "invalid_request")) // T4
        }
    }
}

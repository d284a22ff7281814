//! PTC ServiceMax, Service Board: providers.md §1.1. Refresh only, no client authentication, no
//! rotation unless switched on, and statuses that are not RFC 6749's (rows S1 to S6).

use std::collections::{HashMap, HashSet};
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::form::Form;
use crate::front::{Desk, Front, Provider};
use crate::http::{Recorded, Reply, Tls};
use crate::tokens::Tokens;
use crate::{locked, mint};

/// The provider. Failures are counted by refresh token.
#[derive(Debug)]
pub struct Servicemax {
    front: Front,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    tokens: Tokens,
    book: Mutex<Book>,
}

#[derive(Debug)]
struct Book {
    clients: HashSet<String>,
    refresh_tokens: HashMap<String, Grant>,
    lifetime: Duration,
    rotates: bool,
    any_order: bool,
    cookies_allowed: bool,
}

#[derive(Debug)]
struct Grant {
    client: String,
    dead: bool,
}

impl Deref for Servicemax {
    type Target = Front;

    fn deref(&self) -> &Front {
        &self.front
    }
}

impl Servicemax {
    /// Starts one without clients.
    pub fn start(tls: Tls, tokens: &Tokens) -> Self {
        let book = Book {
            clients: HashSet::new(),
            refresh_tokens: HashMap::new(),
            lifetime: Duration::from_secs(86_400),
            rotates: false,
            any_order: false,
            cookies_allowed: false,
        };
        let state = Arc::new(State { tokens: tokens.clone(), book: Mutex::new(book) });
        Self { front: Front::start(Arc::clone(&state), tls), state }
    }

    /// Adds a client and gives its id, 24 hex digits as in the sample.
    pub fn add_client(&self) -> String {
        let id = mint::uuid().replace('-', "")[..24].to_owned();
        locked(&self.state.book).clients.insert(id.clone());
        id
    }

    /// A refresh token, as a person's sign-in would give.
    pub fn issue_refresh_token(&self, client: &str) -> String {
        locked(&self.state.book).issue(client)
    }

    /// Lets a refresh token expire (S5).
    pub fn expire_refresh_token(&self, token: &str) {
        locked(&self.state.book).kill(token);
    }

    /// Life of the access tokens from now on; 86400 s at the start.
    pub fn set_lifetime(&self, lifetime: Duration) {
        locked(&self.state.book).lifetime = lifetime;
    }

    /// A refresh answers with a new refresh token, and the old one dies (S2, S-E10); not
    /// documented, so off.
    pub fn set_rotation(&self, rotates: bool) {
        locked(&self.state.book).rotates = rotates;
    }

    /// Lenient: parameters in any order, not only the sample's.
    pub fn allow_any_order(&self, allow: bool) {
        locked(&self.state.book).any_order = allow;
    }

    /// Lenient: a cookie does not earn 404 (S-E6).
    pub fn allow_cookies(&self, allow: bool) {
        locked(&self.state.book).cookies_allowed = allow;
    }
}

impl Provider for State {
    fn is_token_request(&self, request: &Recorded) -> bool {
        // S-E1: both prefixes.
        matches!(request.path(), "/sec/auth/token" | "/auth/token")
    }

    fn answer(&self, request: &Recorded, desk: &Desk) -> Reply {
        let book = &mut locked(&self.book);
        let violated = desk.common_violations(request, &["authorization"]);
        // S-E6: 404 on the whole host for any request with a cookie.
        if request.has("cookie") && !book.cookies_allowed {
            return Reply::status(404);
        }
        let revocation = matches!(request.path(), "/sec/auth/token/revoke" | "/auth/token/revoke");
        if !revocation && !self.is_token_request(request) {
            return Reply::status(404);
        }
        let is_form = request.media_type().as_deref() == Some("application/x-www-form-urlencoded");
        if request.method != "POST" || !is_form || violated {
            return refusal(400, "invalid_request");
        }
        let reply = match revocation {
            true => revoke(book, &self.tokens, &request.form()),
            false => refresh(book, &self.tokens, &request.form(), desk),
        };
        match reply.status {
            200 => reply.header("Set-Cookie", "JSESSIONID=tempting; Path=/"), // S-E6
            _ => reply,
        }
    }
}

fn refresh(book: &mut Book, tokens: &Tokens, form: &Form, desk: &Desk) -> Reply {
    // S-E3 comes before the other parameters: another grant has others.
    match form.value("grant_type") {
        Some("refresh_token") | None => {}
        Some(_) => return refusal(400, "invalid_grant"),
    }
    let documented = ["grant_type", "client_id", "refresh_token"];
    if let Err(fault) = form.check(&documented, !book.any_order) {
        desk.violation(format!("token request: {fault:?}"));
        return refusal(400, "invalid_request"); // S3, S-E2
    }
    let client = form.value("client_id").unwrap_or_default();
    let presented = form.value("refresh_token").unwrap_or_default();
    if !book.clients.contains(client) {
        desk.failure(presented);
        return described(400, "invalid_client", "client is invalid"); // S4
    }
    let known = book.refresh_tokens.get(presented);
    if known.is_none_or(|grant| grant.dead || grant.client != client) {
        desk.failure(presented);
        return described(401, "invalid_token", "invalid token provided"); // S5
    }
    let access_token = mint::opaque(32);
    tokens.issue(&access_token, Some(book.lifetime));
    let mut answer = json!({
        "access_token": access_token,
        "token_type": "bearer",
        "expires_in": book.lifetime.as_secs(),
    });
    if book.rotates {
        book.kill(presented);
        answer["refresh_token"] = Value::from(book.issue(client));
    }
    Reply::json(200, answer) // S1, S2
}

/// S-E8. An unknown token is a lookup error here, not the success of RFC 7009.
fn revoke(book: &mut Book, tokens: &Tokens, form: &Form) -> Reply {
    let (Some(token), Some(client)) = (form.value("token"), form.value("client_id")) else {
        return Reply::status(400);
    };
    let known = book.clients.contains(client);
    let revoked = known && (tokens.revoke(token) || book.kill(token));
    Reply::status(if revoked { 200 } else { 500 })
}

impl Book {
    fn issue(&mut self, client: &str) -> String {
        let token = mint::opaque(32);
        let grant = Grant { client: client.to_owned(), dead: false };
        self.refresh_tokens.insert(token.clone(), grant);
        token
    }

    fn kill(&mut self, token: &str) -> bool {
        self.refresh_tokens.get_mut(token).map(|grant| grant.dead = true).is_some()
    }
}

fn refusal(status: u16, error: &str) -> Reply {
    Reply::json(status, json!({ "error": error }))
}

fn described(status: u16, error: &str, description: &str) -> Reply {
    Reply::json(status, json!({ "error": error, "error_description": description }))
}

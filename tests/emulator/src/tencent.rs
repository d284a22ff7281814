//! Tencent Cloud CIAM: providers.md §1.4. Short lives, refresh tokens returned each time, JSON
//! spelled in its own way, and one error with an empty body (rows T1 to T6).

mod answers;
mod person;
mod rules;

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::front::{Desk, Front, Provider};
use crate::http::{Recorded, Reply, Tls};
use crate::tokens::Tokens;
use crate::{locked, mint};

/// Where tokens are asked for.
pub const TOKEN_PATH: &str = "/oauth2/token";
/// Where tokens are revoked.
pub const REVOKE_PATH: &str = "/oauth2/revoke";
/// Where a person's browser goes.
pub const AUTHORIZE_PATH: &str = "/oauth2/authorize";
/// Where the tenant's metadata is.
pub const METADATA_PATH: &str = "/.well-known/openid-configuration";

/// The tenant. Failures are counted by client id.
#[derive(Debug)]
pub struct Tencent {
    front: Front,
    state: Arc<State>,
}

/// `refresh_token` of a refresh (T1, T2, T-E3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// A new one, and the old one dies.
    New,
    /// A new one, and the old one lives.
    NewOldLives,
    /// The same again, as in the sample.
    Same,
    /// None.
    Absent,
}

#[derive(Debug)]
struct State {
    tokens: Tokens,
    book: Mutex<Book>,
}

#[derive(Debug)]
struct Book {
    clients: HashMap<String, String>,
    refresh_tokens: HashMap<String, Grant>,
    rotation: Rotation,
    refresh_enabled: bool,
    any_order: bool,
    lifetime: Duration,
    refresh_lifetime: Duration,
    rotations: u64,
    codes: person::Codes,
}

#[derive(Debug)]
struct Grant {
    client: String,
    dead: bool,
    until: Instant,
    /// Die with it when it is revoked (T-E7).
    access_tokens: Vec<String>,
}

impl Deref for Tencent {
    type Target = Front;

    fn deref(&self) -> &Front {
        &self.front
    }
}

impl Tencent {
    /// Starts one without applications.
    pub fn start(tls: Tls, tokens: &Tokens) -> Self {
        let book = Book {
            clients: HashMap::new(),
            refresh_tokens: HashMap::new(),
            rotation: Rotation::New,
            refresh_enabled: true,
            any_order: false,
            lifetime: Duration::from_secs(300),
            refresh_lifetime: Duration::from_secs(86_400),
            rotations: 0,
            codes: HashMap::new(),
        };
        let state = Arc::new(State { tokens: tokens.clone(), book: Mutex::new(book) });
        Self { front: Front::start(Arc::clone(&state), tls), state }
    }

    /// Adds an application.
    pub fn add_client(&self, id: &str, secret: &str) {
        self.with(|book| book.clients.insert(id.to_owned(), secret.to_owned()));
    }

    /// A refresh token, as a person's sign-in would give: 128 base64url characters.
    pub fn issue_refresh_token(&self, client: &str) -> String {
        self.with(|book| book.issue(client))
    }

    /// Lets a refresh token expire (T3).
    pub fn expire_refresh_token(&self, token: &str) {
        self.with(|book| book.refresh_tokens.get_mut(token).map(|grant| grant.dead = true));
    }

    /// What a refresh does to the refresh token; [`Rotation::New`] at the start.
    pub fn set_rotation(&self, rotation: Rotation) {
        self.with(|book| book.rotation = rotation);
    }

    /// How often a refresh token was replaced.
    pub fn rotations(&self) -> u64 {
        self.with(|book| book.rotations)
    }

    /// Whether the application may refresh (T-E4); true at the start.
    pub fn set_refresh_enabled(&self, enabled: bool) {
        self.with(|book| book.refresh_enabled = enabled);
    }

    /// Life of the access tokens from now on, 300 s at the start; `expires_in` says a second less
    /// (T-E6).
    pub fn set_lifetime(&self, lifetime: Duration) {
        self.with(|book| book.lifetime = lifetime);
    }

    /// Lenient: parameters in any order, not only the sample's.
    pub fn allow_any_order(&self, allow: bool) {
        self.with(|book| book.any_order = allow);
    }

    fn with<T>(&self, act: impl FnOnce(&mut Book) -> T) -> T {
        act(&mut locked(&self.state.book))
    }
}

impl Provider for State {
    fn is_token_request(&self, request: &Recorded) -> bool {
        request.path() == TOKEN_PATH
    }

    fn answer(&self, request: &Recorded, desk: &Desk) -> Reply {
        let book = &mut locked(&self.book);
        match (request.path(), request.method.as_str()) {
            (METADATA_PATH, "GET") => person::metadata(request),
            (AUTHORIZE_PATH, "GET") => person::authorize(book, request, desk),
            (TOKEN_PATH, "POST")
                if request.form().value("grant_type") == Some("authorization_code") =>
            {
                person::exchange(book, &self.tokens, request, desk)
            }
            (TOKEN_PATH, "POST") => rules::token(book, &self.tokens, request, desk),
            (REVOKE_PATH, "POST") => rules::revoke(book, &self.tokens, request, desk),
            (TOKEN_PATH | REVOKE_PATH, _) => Reply::status(405).header("Allow", "POST"),
            _ => Reply::status(404),
        }
    }
}

impl Book {
    fn issue(&mut self, client: &str) -> String {
        let token = mint::opaque(96);
        let grant = Grant {
            client: client.to_owned(),
            dead: false,
            until: Instant::now() + self.refresh_lifetime,
            access_tokens: Vec::new(),
        };
        self.refresh_tokens.insert(token.clone(), grant);
        token
    }

    fn alive(&mut self, token: &str, client: &str) -> Option<&mut Grant> {
        let now = Instant::now();
        self.refresh_tokens
            .get_mut(token)
            .filter(|grant| !grant.dead && grant.until > now && grant.client == client)
    }
}

//! A provider that follows RFC 6749 to the letter: client_credentials, refresh_token and password
//! grants, a person's sign-in by authorization code or device, and every quirk of §4 that is a matter
//! of its answers.

mod client;
mod family;
mod grant;
mod person;
mod settings;

use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

pub use client::Authentication;
pub(crate) use client::basic;
pub use person::Decision;
pub use settings::{ExpiresIn, Reuse, Rotation};

use crate::front::{Desk, Front, Provider};
use crate::http::{Recorded, Reply, Tls};
use crate::locked;
use crate::tokens::Tokens;
use client::Clients;
use family::Families;
use settings::Settings;

/// Where tokens are asked for.
pub const TOKEN_PATH: &str = "/token";
/// Where tokens are revoked (RFC 7009).
pub const REVOKE_PATH: &str = "/revoke";

/// Where a person's browser goes (RFC 6749 §3.1).
pub const AUTHORIZE_PATH: &str = "/authorize";
/// Where a device asks for its codes (RFC 8628 §3.1).
pub const DEVICE_PATH: &str = "/device_authorization";
/// Where the metadata is (RFC 8414 §3).
pub const METADATA_PATH: &str = "/.well-known/oauth-authorization-server";

/// The generic provider. Failures are counted by client id, those of the password grant by user
/// name.
#[derive(Debug)]
pub struct Oauth2 {
    front: Front,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    tokens: Tokens,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    clients: Clients,
    users: std::collections::HashMap<String, String>,
    families: Families,
    settings: Settings,
    people: person::People,
    last: std::collections::HashMap<String, grant::Held>,
}

impl Deref for Oauth2 {
    type Target = Front;

    fn deref(&self) -> &Front {
        &self.front
    }
}

impl Oauth2 {
    /// Starts one that knows the client `client` with the secret `secret` and the user `user` with
    /// the password `password`.
    pub fn start(tls: Tls, tokens: &Tokens) -> Self {
        let state = Arc::new(State { tokens: tokens.clone(), book: Mutex::default() });
        let oauth2 = Self { front: Front::start(Arc::clone(&state), tls), state };
        oauth2.add_client("client", Some("secret"));
        oauth2.add_user("user", "password");
        oauth2
    }

    /// The URL for `token_url`.
    pub fn token_url(&self) -> String {
        format!("{}{TOKEN_PATH}", self.url())
    }

    /// The URL for `revocation_url`.
    pub fn revocation_url(&self) -> String {
        format!("{}{REVOKE_PATH}", self.url())
    }

    /// Adds a client, or gives it another secret: both methods of authentication with one, `None`
    /// without.
    pub fn add_client(&self, id: &str, secret: Option<&str>) {
        locked(&self.state.book).clients.add(id, secret);
    }

    /// Lets a client authenticate by these methods only.
    pub fn allow_authentication(&self, id: &str, methods: &[Authentication]) {
        locked(&self.state.book).clients.allow(id, methods);
    }

    /// Adds a user for the password grant, or changes the password.
    pub fn add_user(&self, name: &str, password: &str) {
        locked(&self.state.book).users.insert(name.to_owned(), password.to_owned());
    }

    /// Starts a family for a client, as a person's sign-in would: gives its first refresh token.
    pub fn issue_refresh_token(&self, client: &str) -> String {
        locked(&self.state.book).families.start(client)
    }

    /// Whether no family was revoked. True also when there is none.
    pub fn family_alive(&self) -> bool {
        locked(&self.state.book).families.all_alive()
    }

    /// How often a refresh token was replaced.
    pub fn rotations(&self) -> u64 {
        locked(&self.state.book).families.rotations()
    }

    /// The refresh token that counts now, of the newest family.
    pub fn current_refresh_token(&self) -> Option<String> {
        locked(&self.state.book).families.current()
    }

    /// Revokes every family, as an administrator would: all their tokens die.
    pub fn revoke_families(&self) {
        locked(&self.state.book).families.revoke_all(&self.state.tokens);
    }

    /// Life of the access tokens from now on; 3600 s at the start.
    pub fn set_lifetime(&self, lifetime: Duration) {
        self.set(|settings| settings.lifetime = lifetime);
    }

    /// `expires_in` from now on, as any JSON value (Q1).
    pub fn set_expires_in(&self, value: Value) {
        self.set(|settings| settings.expires_in = ExpiresIn::Value(value));
    }

    /// No `expires_in` from now on (Q1).
    pub fn omit_expires_in(&self) {
        self.set(|settings| settings.expires_in = ExpiresIn::Absent);
    }

    /// What a refresh does to the refresh token; [`Rotation::New`] at the start.
    pub fn set_rotation(&self, rotation: Rotation) {
        self.set(|settings| settings.rotation = rotation);
    }

    /// What a replaced refresh token does; [`Reuse::RevokesFamily`] at the start (Q12).
    pub fn set_reuse(&self, reuse: Reuse) {
        self.set(|settings| settings.reuse = reuse);
    }

    /// So long after its replacement the previous refresh token still works and earns the same
    /// successor (Q12).
    pub fn set_grace(&self, grace: Duration) {
        self.set(|settings| settings.grace = grace);
    }

    /// A fetch before expiry gives the same access token with the rest of its life (Q18).
    pub fn set_same_token(&self, same: bool) {
        self.set(|settings| settings.same_token = same);
    }

    /// A new access token kills the client's previous one (Q14).
    pub fn set_single_live(&self, single: bool) {
        self.set(|settings| settings.single_live = single);
    }

    /// `token_type` from now on, or none (Q3); `Bearer` at the start.
    pub fn set_token_type(&self, token_type: Option<&str>) {
        self.set(|settings| settings.token_type = token_type.map(str::to_owned));
    }

    /// Fields of this object replace or join those of every success.
    pub fn set_extra(&self, fields: Value) {
        self.set(|settings| settings.extra = fields);
    }

    /// Access tokens are JWTs with `exp` instead of opaque.
    pub fn set_jwt(&self, jwt: bool) {
        self.set(|settings| settings.jwt = jwt);
    }

    /// The URL for `authorization_url`.
    pub fn authorization_url(&self) -> String {
        format!("{}{AUTHORIZE_PATH}", self.url())
    }

    /// The URL for `device_authorization_url`.
    pub fn device_authorization_url(&self) -> String {
        format!("{}{DEVICE_PATH}", self.url())
    }

    /// What the person decides at the authorization endpoint; to approve, at the start.
    pub fn set_decision(&self, decision: Decision) {
        locked(&self.state.book).people.decision = decision;
    }

    /// The person enters a device's code; false if there is no such code.
    pub fn enter_code(&self, user_code: &str, decision: Decision) -> bool {
        locked(&self.state.book).people.decide(user_code, decision)
    }

    /// Every device's code expires now.
    pub fn expire_codes(&self) {
        locked(&self.state.book).people.expire_codes();
    }

    /// Devices are to be polled for five seconds more slowly, as after a scripted `slow_down`.
    pub fn expect_slower_polling(&self) {
        locked(&self.state.book).people.slow_down();
    }

    /// The `iss` of authorization responses (RFC 9207), `None` for none; the server's own at the
    /// start.
    pub fn set_iss(&self, iss: Option<&str>) {
        locked(&self.state.book).people.iss = Some(iss.unwrap_or_default().to_owned());
    }

    /// Fields that replace or join those of the metadata.
    pub fn set_metadata(&self, fields: Value) {
        locked(&self.state.book).people.metadata = fields;
    }

    /// Fields that replace or join those of the answer to a device authorization request.
    pub fn set_device_answer(&self, fields: Value) {
        locked(&self.state.book).people.device_answer = fields;
    }

    fn set(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut locked(&self.state.book).settings);
    }
}

impl Provider for State {
    fn is_token_request(&self, request: &Recorded) -> bool {
        request.path() == TOKEN_PATH
    }

    fn answer(&self, request: &Recorded, desk: &Desk) -> Reply {
        let book = &mut locked(&self.book);
        let answer = match (request.path(), request.method.as_str()) {
            (TOKEN_PATH | REVOKE_PATH | DEVICE_PATH, "POST")
                if desk.common_violations(request, &[]) =>
            {
                Err(grant::Refusal::InvalidRequest)
            }
            (TOKEN_PATH, "POST") => grant::token(book, &self.tokens, request, desk),
            (REVOKE_PATH, "POST") => grant::revoke(book, &self.tokens, request, desk),
            (DEVICE_PATH, "POST") => person::device(book, request, desk),
            (AUTHORIZE_PATH, "GET") => return person::authorize(book, request, desk),
            (METADATA_PATH, "GET") => return person::metadata(book, request),
            (TOKEN_PATH | REVOKE_PATH | DEVICE_PATH, _) => {
                return Reply::status(405).header("Allow", "POST");
            }
            _ => return Reply::status(404),
        };
        answer.unwrap_or_else(|refusal| refusal.reply(request.has("authorization")))
    }
}

//! Veeam Backup for Microsoft Azure: providers.md §1.3. Refresh tokens that rotate and are JWTs,
//! sign-in with user name and password, MFA, problem+json, a self-signed certificate (rows V1 to
//! V8).

mod answers;
mod rules;

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub use answers::redirect_to;

use crate::front::{Desk, Front, Provider};
use crate::http::{Recorded, Reply, Tls};
use crate::locked;
use crate::tokens::Tokens;
use answers::{Issue, issue};

/// Where tokens are asked for; `DELETE` signs out.
pub const TOKEN_PATH: &str = "/api/oauth2/token";
/// The same as the vendor's prose has it.
pub const SHORT_TOKEN_PATH: &str = "/oauth2/token";

/// The appliance. Failures are counted by user name, those of a refresh that names no user under
/// `""`.
#[derive(Debug)]
pub struct Veeam {
    front: Front,
    state: Arc<State>,
}

/// How parameters are spelled (V-E2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// As the sample has them, in its order: `Username`, `Password`, `refresh_token`, `grant_type`.
    Capital,
    /// As version 8.1 has them: `username` and `password`, and only to sign in.
    Lower,
    /// Any of these, in any order.
    Both,
}

/// What the documents leave open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lenient {
    /// A replaced refresh token lives on (V-E3).
    OldRefreshTokenLives,
    /// User name and password are not checked on a refresh.
    PasswordUnchecked,
    /// A refresh may leave user name and password out.
    BareRefresh,
    /// The refresh token survives signing out.
    LogoutKeepsRefreshToken,
}

#[derive(Debug)]
struct State {
    tokens: Tokens,
    book: Mutex<Book>,
}

#[derive(Debug)]
struct Book {
    users: HashMap<String, User>,
    refresh_tokens: HashMap<String, RefreshToken>,
    /// User and mfa_token of sign-ins that wait for their code.
    pending_mfa: HashMap<String, String>,
    /// Which refresh token came with an access token.
    siblings: HashMap<String, String>,
    spelling: Spelling,
    lenient: Vec<Lenient>,
    lifetime: Duration,
    fraction_digits: usize,
    expires_offset_ms: i64,
    logout_denied: bool,
    logins: u64,
}

#[derive(Debug)]
struct User {
    password: String,
    mfa_code: Option<String>,
    external: bool,
}

#[derive(Debug)]
struct RefreshToken {
    user: String,
    dead: bool,
    until: Instant,
}

impl Deref for Veeam {
    type Target = Front;

    fn deref(&self) -> &Front {
        &self.front
    }
}

impl Veeam {
    /// Starts one without users. The real one has `Tls::self_signed()` and no plaintext (V-E1).
    pub fn start(tls: Tls, tokens: &Tokens) -> Self {
        let book = Book {
            users: HashMap::new(),
            refresh_tokens: HashMap::new(),
            pending_mfa: HashMap::new(),
            siblings: HashMap::new(),
            spelling: Spelling::Capital,
            lenient: Vec::new(),
            lifetime: Duration::from_secs(3600),
            fraction_digits: 7,
            expires_offset_ms: 0,
            logout_denied: false,
            logins: 0,
        };
        let state = Arc::new(State { tokens: tokens.clone(), book: Mutex::new(book) });
        Self { front: Front::start(Arc::clone(&state), tls), state }
    }

    /// Adds a user, or changes the password.
    pub fn add_user(&self, name: &str, password: &str) {
        let user = User { password: password.to_owned(), mfa_code: None, external: false };
        self.with(|book| book.users.insert(name.to_owned(), user));
    }

    /// Turns MFA on for a user (V2, V-E6).
    pub fn set_mfa(&self, name: &str, code: &str) {
        self.change(name, |user| user.mfa_code = Some(code.to_owned()));
    }

    /// Makes a user one of an external identity provider (V3, V-E7).
    pub fn set_external(&self, name: &str) {
        self.change(name, |user| user.external = true);
    }

    /// A refresh token, as an earlier sign-in would have given. Good for 14 days.
    pub fn issue_refresh_token(&self, user: &str) -> String {
        self.with(|book| issue(book, &Issue { user, short_lived: false }).refresh_token)
    }

    /// Lets a refresh token expire, or be revoked: both earn 401 (V5).
    pub fn kill_refresh_token(&self, token: &str) {
        self.with(|book| book.kill(token));
    }

    /// Whether a refresh token would be accepted.
    pub fn refresh_token_alive(&self, token: &str) -> bool {
        self.with(|book| book.alive(token).is_some())
    }

    /// Sign-ins with a password that succeeded.
    pub fn logins(&self) -> u64 {
        self.with(|book| book.logins)
    }

    /// Which spelling is accepted; [`Spelling::Capital`] at the start.
    pub fn set_spelling(&self, spelling: Spelling) {
        self.with(|book| book.spelling = spelling);
    }

    /// Lets something through that the documents leave open.
    pub fn allow(&self, lenient: Lenient) {
        self.with(|book| book.lenient.push(lenient));
    }

    /// Life of the access tokens from now on; 3600 s at the start.
    pub fn set_lifetime(&self, lifetime: Duration) {
        self.with(|book| book.lifetime = lifetime);
    }

    /// Fraction digits of `.issued` and `.expires` (V-E14); 7 at the start.
    pub fn set_fraction_digits(&self, digits: usize) {
        self.with(|book| book.fraction_digits = digits);
    }

    /// Moves `.expires` by so many milliseconds, before or after `exp` (V-E14). At 0 it is up to a
    /// second later.
    pub fn set_expires_offset(&self, milliseconds: i64) {
        self.with(|book| book.expires_offset_ms = milliseconds);
    }

    /// Signing out earns 403 (V-E10).
    pub fn set_logout_denied(&self, denied: bool) {
        self.with(|book| book.logout_denied = denied);
    }

    fn with<T>(&self, act: impl FnOnce(&mut Book) -> T) -> T {
        act(&mut locked(&self.state.book))
    }

    fn change(&self, name: &str, act: impl FnOnce(&mut User)) {
        self.with(|book| act(book.users.get_mut(name).expect("a known user")));
    }
}

impl Provider for State {
    fn is_token_request(&self, request: &Recorded) -> bool {
        request.method == "POST" && matches!(request.path(), TOKEN_PATH | SHORT_TOKEN_PATH)
    }

    fn answer(&self, request: &Recorded, desk: &Desk) -> Reply {
        let book = &mut locked(&self.book);
        match (request.path(), request.method.as_str()) {
            (TOKEN_PATH | SHORT_TOKEN_PATH, "POST") => {
                rules::token(book, &self.tokens, request, desk)
            }
            (TOKEN_PATH | SHORT_TOKEN_PATH, "DELETE") => {
                rules::logout(book, &self.tokens, request, desk)
            }
            (TOKEN_PATH | SHORT_TOKEN_PATH, _) => {
                Reply::status(405).header("Allow", "POST, DELETE")
            }
            _ => Reply::status(404),
        }
    }
}

impl Book {
    fn allows(&self, lenient: Lenient) -> bool {
        self.lenient.contains(&lenient)
    }

    /// The user of a refresh token that is alive. An access token is none (V-E4).
    fn alive(&self, refresh_token: &str) -> Option<&str> {
        self.refresh_tokens
            .get(refresh_token)
            .filter(|held| !held.dead && held.until > Instant::now())
            .map(|held| held.user.as_str())
    }

    fn kill(&mut self, refresh_token: &str) {
        if let Some(held) = self.refresh_tokens.get_mut(refresh_token) {
            held.dead = true;
        }
    }
}

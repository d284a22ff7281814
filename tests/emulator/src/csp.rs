//! VMware Cloud Services, API token exchange: providers.md §1.2. An anonymous endpoint, no grant
//! type, a long-lived API token, error envelopes that quote it (rows C1 to C7).

mod answers;
mod rules;

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

pub use answers::{conflict, error_in_success, rate_limited, server_error};

use crate::front::{Desk, Front, Provider};
use crate::http::{Recorded, Reply, Tls};
use crate::tokens::Tokens;
use crate::{locked, mint};
use rules::{authorize, client_credentials};

/// Where an API token is exchanged.
pub const AUTHORIZE_PATH: &str = "/csp/gateway/am/api/auth/api-tokens/authorize";
/// Where a client's id and secret are exchanged.
pub const CLIENT_PATH: &str = "/csp/gateway/am/api/auth/authorize";

/// The provider. Failures (C-E10) are counted by API token, or client id.
#[derive(Debug)]
pub struct Csp {
    front: Front,
    state: Arc<State>,
}

/// How an unknown API token is refused (C-E5, C-E6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadToken {
    /// 400, `moduleCode` a number (C3).
    Number400,
    /// 400, `moduleCode` a string.
    String400,
    /// 404, the long envelope with string codes (C4).
    Envelope404,
}

/// `refresh_token` of a success (C1, C-E8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// The API token that was sent.
    Same,
    /// Some other token.
    Other,
    /// `null`.
    Null,
    /// No such field.
    Absent,
}

/// Undocumented or deprecated requests that can be let through (C-E1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lenient {
    /// The token in the form as `refresh_token`.
    FormRefreshToken,
    /// The token in the query. It stays a violation (C-E3).
    Query,
    /// The body `{"refresh_token": …}`.
    Json,
    /// Further parameters, `grant_type` for one.
    ExtraParameters,
}

#[derive(Debug)]
struct State {
    tokens: Tokens,
    book: Mutex<Book>,
}

#[derive(Debug)]
struct Book {
    api_tokens: HashMap<String, ApiToken>,
    clients: HashMap<String, String>,
    lifetime: Duration,
    expires_in: Option<Value>,
    omit_expires_in: bool,
    echo: Echo,
    bad_token: BadToken,
    lenient: Vec<Lenient>,
}

#[derive(Debug, Default)]
struct ApiToken {
    expired: bool,
    /// With MFA every exchange needs a code that was not used yet (C-E4).
    mfa: bool,
    passcode: Option<String>,
    access_tokens: Vec<String>,
}

impl Deref for Csp {
    type Target = Front;

    fn deref(&self) -> &Front {
        &self.front
    }
}

impl Csp {
    /// Starts one without API tokens.
    pub fn start(tls: Tls, tokens: &Tokens) -> Self {
        let book = Book {
            api_tokens: HashMap::new(),
            clients: HashMap::new(),
            lifetime: Duration::from_secs(1799),
            expires_in: None,
            omit_expires_in: false,
            echo: Echo::Same,
            bad_token: BadToken::Number400,
            lenient: Vec::new(),
        };
        let state = Arc::new(State { tokens: tokens.clone(), book: Mutex::new(book) });
        Self { front: Front::start(Arc::clone(&state), tls), state }
    }

    /// A new API token of 65 characters.
    pub fn issue_api_token(&self) -> String {
        let token = mint::opaque(49)[..65].to_owned();
        self.add_api_token(&token);
        token
    }

    /// Accepts this API token; `a+b&c=d` is one for C-E2.
    pub fn add_api_token(&self, token: &str) {
        self.with(|book| book.api_tokens.insert(token.to_owned(), ApiToken::default()));
    }

    /// Lets an API token expire (C3).
    pub fn expire_api_token(&self, token: &str) {
        self.change(token, |held| held.expired = true);
    }

    /// Replaces an API token (C-E9). The documents disagree whether its access tokens die with it.
    pub fn regenerate(&self, token: &str, access_tokens_die: bool) -> String {
        let held = self.with(|book| book.api_tokens.remove(token)).unwrap_or_default();
        if access_tokens_die {
            held.access_tokens.iter().for_each(|token| {
                self.state.tokens.revoke(token);
            });
        }
        self.issue_api_token()
    }

    /// Turns MFA on for an API token; this passcode is good for one exchange (C-E4).
    pub fn set_passcode(&self, token: &str, passcode: &str) {
        self.change(token, |held| {
            held.mfa = true;
            held.passcode = Some(passcode.to_owned());
        });
    }

    /// Adds a client of the sibling exchange (`grant_type=client_credentials`, Basic).
    pub fn add_client(&self, id: &str, secret: &str) {
        self.with(|book| book.clients.insert(id.to_owned(), secret.to_owned()));
    }

    /// Life of the access tokens from now on; 1799 s at the start.
    pub fn set_lifetime(&self, lifetime: Duration) {
        self.with(|book| book.lifetime = lifetime);
    }

    /// `expires_in` from now on, whatever the life is (C-E7).
    pub fn set_expires_in(&self, value: Value) {
        self.with(|book| book.expires_in = Some(value));
    }

    /// No `expires_in` from now on (C-E7).
    pub fn omit_expires_in(&self) {
        self.with(|book| book.omit_expires_in = true);
    }

    /// `refresh_token` of the answers (C-E8); [`Echo::Same`] at the start, as VMware's own mock has
    /// it.
    pub fn set_echo(&self, echo: Echo) {
        self.with(|book| book.echo = echo);
    }

    /// How an unknown API token is refused; [`BadToken::Number400`] at the start.
    pub fn set_bad_token(&self, bad_token: BadToken) {
        self.with(|book| book.bad_token = bad_token);
    }

    /// Lets something through that the documents do not have.
    pub fn allow(&self, lenient: Lenient) {
        self.with(|book| book.lenient.push(lenient));
    }

    fn with<T>(&self, act: impl FnOnce(&mut Book) -> T) -> T {
        act(&mut locked(&self.state.book))
    }

    fn change(&self, token: &str, act: impl FnOnce(&mut ApiToken)) {
        self.with(|book| act(book.api_tokens.get_mut(token).expect("a known API token")));
    }
}

impl Provider for State {
    fn is_token_request(&self, request: &Recorded) -> bool {
        matches!(request.path(), AUTHORIZE_PATH | CLIENT_PATH)
    }

    fn answer(&self, request: &Recorded, desk: &Desk) -> Reply {
        let book = &mut locked(&self.book);
        match (request.path(), request.method.as_str()) {
            (AUTHORIZE_PATH, "POST") => authorize(book, &self.tokens, request, desk),
            (CLIENT_PATH, "POST") => client_credentials(book, &self.tokens, request, desk),
            (AUTHORIZE_PATH | CLIENT_PATH, _) => Reply::status(405).header("Allow", "POST"),
            // C4 without an envelope: wrong host or path.
            _ => Reply::html(404),
        }
    }
}

impl Book {
    fn allows(&self, lenient: Lenient) -> bool {
        self.lenient.contains(&lenient)
    }

    /// C1.
    fn success(&self, tokens: &Tokens, api_token: &str) -> (String, Reply) {
        let access_token = answers::access_token(self.lifetime);
        tokens.issue(&access_token, Some(self.lifetime));
        let mut answer = json!({
            "access_token": access_token,
            "expires_in": self.expires_in.clone().unwrap_or_else(|| json!(self.lifetime.as_secs())),
            "id_token": "",
            "refresh_token": match self.echo {
                Echo::Same => json!(api_token),
                Echo::Other => json!(mint::opaque(48)),
                Echo::Null | Echo::Absent => Value::Null,
            },
            "scope": "ALL_PERMISSIONS customer_number openid group_ids group_names",
            "token_type": "bearer",
        });
        if let Some(fields) = answer.as_object_mut() {
            if self.omit_expires_in {
                fields.remove("expires_in");
            }
            if self.echo == Echo::Absent {
                fields.remove("refresh_token");
            }
        }
        (access_token, Reply::json(200, answer))
    }
}

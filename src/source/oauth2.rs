//! Plain OAuth 2.0 (RFC 6749) as a dialect: grants × client authentication, with their parameters.

use http::HeaderName;

use super::dialect::{Dialect, Key, Kind};
use super::discovery::Discovery;
use super::signing::ALGORITHMS;
use super::template::Template;

mod login;
mod request;

pub use request::standard_ok;

/// How an access token is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// RFC 6749 §4.4.
    ClientCredentials,
    /// RFC 6749 §6.
    RefreshToken,
    /// RFC 6749 §4.3; only where the identity provider leaves no choice (RFC 9700 §2.4).
    Password,
    /// RFC 7523 §2.1: an assertion that is signed here, or that somebody else made.
    JwtBearer,
    /// RFC 8693.
    TokenExchange,
}

impl Grant {
    /// The word in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientCredentials => "client_credentials",
            Self::RefreshToken => "refresh_token",
            Self::Password => "password",
            Self::JwtBearer => "jwt_bearer",
            Self::TokenExchange => "token_exchange",
        }
    }

    /// The `grant_type`.
    fn on_the_wire(self) -> &'static str {
        match self {
            Self::JwtBearer => "urn:ietf:params:oauth:grant-type:jwt-bearer",
            Self::TokenExchange => "urn:ietf:params:oauth:grant-type:token-exchange",
            _ => self.as_str(),
        }
    }

    /// The grant itself says who asks, so that a client need not.
    #[must_use]
    pub fn identifies(self) -> bool {
        matches!(self, Self::JwtBearer | Self::TokenExchange)
    }
}

/// How the client authenticates at the token endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuthentication {
    /// `client_secret_basic` (RFC 6749 §2.3.1).
    Basic,
    /// The same without encoding id and secret first, for servers that do not decode them.
    BasicRaw,
    /// `client_secret_post` (RFC 6749 §2.3.1).
    Post,
    /// `private_key_jwt` (RFC 7523 §2.2).
    PrivateKeyJwt,
    /// `client_secret_jwt` (RFC 7523 §2.2).
    ClientSecretJwt,
    /// `tls_client_auth` and `self_signed_tls_client_auth` (RFC 8705 §2).
    Tls,
    /// A client assertion that somebody else keeps current in a file: a projected service account
    /// token (RFC 7523 §2.2).
    AssertionFile,
    /// A public client: its id only (RFC 6749 §3.2.1), or nothing where the grant identifies it.
    None,
}

/// What a credential of `provider = "oauth2"` chose.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // choices that do not depend on each other
pub struct Choices {
    /// `grant`
    pub grant: Grant,
    /// `client_auth`
    pub authentication: ClientAuthentication,
    /// The endpoints come from the metadata of `issuer`.
    pub discovered: bool,
    /// The `aud` of what is signed here is configured; otherwise it is the token endpoint.
    pub assertion_audience: bool,
    /// An `assertion_issuer` is configured; otherwise the client is the issuer.
    pub assertion_issuer: bool,
    /// Extra claims of what is signed for the grant.
    pub claims: Vec<(String, String)>,
    /// Extra header fields.
    pub headers: Vec<(HeaderName, Template)>,
    /// Token types that can be injected.
    pub token_types: Vec<String>,
    /// Tokens are to be bound to a key (RFC 9449).
    pub dpop: bool,
    /// A person may sign in at `authorization_url`, or where the metadata says.
    pub authorization: bool,
    /// A person may sign in by `device_authorization_url`, or where the metadata says.
    pub device: bool,
}

impl Choices {
    /// `grant` with `authentication` at a `token_url`, and nothing else.
    #[must_use]
    pub fn new(grant: Grant, authentication: ClientAuthentication) -> Self {
        Self {
            grant,
            authentication,
            discovered: false,
            assertion_audience: false,
            assertion_issuer: false,
            claims: Vec::new(),
            headers: Vec::new(),
            token_types: vec!["Bearer".to_owned()],
            dpop: false,
            authorization: false,
            device: false,
        }
    }
}

/// The dialect of what a credential chose.
#[must_use]
pub fn dialect(choices: &Choices) -> Dialect {
    let mutual_tls = choices.authentication == ClientAuthentication::Tls;
    Dialect {
        name: "oauth2".to_owned(),
        obtain: request::ways(choices),
        keys: keys(choices),
        renew: None,
        revoke: Some(request::revocation(choices)),
        variants: vec!["authorization: Bearer".to_owned()],
        expired: Vec::new(),
        rotation_grace: None,
        rotates: true,
        assertions: request::assertions(choices),
        login: login::login(choices),
        dpop: choices.dpop,
        discovery: choices.discovered.then_some(Discovery { mutual_tls }),
    }
}

/// The same, with `fallback` as another way in for when the refresh token is refused or in doubt;
/// `other` is the dialect of that grant.
#[must_use]
pub fn falling_back(mut dialect: Dialect, fallback: Grant, other: Dialect) -> Dialect {
    for matcher in dialect.obtain.iter_mut().flat_map(|exchange| &mut exchange.errors) {
        matcher.try_next = true;
    }
    dialect.obtain.extend(other.obtain.into_iter().map(|mut way| {
        // RFC 6749 §4.3.3: a sign-in may begin a new chain; §4.4.3: a client by itself does not.
        if fallback == Grant::Password {
            way.ok.refresh_token = Some("/refresh_token".to_owned());
        }
        way
    }));
    for key in other.keys {
        if !dialect.keys.iter().any(|earlier| earlier.name == key.name) {
            dialect.keys.push(key);
        }
    }
    dialect
}

fn keys(choices: &Choices) -> Vec<Key> {
    use ClientAuthentication as Auth;
    let id = choices.authentication != Auth::None || !choices.grant.identifies();
    let mut keys = vec![
        key("client_id", Kind::Text, id),
        key("scope", Kind::Text, false),
        key("revocation_url", Kind::Url, false),
    ];
    if choices.dpop {
        keys.push(key("dpop_key", Kind::SigningKey, false));
    }
    keys.push(key("token_url", Kind::Url, !choices.discovered));
    if choices.discovered {
        keys.push(key("issuer", Kind::Url, true));
    }
    let authentication: &[Key] = match choices.authentication {
        Auth::Basic | Auth::BasicRaw | Auth::Post => &[key("client_secret", Kind::Secret, true)],
        Auth::ClientSecretJwt => &[key("client_secret", Kind::Secret, true), algorithm_key(true)],
        Auth::PrivateKeyJwt => &[key("private_key", Kind::SigningKey, true)],
        Auth::AssertionFile => &[key("assertion_file", Kind::File, true)],
        Auth::Tls | Auth::None => &[],
    };
    keys.extend_from_slice(authentication);
    let grant: &[Key] = match choices.grant {
        Grant::ClientCredentials => &[],
        Grant::RefreshToken => &[
            Key { rotating: true, ..key("refresh_token", Kind::Secret, false) },
            key("authorization_url", Kind::Url, false),
            key("device_authorization_url", Kind::Url, false),
        ],
        Grant::Password => {
            &[key("username", Kind::Text, true), key("password", Kind::Secret, true)]
        }
        Grant::JwtBearer => &[
            key("assertion", Kind::Token, false),
            key("private_key", Kind::SigningKey, false),
            key("assertion_subject", Kind::Text, false),
            key("assertion_issuer", Kind::Text, false),
        ],
        Grant::TokenExchange => &[
            key("subject", Kind::Token, true),
            Key {
                default: Some("urn:ietf:params:oauth:token-type:access_token".to_owned()),
                ..key("subject_token_type", Kind::Text, false)
            },
            key("actor", Kind::Token, false),
            key("actor_token_type", Kind::Text, false),
            key("requested_token_type", Kind::Text, false),
        ],
    };
    for key in grant {
        if !keys.iter().any(|earlier| earlier.name == key.name) {
            keys.push(key.clone());
        }
    }
    if keys.iter().any(|key| key.name == "private_key") {
        keys.extend([algorithm_key(false), key("key_id", Kind::Text, false)]);
    }
    if keys.iter().any(|key| key.name == "signing_alg") {
        keys.push(key("assertion_audience", Kind::Text, false));
    }
    keys
}

/// The algorithms that `private_key_jwt` or `client_secret_jwt` can name (RFC 7518 §3.1).
fn algorithm_key(symmetric: bool) -> Key {
    let all = ALGORITHMS.iter().map(|(name, _)| *name);
    let of = all.filter(|name| name.starts_with("HS") == symmetric).map(str::to_owned).collect();
    Key { of, ..key("signing_alg", Kind::Choice, false) }
}

fn key(name: &str, kind: Kind, required: bool) -> Key {
    Key {
        name: name.to_owned(),
        kind,
        required,
        default: None,
        of: Vec::new(),
        rotating: false,
        one_time: false,
    }
}

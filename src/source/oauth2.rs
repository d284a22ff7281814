//! Plain OAuth 2.0 (RFC 6749) as a dialect: grants × client authentication, with their parameters.

use http::Method;
use http::header::ACCEPT;

use super::dialect::{
    Body, BodyKind, Dialect, Exchange, Key, Kind, Matcher, Ok, Status, Test, TokenType,
};
use super::expiry::{Rule, Shape};
use super::template::Template;
use super::{Class, Reason};

/// How an access token is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// RFC 6749 §4.4.
    ClientCredentials,
    /// RFC 6749 §6.
    RefreshToken,
    /// RFC 6749 §4.3; only where the identity provider leaves no choice (RFC 9700 §2.4).
    Password,
}

impl Grant {
    /// The `grant_type`, which is also the word in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientCredentials => "client_credentials",
            Self::RefreshToken => "refresh_token",
            Self::Password => "password",
        }
    }
}

/// How the client authenticates at the token endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuthentication {
    /// `client_secret_basic` (RFC 6749 §2.3.1).
    Basic,
    /// `client_secret_post` (RFC 6749 §2.3.1).
    Post,
    /// A public client: its id only (RFC 6749 §3.2.1).
    None,
}

/// The dialect of `grant` with `authentication` at `token_url`.
#[must_use]
pub fn dialect(token_url: &str, grant: Grant, authentication: ClientAuthentication) -> Dialect {
    let mut keys = vec![key("client_id", Kind::Text, true), key("scope", Kind::Text, false)];
    if authentication != ClientAuthentication::None {
        keys.push(key("client_secret", Kind::Secret, true));
    }
    match grant {
        Grant::ClientCredentials => {}
        Grant::RefreshToken => {
            let rotating = Key { rotating: true, ..key("refresh_token", Kind::Secret, false) };
            keys.push(rotating);
        }
        Grant::Password => {
            keys.push(key("username", Kind::Text, true));
            keys.push(key("password", Kind::Secret, true));
        }
    }
    Dialect {
        name: "oauth2".to_owned(),
        obtain: vec![exchange(token_url, grant, authentication)],
        keys,
        revoke: None,
        variants: vec!["authorization: Bearer".to_owned()],
        rotation_grace: None,
        rotates: true,
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

fn exchange(token_url: &str, grant: Grant, authentication: ClientAuthentication) -> Exchange {
    let mut form = vec![("grant_type".to_owned(), Template::literal(grant.as_str()))];
    let mut field = |name: &str| form.push((name.to_owned(), Template::key(name)));
    match grant {
        Grant::ClientCredentials => {}
        Grant::RefreshToken => field("refresh_token"),
        Grant::Password => {
            field("username");
            field("password");
        }
    }
    field("scope");
    match authentication {
        ClientAuthentication::Basic => {}
        ClientAuthentication::Post => {
            field("client_id");
            field("client_secret");
        }
        ClientAuthentication::None => field("client_id"),
    }
    let basic = (authentication == ClientAuthentication::Basic)
        .then(|| (Template::key("client_id"), Template::key("client_secret")));
    let spends = grant == Grant::RefreshToken;
    Exchange {
        name: grant.as_str().to_owned(),
        method: Method::POST,
        url: Template::literal(token_url),
        headers: vec![(ACCEPT, Template::literal("application/json"))],
        when: Vec::new(),
        needs: if spends { vec!["refresh_token".to_owned()] } else { Vec::new() },
        body: Body::Form(form),
        basic,
        bearer: None,
        // RFC 6749 §4.4.3: with other grants than its own a refresh token is not looked for.
        ok: Ok { refresh_token: spends.then(|| "/refresh_token".to_owned()), ..standard_ok() },
        errors: if spends { vec![dead_refresh_token()] } else { Vec::new() },
    }
}

/// RFC 6749 §5.1, and the `exp` of a token that is a JWT.
#[must_use]
pub fn standard_ok() -> Ok {
    let rule =
        |at: &str, shape| Rule { at: at.to_owned(), shape, issued: None, zero_is_never: false };
    Ok {
        status: vec![Status::Class(2)],
        access_token: "/access_token".to_owned(),
        refresh_token: Some("/refresh_token".to_owned()),
        token_type: TokenType { at: "/token_type".to_owned(), accept: vec!["bearer".to_owned()] },
        body: BodyKind::Json,
        expiry: vec![rule("/expires_in", Shape::Seconds), rule("", Shape::JwtExp)],
    }
}

/// RFC 6749 §5.2 `invalid_grant`: the refresh token is unknown, expired, revoked or another's.
fn dead_refresh_token() -> Matcher {
    Matcher {
        id: "invalid_grant".to_owned(),
        status: vec![Status::Class(4)],
        test: Some(("/error".to_owned(), Test::Is("invalid_grant".to_owned()))),
        missing: None,
        empty: false,
        media_type: None,
        class: Class::Terminal,
        reason: Reason::NeedsOperator,
        try_next: false,
        hint: Some("refresh token not accepted: sign in again and replace it".to_owned()),
    }
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

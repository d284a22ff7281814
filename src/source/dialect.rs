//! How to speak to one kind of identity provider, as data.
//!
//! A [`Dialect`] comes from a file (`config::dialect` reads it) or, for plain OAuth 2.0, from
//! [`super::oauth2`]. It lists the ways of obtaining a token in order; `speaker` takes them.

use std::time::Duration;

use http::{HeaderName, Method};

use super::assertion::Assertion;
use super::discovery::Discovery;
use super::template::Template;
use super::{Class, Reason, expiry};
use crate::credential::sign::Sign;
pub use crate::credential::sign::Test;

pub mod login;

/// A dialect: the keys that a credential may say, and the exchanges that use them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// Its name in messages.
    pub name: String,
    /// What a credential may say.
    pub keys: Vec<Key>,
    /// Ways to obtain a token; the first that applies is taken.
    pub obtain: Vec<Exchange>,
    /// How to lengthen the life of an access token, if the identity provider offers that.
    pub renew: Option<Exchange>,
    /// How to revoke an access token, if the identity provider offers that.
    pub revoke: Option<Exchange>,
    /// The headers that its APIs are known to want; for `check` and the documentation.
    pub variants: Vec<String>,
    /// How its APIs say, other than by 401, that a token is no longer accepted.
    pub expired: Vec<Sign>,
    /// How long a replaced refresh token is still accepted.
    pub rotation_grace: Option<Duration>,
    /// Refresh tokens are replaced, or may be for all that is documented.
    pub rotates: bool,
    /// JWTs that are signed for each request that mentions them.
    pub assertions: Vec<Assertion>,
    /// How the endpoints are found that no key names.
    pub discovery: Option<Discovery>,
    /// How a person signs in for the first refresh token, where that is known.
    pub login: Option<login::Login>,
    /// Tokens are asked for that are bound to a key (RFC 9449), `dpop_key` or one made at the start.
    pub dpop: bool,
}

/// One key of a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The key.
    pub name: String,
    /// What it holds.
    pub kind: Kind,
    /// The credential must say it.
    pub required: bool,
    /// What holds if the credential does not say it.
    pub default: Option<String>,
    /// The choices of [`Kind::Choice`].
    pub of: Vec<String>,
    /// The refresh token: the store takes it over.
    pub rotating: bool,
    /// A code that is good once: after a terminal answer it must change first.
    pub one_time: bool,
}

/// What a key holds, and how it is encoded in a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A host, rendered with its scheme.
    Host,
    /// A path, put into a URL as it stands.
    Path,
    /// An absolute URL, put in as it stands.
    Url,
    /// Any text.
    Text,
    /// A secret reference; never in a URL.
    Secret,
    /// The path of a file that holds a secret which others replace: a projected token.
    File,
    /// A private key, PEM or JWK, as a secret reference.
    SigningKey,
    /// A JSON object, as a secret reference; its strings are `{key.member}`.
    Document,
    /// A secret reference, or the access token of another credential.
    Token,
    /// `true` or `false`.
    Bool,
    /// One of a list.
    Choice,
}

/// One request to the identity provider and how its answer is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Its name in the dialect file.
    pub name: String,
    /// Usually POST.
    pub method: Method,
    /// The whole URL.
    pub url: Template,
    /// Extra header fields.
    pub headers: Vec<(HeaderName, Template)>,
    /// Keys that must have these values.
    pub when: Vec<(String, String)>,
    /// Keys that must have some value.
    pub needs: Vec<String>,
    /// What is sent.
    pub body: Body,
    /// User and password of the Basic scheme.
    pub basic: Option<Basic>,
    /// The token of the Bearer scheme.
    pub bearer: Option<Template>,
    /// What success looks like.
    pub ok: Ok,
    /// What failure looks like; the first match wins, before `ok`.
    pub errors: Vec<Matcher>,
}

/// User and password of the Basic scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Basic {
    /// Usually the client's id.
    pub user: Template,
    /// Usually its secret.
    pub password: Template,
    /// Both are form-encoded first, as RFC 6749 §2.3.1 wants it; not every server decodes them.
    pub encoded: bool,
}

/// The body of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// None, and no content type.
    Empty,
    /// `application/x-www-form-urlencoded`, in this order.
    Form(Vec<(String, Template)>),
    /// `application/json`.
    Json(Json),
}

/// A JSON value with placeholders in its strings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    /// A string; left out of its object if a placeholder has no value.
    Text(Template),
    /// Anything without placeholders.
    Plain(serde_json::Value),
    /// A list.
    List(Vec<Json>),
    /// An object, in this order.
    Object(Vec<(String, Json)>),
}

/// What success looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ok {
    /// Any of these.
    pub status: Vec<Status>,
    /// Header fields that the answer must have with exactly these values.
    pub headers: Vec<(HeaderName, String)>,
    /// Where the access token is.
    pub access_token: String,
    /// Where a new refresh token may be; `None` = never look.
    pub refresh_token: Option<String>,
    /// Where it says `true` that the token's life can be lengthened.
    pub renewable: Option<String>,
    /// Where the type is, and which ones are understood.
    pub token_type: TokenType,
    /// What the body is.
    pub body: BodyKind,
    /// Where the expiry is.
    pub expiry: Vec<expiry::Rule>,
}

/// Which token types can be injected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenType {
    /// Where it is.
    pub at: String,
    /// Compared without case; empty = any.
    pub accept: Vec<String>,
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// JSON.
    Json,
    /// `a=b&c=d`.
    Form,
    /// Nothing but the token.
    Text,
}

/// One status, or a class of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// `404`.
    Exactly(u16),
    /// `5` for `5xx`.
    Class(u16),
}

impl Status {
    /// Whether `status` is meant.
    #[must_use]
    pub fn matches(self, status: u16) -> bool {
        match self {
            Self::Exactly(wanted) => wanted == status,
            Self::Class(class) => class == status / 100,
        }
    }
}

/// One row of a dialect's errors: if everything that it says holds, this is what happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matcher {
    /// For logs.
    pub id: String,
    /// Any of these; empty = any.
    pub status: Vec<Status>,
    /// A value in the answer.
    pub test: Option<(String, Test)>,
    /// A pointer that must lead nowhere.
    pub missing: Option<String>,
    /// The body must be empty.
    pub empty: bool,
    /// The media type must be this one.
    pub media_type: Option<String>,
    /// What it means for trying again.
    pub class: Class,
    /// What it means.
    pub reason: Reason,
    /// Another way in may work.
    pub try_next: bool,
    /// What a person can do.
    pub hint: Option<String>,
}

impl Kind {
    /// Whether it holds what must never stand in a URL (RFC 6749 §2.3.1).
    #[must_use]
    pub fn is_secret(self) -> bool {
        matches!(self, Self::Secret | Self::File | Self::SigningKey | Self::Document | Self::Token)
    }
}

impl Dialect {
    /// The key that the store takes over.
    #[must_use]
    pub fn rotating_key(&self) -> Option<&Key> {
        self.keys.iter().find(|key| key.rotating)
    }
}

impl Exchange {
    /// Whether the credential's choices leave this way open; `value` is what it says for a key.
    pub fn chosen<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.when.iter().all(|(key, wanted)| value(key) == Some(wanted))
    }

    /// Whether it is open and has everything that it needs.
    pub fn applies<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.chosen(&value) && self.needs.iter().all(|key| value(key).is_some())
    }

    /// Whether anything that is sent holds the placeholder `key`.
    #[must_use]
    pub fn mentions(&self, key: &str) -> bool {
        self.templates().any(|template| template.keys().any(|k| k == key))
    }

    /// Whether `key` decides whether or what is sent.
    #[must_use]
    pub fn uses(&self, key: &str) -> bool {
        let conditions = self.when.iter().map(|(name, _)| name).chain(&self.needs);
        self.mentions(key) || conditions.into_iter().any(|name| name == key)
    }

    /// Every template of the exchange.
    pub fn templates(&self) -> impl Iterator<Item = &Template> {
        let body: Vec<&Template> = match &self.body {
            Body::Empty => Vec::new(),
            Body::Form(pairs) => pairs.iter().map(|(_, template)| template).collect(),
            Body::Json(json) => json.templates(),
        };
        let basic = self.basic.iter().flat_map(|basic| [&basic.user, &basic.password]);
        let headers = self.headers.iter().map(|(_, template)| template);
        std::iter::once(&self.url).chain(headers).chain(basic).chain(&self.bearer).chain(body)
    }
}

impl Json {
    fn templates(&self) -> Vec<&Template> {
        match self {
            Self::Text(template) => vec![template],
            Self::Plain(_) => Vec::new(),
            Self::List(items) => items.iter().flat_map(Self::templates).collect(),
            Self::Object(entries) => entries.iter().flat_map(|(_, v)| v.templates()).collect(),
        }
    }
}

//! How to speak to one kind of identity provider, as data; and the source that speaks it.
//!
//! A [`Dialect`] comes from a file (`config::dialect` reads it) or, for plain OAuth 2.0, from
//! [`super::oauth2`]. It lists the ways of obtaining a token in order. This module decides which of
//! them to take; `exchange` builds the request, `endpoint` sends it, `answer` reads what comes back.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};
use zeroize::Zeroizing;

use super::answer::{self, Refusal};
use super::endpoint::Endpoint;
use super::template::{Rendered, Template, Value, Values};
use super::{Attempt, Class, FetchError, Fetched, Reason, TokenSource, Traits, exchange, expiry};
use crate::secret::{Fingerprint, Secret};
use crate::token::AccessToken;

/// A dialect: the keys that a credential may say, and the exchanges that use them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// Its name in messages.
    pub name: String,
    /// What a credential may say.
    pub keys: Vec<Key>,
    /// Ways to obtain a token; the first that applies is taken.
    pub obtain: Vec<Exchange>,
    /// How to revoke an access token, if the identity provider offers that.
    pub revoke: Option<Exchange>,
    /// The headers that its APIs are known to want; for `check` and the documentation.
    pub variants: Vec<String>,
    /// How long a replaced refresh token is still accepted.
    pub rotation_grace: Option<Duration>,
    /// Refresh tokens are replaced, or may be for all that is documented.
    pub rotates: bool,
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
    /// Any text.
    Text,
    /// A secret reference; never in a URL.
    Secret,
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
    /// User and password of the Basic scheme, form-encoded first (RFC 6749 §2.3.1).
    pub basic: Option<(Template, Template)>,
    /// The token of the Bearer scheme.
    pub bearer: Option<Template>,
    /// What success looks like.
    pub ok: Ok,
    /// What failure looks like; the first match wins, before `ok`.
    pub errors: Vec<Matcher>,
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
    /// Where the access token is.
    pub access_token: String,
    /// Where a new refresh token may be; `None` = never look.
    pub refresh_token: Option<String>,
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
    /// Compared without case.
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

/// A test of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// There, and not null.
    Exists,
    /// Equal, as text.
    Is(String),
    /// Containing this text.
    Has(String),
}

/// A source that speaks a dialect.
pub struct DialectSource {
    dialect: Arc<Dialect>,
    values: Values,
    params: Vec<(String, String)>,
    endpoint: Endpoint,
    default_lifetime: Duration,
}

impl DialectSource {
    /// Speaks `dialect` with what a credential says, and `params` as extra form fields.
    #[must_use]
    pub fn new(
        dialect: Arc<Dialect>,
        values: Values,
        params: Vec<(String, String)>,
        endpoint: Endpoint,
        default_lifetime: Duration,
    ) -> Self {
        Self { dialect, values, params, endpoint, default_lifetime }
    }

    /// Takes the first way in that applies; a refusal that the dialect marks moves on to the next.
    async fn obtain(&self, attempt: Attempt<'_>) -> Result<Fetched, FetchError> {
        let rendered = self.rendered(attempt.refresh_token)?;
        let ways: Vec<&Exchange> =
            self.dialect.obtain.iter().filter(|e| e.applies(|key| rendered.get(key))).collect();
        let spends = |exchange: &&Exchange| self.spends_refresh_token(exchange);
        let spared = attempt.in_doubt && !ways.iter().all(spends);
        let mut refused = None;
        for (index, exchange) in ways.iter().enumerate().filter(|(_, e)| !(spared && spends(e))) {
            match self.send(exchange, &rendered, attempt).await {
                Result::Ok(mut fetched) => {
                    fetched.gave_up = ways[..index].iter().any(spends);
                    return Result::Ok(fetched);
                }
                // With a new refresh token at hand that one comes first, the next time.
                Err(Refusal { error, try_next: true }) if error.rotated.is_none() => {
                    refused = Some(error);
                }
                Err(Refusal { error, .. }) => return Err(error),
            }
        }
        // Refused with nowhere to go, or nothing to send at all: a person is needed.
        let mut error =
            refused.unwrap_or_else(|| FetchError::new(Class::Terminal, Reason::NeedsOperator));
        error.reason = Reason::NeedsOperator;
        error.hint.get_or_insert_with(|| "no usable refresh token: sign in again".to_owned());
        Err(error)
    }

    async fn send(
        &self,
        exchange: &Exchange,
        rendered: &Rendered,
        attempt: Attempt<'_>,
    ) -> Result<Fetched, Refusal> {
        let request = exchange::render(exchange, &self.dialect, rendered, &self.params)?;
        let (ok, errors, lifetime) = (&exchange.ok, &exchange.errors, self.default_lifetime);
        let result = match self.endpoint.send(request).await {
            Result::Ok(answer) => answer::read(&answer, ok, errors, attempt.now, lifetime),
            Err(error) => Err(error.into()),
        };
        result.map_err(|mut refusal| {
            // Only a spent refresh token makes a lost answer matter.
            refusal.error.ambiguous &= self.spends_refresh_token(exchange);
            refusal
        })
    }

    fn rendered(&self, refresh_token: Option<&Secret>) -> Result<Rendered, FetchError> {
        let rotating = |name: &str| self.rotating_key().is_some_and(|key| key.name == name);
        let mut rendered = Rendered::read(&self.values, rotating)?;
        if let (Some(key), Some(secret)) = (self.rotating_key(), refresh_token) {
            rendered.set(&key.name, secret.expose());
        }
        Result::Ok(rendered)
    }

    fn rotating_key(&self) -> Option<&Key> {
        self.dialect.keys.iter().find(|key| key.rotating)
    }

    fn spends_refresh_token(&self, exchange: &Exchange) -> bool {
        self.rotating_key().is_some_and(|key| exchange.mentions(&key.name))
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

    /// Every template of the exchange.
    pub fn templates(&self) -> impl Iterator<Item = &Template> {
        let body: Vec<&Template> = match &self.body {
            Body::Empty => Vec::new(),
            Body::Form(pairs) => pairs.iter().map(|(_, template)| template).collect(),
            Body::Json(json) => json.templates(),
        };
        let basic = self.basic.iter().flat_map(|(user, password)| [user, password]);
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

impl TokenSource for DialectSource {
    async fn fetch(&mut self, attempt: Attempt<'_>) -> Result<Fetched, FetchError> {
        self.obtain(attempt).await
    }

    async fn revoke(&self, token: &AccessToken) -> Result<(), FetchError> {
        let Some(exchange) = &self.dialect.revoke else {
            return Result::Ok(());
        };
        let mut rendered = self.rendered(None)?;
        if !exchange.applies(|key| rendered.get(key)) {
            let mut error = FetchError::new(Class::Terminal, Reason::Input);
            error.hint = Some(format!("write {}", exchange.needs.join(" and ")));
            return Err(error);
        }
        rendered.set("access_token", token.value().expose());
        let request = exchange::render(exchange, &self.dialect, &rendered, &[])?;
        let answer = self.endpoint.send(request).await?;
        answer::read_revocation(&answer, &exchange.ok)
    }

    fn inputs(&self) -> Fingerprint {
        let mut all = Zeroizing::new(String::new());
        for value in self.values.values() {
            if let Value::Secret(secret) = value {
                all.push_str(secret.read().as_ref().map_or("", Secret::expose));
                all.push('\n');
            }
        }
        Fingerprint::of(all.as_bytes())
    }

    fn traits(&self) -> Traits {
        let spends = |exchange: &Exchange| self.spends_refresh_token(exchange);
        let configured = |key: &&Key| self.values.contains_key(&key.name);
        // A store may supply the refresh token.
        let value = |key: &str| match self.rotating_key() {
            Some(rotating) if rotating.name == key => Some(""),
            _ => self.values.get(key).and_then(Value::said),
        };
        let uses: Vec<_> = self.dialect.obtain.iter().filter(|e| e.applies(value)).collect();
        let rotating = uses.iter().any(|e| spends(e) && e.ok.refresh_token.is_some());
        Traits {
            watched: false,
            rotating,
            one_time: self.dialect.keys.iter().filter(configured).any(|key| key.one_time),
            fallback: rotating && uses.iter().any(|e| !spends(e)),
            rotation_grace: self.dialect.rotation_grace,
            rotation_expected: rotating && self.dialect.rotates,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::oauth2::{self, ClientAuthentication, Grant};
    use super::*;
    use crate::secret::SecretRef;
    use crate::tls::TlsSettings;

    #[test]
    fn what_is_known_beforehand_and_what_is_rendered_choose_the_same_way() {
        let mut dialect = oauth2::dialect("", Grant::RefreshToken, ClientAuthentication::None);
        dialect.obtain[0].when = vec![("flag".to_owned(), "true".to_owned())];
        for (flag, open) in [
            (Value::Bool(true), true),
            (Value::Bool(false), false),
            (Value::Text("true".to_owned()), true),
            (Value::Text(String::new()), false),
        ] {
            let secret = Value::Secret(SecretRef::Value(Secret::new("first".to_owned())));
            let said = [("flag".to_owned(), flag), ("refresh_token".to_owned(), secret)];
            let values = Values::from(said);
            let rendered = Rendered::read(&values, |_| false).unwrap();
            assert_eq!(dialect.obtain[0].applies(|key| rendered.get(key)), open);
            let endpoint = Endpoint::new(TlsSettings::default());
            let dialect = Arc::new(dialect.clone());
            let source = DialectSource::new(dialect, values, Vec::new(), endpoint, Duration::ZERO);
            assert_eq!(source.traits().rotating, open);
        }
    }
}

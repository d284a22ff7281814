//! The same speaking, for a person's login: other exchanges, with values that only a login has.

use zeroize::Zeroizing;

use super::DialectSource;
use crate::clock::Moment;
use crate::source::answer::Answer;
use crate::source::dialect::Exchange;
use crate::source::dialect::login::Login;
use crate::source::discovery::Discovery;
use crate::source::template::{Rendered, Template};
use crate::source::{Attempt, Class, FetchError, Fetched, Reason, exchange};

/// A source that a person signs in to.
pub struct SignIn {
    source: DialectSource,
    login: Login,
}

/// What a login adds to the credential's own values, by placeholder.
pub type Made<'a> = [(&'a str, &'a str)];

impl SignIn {
    /// Finds the endpoints, and has the key ready that tokens are to be bound to; `None` if the
    /// dialect knows no login.
    ///
    /// # Errors
    /// The metadata cannot be had, or a key cannot be used.
    pub async fn open(mut source: DialectSource) -> Result<Option<Self>, FetchError> {
        let Some(login) = source.dialect.login.clone() else {
            return Ok(None);
        };
        source.discover().await?;
        source.prepare_prover()?;
        let mut sign_in = Self { source, login };
        if let (Some(issuer), None) = (&sign_in.login.issuer, &sign_in.source.endpoints) {
            let issuer = sign_in.url(issuer)?;
            let known = |key: &str| sign_in.source.values.contains_key(key);
            if let (Some(issuer), false) = (issuer, known("authorization_url")) {
                let discovery = Discovery { mutual_tls: false };
                let found = discovery.ask(&sign_in.source.endpoint, &issuer).await?;
                sign_in.source.endpoints = Some(found);
            }
        }
        Ok(Some(sign_in))
    }

    /// Whether it speaks plain OAuth 2.0, no dialect of a vendor's or a user's own.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.source.dialect.name == "oauth2"
    }

    /// Whether the credential may say `key`.
    #[must_use]
    pub fn has_key(&self, key: &str) -> bool {
        self.source.dialect.keys.iter().any(|known| known.name == key)
    }

    /// What the dialect says about logins.
    #[must_use]
    pub fn login(&self) -> &Login {
        &self.login
    }

    /// The issuer that answers have to name (RFC 9207), if it is known, and whether they must.
    #[must_use]
    pub fn issuer(&self) -> (Option<&str>, bool) {
        let endpoints = self.source.endpoints.as_ref();
        (endpoints.map(|found| found.issuer.as_str()), endpoints.is_some_and(|e| e.iss_promised))
    }

    /// Whether the metadata says that the server knows S256 (RFC 8414 §2); true if it says nothing.
    #[must_use]
    pub fn knows_s256(&self) -> bool {
        self.source.endpoints.as_ref().is_none_or(|found| found.s256)
    }

    /// Whether one of `exchanges` can be sent, given the credential's values.
    ///
    /// # Errors
    /// A secret cannot be read.
    pub fn offers(&self, exchanges: &[Exchange]) -> Result<bool, FetchError> {
        let values = self.values(&[])?;
        let made = |key: &str| values.get(key).or_else(|| is_made(key).then_some(""));
        let url = |exchange: &Exchange| exchange.url.keys().all(|key| values.get(key).is_some());
        Ok(exchanges.iter().any(|exchange| exchange.applies(made) && url(exchange)))
    }

    /// The URL of `template`; `None` if a placeholder has no value.
    ///
    /// # Errors
    /// A secret cannot be read.
    pub fn url(&self, template: &Template) -> Result<Option<Zeroizing<String>>, FetchError> {
        let encode = |key: &str, value: &str| exchange::in_url(&self.source.dialect, key, value);
        Ok(template.render(&self.values(&[])?, encode))
    }

    /// The text of `template`; `None` if a placeholder has no value.
    ///
    /// # Errors
    /// A secret cannot be read.
    pub fn text(&self, template: &Template) -> Result<Option<Zeroizing<String>>, FetchError> {
        Ok(template.render(&self.values(&[])?, |_, value| value.to_owned()))
    }

    /// Those of the credential's extra parameters that say what the token is for: they go with the
    /// authorization request as well (RFC 8707 §2.1).
    #[must_use]
    pub fn audience(&self) -> Vec<(String, String)> {
        let wanted = |name: &String| name == "audience" || name == "resource";
        self.source.params.iter().filter(|(name, _)| wanted(name)).cloned().collect()
    }

    /// Sends the first of `exchanges` that applies, with `params` as extra form fields, or the
    /// credential's own.
    ///
    /// # Errors
    /// No answer came, or nothing could be sent.
    pub async fn send<'e>(
        &self,
        exchanges: &'e [Exchange],
        made: &Made<'_>,
        params: Option<&[(String, String)]>,
    ) -> Result<(&'e Exchange, Answer, Moment), FetchError> {
        let mut values = self.values(made)?;
        let exchange = exchanges.iter().find(|exchange| exchange.applies(|key| values.get(key)));
        let exchange = exchange.ok_or_else(|| {
            let mut error = FetchError::new(Class::Terminal, Reason::Input);
            error.hint = Some("a key that the login needs is not configured".to_owned());
            error
        })?;
        let now = Moment::now();
        let params = params.unwrap_or(&self.source.params);
        let answer = self.source.ask(exchange, &mut values, Attempt::at(now), params).await?;
        Ok((exchange, answer, now))
    }

    /// The token in an answer to `exchange`, which was sent at `now`.
    ///
    /// # Errors
    /// The answer is no token.
    pub fn read(
        &self,
        exchange: &Exchange,
        answer: &Answer,
        now: Moment,
    ) -> Result<Fetched, FetchError> {
        self.source.read(exchange, answer, now).map_err(|refusal| refusal.error)
    }

    fn values(&self, made: &Made<'_>) -> Result<Rendered, FetchError> {
        let mut values = self.source.rendered(None)?;
        for (key, value) in made {
            values.set(key, value);
        }
        Ok(values)
    }
}

fn is_made(key: &str) -> bool {
    crate::source::dialect::login::MADE.contains(&key)
}

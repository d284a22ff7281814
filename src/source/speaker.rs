//! The source that speaks a dialect: which way in is taken, with which values, and what follows from
//! a refusal. `exchange` builds the request, `endpoint` sends it, `answer` reads what comes back.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use zeroize::Zeroizing;

use super::answer::{self, Answer, Refusal};
use super::dialect::{Dialect, Exchange, Key};
use super::discovery::Endpoints;
use super::endpoint::Endpoint;
use super::template::{Rendered, Value, Values};
use super::{
    Attempt, Bounds, Class, FetchError, Fetched, Reason, TokenSource, Traits, exchange, proof,
};
use crate::clock::Moment;
use crate::credential::directory::Directory;
use crate::dpop::Prover;
use crate::secret::{Fingerprint, Secret, SecretRef, read_bytes};
use crate::token::AccessToken;

pub mod login;
mod renewal;

use renewal::Renewal;

/// How long an attempt waits for the token of the credential that it is chained to.
const SUBJECT_WAIT: Duration = Duration::from_secs(10);

/// A source that speaks a dialect.
pub struct DialectSource {
    dialect: Arc<Dialect>,
    values: Values,
    params: Vec<(String, String)>,
    endpoint: Endpoint,
    bounds: Bounds,
    /// The credentials whose tokens it may ask for.
    subjects: Directory,
    /// What discovery found; asked for again after a failure.
    endpoints: Option<Endpoints>,
    /// Proves who we are, if tokens are to be bound to a key.
    prover: Option<Arc<Prover>>,
    /// The file that its key came from, as it was then.
    prover_key: Option<Fingerprint>,
    /// What a token lived for whose life can be lengthened.
    lease: Option<Duration>,
}

impl DialectSource {
    /// Speaks `dialect` with what a credential says, and `params` as extra form fields.
    #[must_use]
    pub fn new(
        dialect: Arc<Dialect>,
        values: Values,
        params: Vec<(String, String)>,
        endpoint: Endpoint,
        bounds: Bounds,
        subjects: Directory,
    ) -> Self {
        let (endpoints, prover, prover_key, lease) = (None, None, None, None);
        Self {
            dialect,
            values,
            params,
            endpoint,
            bounds,
            subjects,
            endpoints,
            prover,
            prover_key,
            lease,
        }
    }

    /// Takes the first way in that applies; a refusal that the dialect marks moves on to the next.
    async fn obtain(&self, attempt: Attempt<'_>) -> Result<Fetched, FetchError> {
        let mut rendered = self.rendered(attempt.refresh_token)?;
        self.add_subjects(&mut rendered, attempt).await?;
        let ways: Vec<&Exchange> =
            self.dialect.obtain.iter().filter(|e| e.applies(|key| rendered.get(key))).collect();
        let spends = |exchange: &&Exchange| self.spends_refresh_token(exchange);
        let spared = attempt.in_doubt && !ways.iter().all(spends);
        let (mut refused, mut dead) = (None, false);
        for (index, exchange) in ways.iter().enumerate().filter(|(_, e)| !(spared && spends(e))) {
            let spends = spends(exchange);
            match self.send(exchange, &mut rendered, attempt).await {
                Ok(mut fetched) => {
                    fetched.gave_up = ways[..index].iter().any(|e| self.spends_refresh_token(e));
                    return Ok(fetched);
                }
                Err(Refusal { mut error, try_next }) => {
                    error.gave_up = dead && !spends;
                    // With a new refresh token at hand that one comes first, the next time.
                    if !try_next || error.rotated.is_some() {
                        return Err(error);
                    }
                    dead |= spends && error.class == Class::Terminal;
                    refused = Some(error);
                }
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
        rendered: &mut Rendered,
        attempt: Attempt<'_>,
    ) -> Result<Fetched, Refusal> {
        let result = match self.ask(exchange, rendered, attempt, &self.params).await {
            Ok(answer) => self.read(exchange, &answer, attempt.now),
            Err(error) => Err(error.into()),
        };
        result.map_err(|mut refusal| {
            // Only a spent refresh token makes a lost answer matter.
            refusal.error.ambiguous &= self.spends_refresh_token(exchange);
            refusal
        })
    }

    fn read(&self, exchange: &Exchange, answer: &Answer, now: Moment) -> Result<Fetched, Refusal> {
        let fetched = answer::read(answer, &exchange.ok, &exchange.errors, now, self.bounds)?;
        Ok(proof::bind(fetched, answer, self.prover.as_ref()))
    }

    /// Sends one request; a second one where the server wants its nonce in the proof, which is no
    /// failure (RFC 9449 §8).
    async fn ask(
        &self,
        exchange: &Exchange,
        rendered: &mut Rendered,
        attempt: Attempt<'_>,
        params: &[(String, String)],
    ) -> Result<Answer, FetchError> {
        let mut again = self.prover.is_some();
        loop {
            self.add_assertions(exchange, rendered, attempt)?;
            let mut request = exchange::render(exchange, &self.dialect, rendered, params)?;
            let Some(prover) = &self.prover else {
                return self.endpoint.send(request, attempt.until).await;
            };
            let origin = proof::add(prover, &mut request, attempt.now)?;
            let answer = self.endpoint.send(request, attempt.until).await?;
            let given = prover.remember(&origin, &answer.headers);
            if !(std::mem::take(&mut again) && given && proof::wants_nonce(&answer)) {
                return Ok(answer);
            }
        }
    }

    fn rendered(&self, refresh_token: Option<&Secret>) -> Result<Rendered, FetchError> {
        let rotating = self.dialect.rotating_key();
        let is_rotating = |name: &str| rotating.is_some_and(|key| key.name == name);
        let mut rendered = Rendered::read(&self.values, is_rotating)?;
        if let (Some(key), Some(secret)) = (rotating, refresh_token) {
            rendered.set(&key.name, secret.expose());
        }
        for (name, url) in self.endpoints.iter().flat_map(Endpoints::named) {
            // What is configured was meant.
            if rendered.get(name).is_none() {
                rendered.set(name, url);
            }
        }
        Ok(rendered)
    }

    /// Signs what `exchange` mentions, anew for each request: a `jti` is good once (RFC 7523 §3).
    fn add_assertions(
        &self,
        exchange: &Exchange,
        rendered: &mut Rendered,
        attempt: Attempt<'_>,
    ) -> Result<(), FetchError> {
        let mentioned = |name: &str| exchange.mentions(name);
        for assertion in self.dialect.assertions.iter().filter(|a| mentioned(&a.name)) {
            let signed = assertion.sign(rendered, attempt.now)?;
            rendered.set(&assertion.name, &signed);
        }
        Ok(())
    }

    /// Asks for the tokens of the credentials that this one is chained to.
    async fn add_subjects(
        &self,
        rendered: &mut Rendered,
        attempt: Attempt<'_>,
    ) -> Result<(), FetchError> {
        for (key, name) in self.subjects() {
            let deadline: Instant = attempt.now.mono + SUBJECT_WAIT;
            let token = self.subjects.token(name, deadline).await.ok_or_else(|| {
                let mut error = FetchError::new(Class::Transient, Reason::Input);
                error.hint = Some(format!("the credential {name} has no usable token"));
                error
            })?;
            rendered.set(key, token.expose());
        }
        Ok(())
    }

    fn subjects(&self) -> impl Iterator<Item = (&String, &String)> {
        self.values.iter().filter_map(|(key, value)| match value {
            Value::Credential(name) => Some((key, name)),
            _ => None,
        })
    }

    async fn discover(&mut self) -> Result<(), FetchError> {
        let (Some(discovery), None) = (&self.dialect.discovery, &self.endpoints) else {
            return Ok(());
        };
        let issuer = self.values.get("issuer").and_then(Value::said).unwrap_or_default();
        self.endpoints = Some(discovery.ask(&self.endpoint, issuer).await?);
        Ok(())
    }

    /// Has a key to prove with: the configured one as it is now, else one for as long as this lives.
    fn prepare_prover(&mut self) -> Result<(), FetchError> {
        if !self.dialect.dpop {
            return Ok(());
        }
        let key = self.values.get("dpop_key").and_then(Value::secret);
        let key = key.map(SecretRef::read_text).transpose()?;
        let print = key.as_ref().map(Secret::fingerprint);
        if self.prover.is_none() || self.prover_key != print {
            self.prover = Some(Arc::new(proof::prover(key.as_ref())?));
            self.prover_key = print;
        }
        Ok(())
    }

    fn spends_refresh_token(&self, exchange: &Exchange) -> bool {
        self.dialect.rotating_key().is_some_and(|key| exchange.mentions(&key.name))
    }

    /// A digest of everything that an attempt reads, but for keys that are `left_out`.
    fn digest(&self, left_out: impl Fn(&str) -> bool) -> Fingerprint {
        let mut all = Zeroizing::new(String::new());
        let mut add = |text: Option<&str>| {
            all.push_str(text.unwrap_or_default());
            all.push('\n');
        };
        for (_, value) in self.values.iter().filter(|(key, _)| !left_out(key)) {
            if let Value::Secret(secret) = value {
                add(secret.read().ok().as_ref().map(Secret::expose));
            } else if let Some(secret) = value.secret() {
                add(secret.read_text().ok().as_ref().map(Secret::expose));
            } else if let Value::Credential(name) = value {
                add(self.subjects.held(name).as_ref().map(Secret::expose));
            }
        }
        for path in self.endpoint.files() {
            let content = read_bytes(path).ok();
            add(content.map(|content| Fingerprint::of(&content).to_hex()).as_deref());
        }
        Fingerprint::of(all.as_bytes())
    }

    /// As [`Self::inputs`], without the refresh token: the rotation has that.
    fn secrets(&self) -> Fingerprint {
        let rotating = self.dialect.rotating_key();
        self.digest(|name| rotating.is_some_and(|key| key.name == name))
    }
}

impl TokenSource for DialectSource {
    async fn fetch(&mut self, attempt: Attempt<'_>) -> Result<Fetched, FetchError> {
        self.discover().await?;
        self.prepare_prover()?;
        let short = match self.renew(attempt).await? {
            Renewal::Whole(fetched) => return Ok(fetched),
            Renewal::Short(fetched) => Some(fetched),
            Renewal::None => None,
        };
        let read = self.secrets();
        let result = match self.obtain(attempt).await {
            // Replaced while the old one was on its way, as projected tokens and keys are: the
            // refusal was not about what is there now.
            Err(error)
                if error.class == Class::Terminal
                    && error.rotated.is_none()
                    && self.secrets() != read =>
            {
                let in_doubt = attempt.in_doubt || error.gave_up;
                self.obtain(Attempt { in_doubt, ..attempt }).await.map_err(|mut again| {
                    again.gave_up |= error.gave_up;
                    again
                })
            }
            result => result,
        };
        if result.is_err() {
            self.endpoints = None;
            return short.map_or(result, Ok);
        }
        self.lease = result.as_ref().ok().filter(|f| f.renewable).map(|f| f.token.lifetime());
        result
    }

    async fn revoke(&mut self, token: &AccessToken) -> Result<(), FetchError> {
        let dialect = Arc::clone(&self.dialect);
        let Some(exchange) = &dialect.revoke else {
            return Ok(());
        };
        // The token may be of a former process, or the last attempt have failed.
        self.discover().await?;
        let mut rendered = self.rendered(None)?;
        if !exchange.applies(|key| rendered.get(key)) {
            let mut error = FetchError::new(Class::Terminal, Reason::Input);
            error.hint = Some(format!("write {}", exchange.needs.join(" and ")));
            return Err(error);
        }
        rendered.set("access_token", token.value().expose());
        self.add_assertions(exchange, &mut rendered, Attempt::at(Moment::now()))?;
        let request = exchange::render(exchange, &dialect, &rendered, &[])?;
        let answer = self.endpoint.send(request, None).await?;
        answer::read_revocation(&answer, &exchange.ok)
    }

    fn inputs(&self) -> Fingerprint {
        self.digest(|_| false)
    }

    fn certificate(&self) -> Option<Fingerprint> {
        self.endpoint.certificate()
    }

    fn traits(&self) -> Traits {
        let spends = |exchange: &Exchange| self.spends_refresh_token(exchange);
        let configured = |key: &&Key| self.values.contains_key(&key.name);
        // A store may supply the refresh token.
        let value = |key: &str| match self.dialect.rotating_key() {
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
            bound: self.dialect.dpop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::oauth2::{self, Choices, ClientAuthentication, Grant};
    use super::*;
    use crate::secret::SecretRef;
    use crate::tls::TlsSettings;

    #[test]
    fn what_is_known_beforehand_and_what_is_rendered_choose_the_same_way() {
        let choices = Choices::new(Grant::RefreshToken, ClientAuthentication::None);
        let mut dialect = oauth2::dialect(&choices);
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
            let endpoint = Endpoint::new(TlsSettings::default(), Bounds::default());
            let dialect = Arc::new(dialect.clone());
            let subjects = Directory::default();
            let source = DialectSource::new(
                dialect,
                values,
                Vec::new(),
                endpoint,
                Bounds::default(),
                subjects,
            );
            assert_eq!(source.traits().rotating, open);
        }
    }
}

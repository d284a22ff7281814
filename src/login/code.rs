//! Authorization code with PKCE (RFC 6749 §4.1, RFC 7636) for a program on the person's machine (RFC
//! 8252): the browser goes to the identity provider, and comes back to a port of ours.

use std::time::Duration;

use form_urlencoded::Serializer;
use tokio::time::timeout;
use tracing::debug;

use super::loopback::{Expected, Loopback};
use super::page::Ending;
use super::pkce::{Verifier, random};
use super::terminal::{say, shown};
use super::{LoginError, Terms, Way, browser, keep, not_offered};
use crate::secret::Secret;
use crate::source::Fetched;
use crate::source::dialect::login::CodeLogin;
use crate::source::speaker::login::SignIn;

/// How long the person may take.
const WITHIN: Duration = Duration::from_mins(10);

pub(super) async fn sign_in(
    sign_in: &SignIn,
    way: &CodeLogin,
    terms: &Terms<'_>,
) -> Result<(), LoginError> {
    if !sign_in.knows_s256() {
        return Err(LoginError::OnlyPlain);
    }
    let (verifier, state) = (Verifier::new()?, random()?);
    let (issuer, promised) = sign_in.issuer();
    let expected = Expected { state, issuer: issuer.map(str::to_owned), promised };
    let (mut loopback, arrival) = Loopback::listen(&terms.config.redirect, expected, terms.name)?;
    let redirect_uri = loopback.redirect_uri().to_owned();
    let url = authorization_url(sign_in, way, terms, &loopback, &verifier)?;
    say(&instructions(&url, terms));
    let arrival = timeout(WITHIN, loopback.serve_while(arrival)).await;
    let Ok(Ok(arrival)) = arrival else {
        return Err(LoginError::TooLate);
    };
    debug!("the browser has come back");
    let result = match arrival.answer {
        Ok(code) => {
            let exchange = exchange(sign_in, way, &code, &redirect_uri, &verifier);
            match loopback.serve_while(exchange).await {
                Ok(fetched) => keep(&fetched, terms).await,
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    };
    let ending = match &result {
        Ok(()) => Ending::SignedIn,
        Err(LoginError::Refused(_)) => Ending::Refused,
        Err(_) => Ending::Failed,
    };
    let _ = arrival.page.send(ending);
    loopback.close().await;
    if result.is_ok() {
        say("Signed in.");
    }
    result
}

/// Where the browser is sent (RFC 6749 §4.1.1, RFC 7636 §4.3).
fn authorization_url(
    sign_in: &SignIn,
    way: &CodeLogin,
    terms: &Terms<'_>,
    loopback: &Loopback,
    verifier: &Verifier,
) -> Result<String, LoginError> {
    let mut url =
        sign_in.url(&way.url)?.ok_or_else(|| not_offered(sign_in, Way::Code))?.to_string();
    let mut query = Serializer::new(String::new());
    query.append_pair("response_type", "code");
    for (name, template) in &way.query {
        if let Some(value) = sign_in.text(template)? {
            query.append_pair(name, &value);
        }
    }
    query.append_pair("redirect_uri", loopback.redirect_uri());
    query.append_pair("state", loopback.state());
    query.append_pair("code_challenge", &verifier.challenge());
    query.append_pair("code_challenge_method", "S256");
    query.extend_pairs(sign_in.audience());
    query.extend_pairs(&terms.config.authorization_params);
    // RFC 6749 §3.1: a query that the endpoint has is kept.
    url.push(if url.contains('?') { '&' } else { '?' });
    url.push_str(&query.finish());
    // Its beginning may be the metadata's.
    shown(&url).map(str::to_owned).ok_or(LoginError::Unshowable)
}

fn instructions(url: &str, terms: &Terms<'_>) -> String {
    let name = terms.name;
    let opened = terms.browser && browser::can_be_opened() && browser::open(url);
    let how = if opened {
        "sign in in the browser. If none has opened, open this page on this machine:"
    } else {
        "open this page in a browser on this machine:"
    };
    let minutes = WITHIN.as_secs() / 60;
    format!(
        "To sign in for the credential {name}, {how}\n\n    {url}\n\n\
         Waiting for at most {minutes} min. Ctrl-C gives up."
    )
}

/// The code for a token (RFC 6749 §4.1.3, RFC 7636 §4.5).
async fn exchange(
    sign_in: &SignIn,
    way: &CodeLogin,
    code: &Secret,
    redirect_uri: &str,
    verifier: &Verifier,
) -> Result<Fetched, LoginError> {
    let made = [
        ("code", code.expose()),
        ("redirect_uri", redirect_uri),
        ("code_verifier", verifier.expose()),
    ];
    let (exchange, answer, now) = sign_in.send(&way.exchanges, &made, None).await?;
    Ok(sign_in.read(exchange, &answer, now)?)
}

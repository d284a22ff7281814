//! A sign-in with user name and password, and then the code of a second factor, typed in here.

use super::terminal::{ask, say};
use super::{LoginError, Terms, keep};
use crate::secret::Secret;
use crate::source::dialect::login::SecondStep;
use crate::source::json::Document;
use crate::source::speaker::login::SignIn;

pub(super) async fn sign_in(
    sign_in: &SignIn,
    way: &SecondStep,
    terms: &Terms<'_>,
) -> Result<(), LoginError> {
    let (exchange, answer, now) = sign_in.send(&way.first, &[], None).await?;
    let wanted = Document::parse(&answer.body)
        .and_then(|document| document.text(&way.token).map(|text| Secret::new(text.to_owned())));
    let fetched = match wanted {
        Some(token) if sign_in.read(exchange, &answer, now).is_err() => {
            let code = ask(format!("Code of the second factor for {}: ", terms.name)).await;
            let code = code.map_err(|error| LoginError::NoCode(Some(error)))?;
            let code = code.ok_or(LoginError::NoCode(None))?;
            let made = [("mfa_token", token.expose()), ("mfa_code", code.expose())];
            let (exchange, answer, now) = sign_in.send(&way.exchanges, &made, None).await?;
            sign_in.read(exchange, &answer, now)?
        }
        // No second factor is wanted, or the sign-in failed.
        _ => sign_in.read(exchange, &answer, now)?,
    };
    keep(&fetched, terms).await?;
    say("Signed in.");
    Ok(())
}

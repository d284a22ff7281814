//! Lengthening the life of the token in force, where the identity provider offers that.

use super::DialectSource;
use crate::source::answer::Refusal;
use crate::source::template::Rendered;
use crate::source::{Attempt, Class, FetchError, Fetched};

/// What became of the token in force.
pub(super) enum Renewal {
    /// It lives on.
    Whole(Fetched),
    /// It lives on, but not for long: another one is wanted.
    Short(Fetched),
    /// Nothing: another one is needed.
    None,
}

impl DialectSource {
    /// The token in force with a longer life, where it may have one.
    pub(super) async fn renew(&self, attempt: Attempt<'_>) -> Result<Renewal, FetchError> {
        let held = attempt.held.filter(|_| !attempt.refused);
        let (Some(exchange), Some(held), Some(lease)) = (&self.dialect.renew, held, self.lease)
        else {
            return Ok(Renewal::None);
        };
        // A secret that cannot be read now may not be needed for this.
        let used = |key: &str| exchange.uses(key);
        let mut rendered = Rendered::read(&self.values, |key| !used(key))?;
        rendered.set("access_token", held.value().expose());
        if !exchange.applies(|key| rendered.get(key)) {
            return Ok(Renewal::None);
        }
        match self.send(exchange, &mut rendered, attempt).await {
            Ok(fetched) if fetched.token.lifetime() >= lease / 2 => Ok(Renewal::Whole(fetched)),
            // Near the longest life that a token may have each renewal gives less.
            Ok(fetched) => Ok(Renewal::Short(fetched)),
            Err(Refusal { error, .. }) if error.class == Class::Transient => Err(error),
            Err(Refusal { error, .. }) => {
                tracing::info!(%error, "the token in force cannot be renewed");
                Ok(Renewal::None)
            }
        }
    }
}

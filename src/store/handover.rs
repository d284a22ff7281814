//! Where a person's login goes, so that whoever uses the credential goes on with it.

use tokio::sync::Mutex;

use super::shared::Agreement;
use super::{Rotation, StoreError};
use crate::source::Fetched;

/// The way from a login to the credential's store.
pub enum Handover {
    /// Beside a file: whoever owns that takes it up.
    Beside(Rotation),
    /// Into a store that several processes share, who all take it over.
    Shared(Rotation, Box<Mutex<Agreement>>),
}

impl Handover {
    /// Whether a login could be left there, as far as can be told beforehand.
    ///
    /// # Errors
    /// [`StoreError`]: why not.
    pub async fn can_leave(&self) -> Result<(), StoreError> {
        match self {
            Self::Beside(rotation) => rotation.can_leave(),
            Self::Shared(_, agreement) => Ok(agreement.lock().await.reachable().await?),
        }
    }

    /// Leaves what a login brought, durably.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was left, or in a shared store: it is not known whether it was.
    pub async fn leave(&self, fetched: &Fetched) -> Result<(), StoreError> {
        match self {
            Self::Beside(rotation) => rotation.leave(fetched),
            Self::Shared(rotation, agreement) => {
                let record = rotation.record_of_login(fetched);
                Ok(agreement.lock().await.sign_in(record).await?)
            }
        }
    }
}

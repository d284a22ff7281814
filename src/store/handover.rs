//! Where a person's login goes, so that whoever uses the credential goes on with it.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::sync::Mutex;

use super::shared::Agreement;
use super::{Rotation, StoreError};
use crate::source::Fetched;

/// The way from a login to the credential's store.
pub struct Handover {
    /// Where.
    pub to: Destination,
    begun: AtomicBool,
}

/// Where a login goes.
pub enum Destination {
    /// Beside a file: whoever owns that takes it up.
    Beside(Rotation),
    /// Into a store that several processes share, who all take it over.
    Shared(Rotation, Box<Mutex<Agreement>>),
}

impl Handover {
    /// To that place.
    #[must_use]
    pub fn new(to: Destination) -> Self {
        Self { to, begun: AtomicBool::new(false) }
    }

    /// Something has come and is being left, or was: that is not given up any more.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun.load(Relaxed)
    }

    /// Whether a login could be left there, as far as can be told beforehand.
    ///
    /// # Errors
    /// [`StoreError`]: why not.
    pub async fn can_leave(&self) -> Result<(), StoreError> {
        match &self.to {
            Destination::Beside(rotation) => rotation.can_leave(),
            Destination::Shared(_, agreement) => Ok(agreement.lock().await.can_sign_in().await?),
        }
    }

    /// Leaves what a login brought, durably.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was left, or in a shared store: it is not known whether it was.
    pub async fn leave(&self, fetched: &Fetched) -> Result<(), StoreError> {
        self.begun.store(true, Relaxed);
        match &self.to {
            Destination::Beside(rotation) => rotation.leave(fetched),
            Destination::Shared(rotation, agreement) => {
                let record = rotation.record_of_login(fetched);
                Ok(agreement.lock().await.sign_in(record).await?)
            }
        }
    }
}

//! With what an attempt may be made, and whether it may be made at all.

use std::time::Duration;

use super::memory::Memory;
use super::{Refresher, Trigger};
use crate::clock::Moment;
use crate::secret::Secret;
use crate::source::TokenSource;

/// Leave to make one attempt.
pub(super) struct Permit {
    pub(super) refresh_token: Option<Secret>,
    /// It may be spent.
    pub(super) in_doubt: bool,
    /// It ends then.
    pub(super) until: Option<Moment>,
}

impl<S: TokenSource> Refresher<S> {
    /// Leave to make an attempt now; without it `memory` says what comes instead.
    pub(super) async fn permit(&mut self, memory: &mut Memory, trigger: Trigger) -> Option<Permit> {
        if self.sharing.is_some() {
            return self.agree(memory, trigger).await;
        }
        let refresh_token = match self.rotation.current() {
            Ok(refresh_token) => refresh_token,
            Err(error) => {
                self.fail(memory, trigger, &error.into(), Duration::ZERO);
                return None;
            }
        };
        let sent = refresh_token.as_ref().map(Secret::fingerprint);
        // Another one than before was put in place by somebody: nothing is in doubt about it.
        if std::mem::replace(&mut memory.sent, sent) != sent {
            memory.doubt = None;
        }
        let in_doubt = memory.in_doubt(Moment::now());
        Some(Permit { refresh_token, in_doubt, until: None })
    }
}

//! The same request once more: with a newer token after a refusal, or on a new connection after a
//! pooled one turned out to be closed. Each request goes upstream at most twice.

use std::sync::Arc;
use std::time::Duration;

use http::response;

use super::{Answered, Exchange, Looked, WATCHDOG_SLACK, proof, reason};
use crate::clock::{Moment, monotonic};
use crate::credential::{Held, Scheme};
use crate::metrics::ReplayOutcome;
use crate::proxy::challenge;
use crate::proxy::reject::Reason;
use crate::proxy::relay::Relay;
use crate::proxy::replay::{Handle, Outbound};
use crate::proxy::upstream::{Call, Failed};

/// A token refused within this time of its refresh may be too new for the upstream (replication
/// lag, `nbf`): it is tried once more after a short pause, and nobody refreshes.
const SETTLING: Duration = Duration::from_secs(1);
/// The short pause.
const SETTLING_PAUSE: Duration = Duration::from_millis(200);

impl Exchange {
    /// The second and last try after a connection failed, on a new one.
    pub(super) async fn send_again(&mut self, failed: Failed) -> Answered {
        let body = if !failed.sent {
            failed.body.or_else(|| self.body_again.as_ref()?.again())
        } else if failed.stale && self.may_arrive_twice() {
            // It may have arrived already: a replay would be its third time.
            (self.body_again, self.sent_twice) = (None, true);
            Some(Outbound::Empty)
        } else {
            None
        };
        let Some(body) = body else { return Err(reason(&failed.error)) };
        let lease = self.connect().await?;
        self.judge_again().await?;
        self.await_answer(monotonic());
        let call = self.start(lease, body);
        let answered = call.head(self.record.wire()).await;
        self.spans.end(&answered);
        answered.map_err(|failed| reason(&failed.error))
    }

    /// Sending it twice cannot do more than sending it once.
    fn may_arrive_twice(&self) -> bool {
        let bodiless = self.body_again.as_ref().is_some_and(Handle::is_empty);
        bodiless && self.outgoing.method.is_idempotent()
    }

    /// A newer token, and the same request once more. If that cannot be, the first answer is the
    /// answer.
    pub(in crate::proxy) async fn replay(
        &mut self,
        first: response::Parts,
        mut call: Call,
    ) -> Answered {
        if !self.says_expired(&first, &mut call).await? {
            return Ok((first, call));
        }
        let Some(held) = self.held.take() else { return Ok((first, call)) };
        let wants_nonce = held.bound.as_ref().is_some_and(|bound| {
            let given = proof::remember(bound, &first.headers, &self.route().config.upstream);
            given && challenge::wants_nonce(&first.headers)
        });
        if !wants_nonce && !self.invites_new_token(&held, &first) {
            return Ok((first, call));
        }
        let metrics = Arc::clone(&self.route().metrics);
        let Some(again) = self.body_again.take().filter(|body| body.again().is_some()) else {
            if !wants_nonce {
                self.route().credential.nudge(held.generation);
            }
            let keeps_bodies = self.route().config.replay.body_bytes > 0;
            metrics.replayed(if keeps_bodies && !self.sent_twice && self.upgrade.is_none() {
                ReplayOutcome::BodyTooLarge
            } else {
                ReplayOutcome::NotReplayable
            });
            return Ok((first, call));
        };
        // RFC 9449 §9: a new proof for the same token, and no refresh.
        let newer = if wants_nonce { Some(held) } else { self.replacement(&held).await };
        let Some(newer) = newer else {
            metrics.replayed(ReplayOutcome::TokenUnavailable);
            return Ok((first, call));
        };
        let Some(body) = again.again() else {
            metrics.replayed(ReplayOutcome::BodyTooLarge);
            return Ok((first, call));
        };
        // The first sending's connection may be used again only if it cannot take what is still to
        // come of the body.
        if again.is_read() {
            Relay::drain(call);
        } else {
            drop(call);
        }
        self.looked = Looked::default();
        self.carry(newer);
        let second = self.second(body).await;
        metrics.replayed(match &second {
            Ok((.., true)) => ReplayOutcome::Unauthorized,
            Ok((.., false)) => ReplayOutcome::Succeeded,
            Err(Reason::TokenUnavailable(_)) => ReplayOutcome::TokenUnavailable,
            Err(_) => ReplayOutcome::NotReplayable,
        });
        second.map(|(head, call, _)| (head, call))
    }

    /// The answer to the second sending, and whether it is a refusal too.
    async fn second(&mut self, body: Outbound) -> Result<(response::Parts, Call, bool), Reason> {
        let (head, mut call) = self.send(body).await?;
        let refused = self.is_refused(&head) && self.says_expired(&head, &mut call).await?;
        Ok((head, call, refused))
    }

    /// Whether the refusal is of what was sent: of a token, by whatever word the route sends it.
    fn invites_new_token(&self, held: &Held, refusal: &response::Parts) -> bool {
        let in_scheme = |scheme| challenge::invites_new_token(&refusal.headers, scheme);
        match (&held.bound, &self.route().config.scheme) {
            (Some(_), _) => in_scheme("DPoP"),
            (None, Scheme::Other(word)) => in_scheme(word) || in_scheme("Bearer"),
            (None, Scheme::Bearer | Scheme::Bare) => in_scheme("Bearer"),
        }
    }

    /// A token that may do better than the refused one; `None` if there is none in time.
    async fn replacement(&mut self, refused: &Held) -> Option<Held> {
        let route = self.route();
        let started = Moment::now();
        let deadline = started.mono + route.config.wait;
        self.record.watchdog().request(deadline + WATCHDOG_SLACK, Duration::ZERO);
        let scheme = &route.config.scheme;
        if let Some(held) = route.credential.bearer(started, scheme)
            && held.generation > refused.generation
        {
            return Some(held);
        }
        let age = started.mono.saturating_duration_since(refused.published_at.mono);
        if refused.generation > 1 && age < SETTLING {
            tokio::time::sleep(SETTLING_PAUSE.min(route.config.wait)).await;
            return route.credential.bearer(Moment::now(), scheme);
        }
        let held = route.credential.replacement(refused.generation, deadline, scheme).await;
        let waited = monotonic() - started.mono;
        route.credential_metrics.waited(waited);
        self.waited = waited;
        held.ok()
    }
}

//! The same request once more: with a newer token after a refusal, or on a new connection after a
//! pooled one turned out to be closed. Each request goes upstream at most twice.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use http::response;

use super::first::First;
use super::{Answered, Exchange, WATCHDOG_SLACK, proof, reason};
use crate::clock::{Moment, monotonic};
use crate::credential::{Held, Scheme};
use crate::metrics::{ReplayOutcome, RouteMetrics};
use crate::proxy::challenge;
use crate::proxy::reject::Reason;
use crate::proxy::replay::{Handle, Outbound};
use crate::proxy::upstream::{Call, Failed};

/// A token refused within this time of its refresh may be too new for the upstream (replication
/// lag, `nbf`): it is tried once more after a short pause, and nobody refreshes.
const SETTLING: Duration = Duration::from_secs(1);
/// The short pause.
const SETTLING_PAUSE: Duration = Duration::from_millis(200);

/// Counts, when it is dropped, what came of a refused token.
struct Outcome {
    metrics: Arc<RouteMetrics>,
    so_far: ReplayOutcome,
}

impl Drop for Outcome {
    fn drop(&mut self) {
        self.metrics.replayed(self.so_far);
    }
}

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
        let mut outcome = self.outcome(ReplayOutcome::TokenUnavailable);
        let Some(again) = self.body_again.take().filter(|body| body.again().is_some()) else {
            if !wants_nonce {
                self.route().credential.nudge(held.generation);
            }
            let keeps_bodies = self.route().config.replay.body_bytes > 0;
            let outgrown = keeps_bodies && !self.sent_twice && self.upgrade.is_none();
            outcome.so_far =
                if outgrown { ReplayOutcome::BodyTooLarge } else { ReplayOutcome::NotReplayable };
            return Ok((first, call));
        };
        // RFC 9449 §9: a new proof for the same token, and no refresh.
        let newer = if wants_nonce { Some(held) } else { self.replacement(&held).await };
        let Some(newer) = newer else { return Ok((first, call)) };
        let Some(body) = again.again() else {
            outcome.so_far = ReplayOutcome::BodyTooLarge;
            return Ok((first, call));
        };
        let first = First::set_aside(first, mem::take(&mut self.looked), call, again.is_read());
        drop(again);
        self.carry(newer);
        self.second(first, body, outcome).await
    }

    /// The second sending, as soon as there is a connection for it.
    async fn second(&mut self, first: First, body: Outbound, mut outcome: Outcome) -> Answered {
        outcome.so_far = ReplayOutcome::NotReplayable;
        let lease = match self.lease().await {
            Ok(lease) => lease,
            Err(reason) => {
                if matches!(reason, Reason::TokenUnavailable(_)) {
                    outcome.so_far = ReplayOutcome::TokenUnavailable;
                }
                let (head, looked, call) = first.passed_on().ok_or(reason)?;
                self.looked = looked;
                return Ok((head, call));
            }
        };
        // Its connection takes nothing more of the body.
        drop(first);
        let (head, mut call) = self.send_on(lease, body).await?;
        let refused = self.is_refused(&head) && self.says_expired(&head, &mut call).await?;
        outcome.so_far =
            if refused { ReplayOutcome::Unauthorized } else { ReplayOutcome::Succeeded };
        Ok((head, call))
    }

    /// Counts what comes of a refused token: `so_far`, if its caller leaves before more is known.
    fn outcome(&self, so_far: ReplayOutcome) -> Outcome {
        Outcome { metrics: Arc::clone(&self.route().metrics), so_far }
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

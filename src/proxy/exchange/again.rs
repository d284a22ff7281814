//! The same request once more: with a newer token after a refusal, or on a new connection after a
//! pooled one turned out to be closed. Each request goes upstream at most twice.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, Request, Response, Uri};
use hyper::body::Incoming;

use super::{Answered, Exchange, WATCHDOG_SLACK, reason};
use crate::clock::{Moment, monotonic};
use crate::credential::Held;
use crate::metrics::ReplayOutcome;
use crate::proxy::relay::Relay;
use crate::proxy::replay::{Handle, Outbound};
use crate::proxy::upstream::{Failed, Lease};
use crate::proxy::{challenge, hop, inject};

/// A token refused within this time of its refresh may be too new for the upstream (replication
/// lag, `nbf`): it is tried once more after a short pause, and nobody refreshes.
const SETTLING: Duration = Duration::from_secs(1);
/// The short pause.
const SETTLING_PAUSE: Duration = Duration::from_millis(200);

/// A request as it was before injection.
pub(super) struct Again {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Handle,
}

impl Again {
    fn request(self, body: Outbound) -> Request<Outbound> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        request
    }
}

impl Exchange {
    /// The second and last try after a connection failed, on a new one.
    pub(super) async fn send_again(&mut self, failed: Failed) -> Answered {
        let mut request = match failed.unsent {
            Some(request) => request,
            None if failed.stale => match self.bodiless_copy() {
                Some(request) => {
                    // It may have arrived already: a replay would be its third time.
                    (self.again, self.sent_twice) = (None, true);
                    request
                }
                None => return Err(reason(&failed.error)),
            },
            None => return Err(reason(&failed.error)),
        };
        let lease = self.connect().await?;
        self.judge_again(&mut request)?;
        self.await_answer(monotonic());
        let (mut lease, response) = lease.start(request);
        let answered = lease.head(response, self.record.watchdog()).await;
        answered.map(|response| (response, lease)).map_err(|failed| reason(&failed.error))
    }

    /// The request once more, with its token, if sending it twice cannot do more than sending it
    /// once.
    fn bodiless_copy(&self) -> Option<Request<Outbound>> {
        let again = self.again.as_ref()?;
        if !again.method.is_idempotent() || !again.body.is_empty() {
            return None;
        }
        let mut request = Request::new(Outbound::Empty);
        *request.method_mut() = again.method.clone();
        *request.uri_mut() = again.uri.clone();
        *request.headers_mut() = again.headers.clone();
        if let Some(held) = &self.held {
            let header = &self.route().config.header;
            inject::inject(request.headers_mut(), header, held.value.clone());
        }
        Some(request)
    }

    /// A newer token, and the same request once more. If that cannot be, the first answer is the
    /// answer.
    pub(in crate::proxy) async fn replay(
        &mut self,
        first: Response<Incoming>,
        lease: Lease,
    ) -> Answered {
        let Some(held) = self.held.take() else { return Ok((first, lease)) };
        if !challenge::invites_new_token(first.headers()) {
            return Ok((first, lease));
        }
        let metrics = Arc::clone(&self.route().metrics);
        let again = self.again.take();
        let Some(again) = again.filter(|again| again.body.again().is_some()) else {
            self.route().credential.nudge(held.generation);
            let keeps_bodies = self.route().config.replay.body_bytes > 0;
            metrics.replayed(if keeps_bodies && !self.sent_twice {
                ReplayOutcome::BodyTooLarge
            } else {
                ReplayOutcome::NotReplayable
            });
            return Ok((first, lease));
        };
        let Some(newer) = self.replacement(&held).await else {
            metrics.replayed(ReplayOutcome::TokenUnavailable);
            return Ok((first, lease));
        };
        let Some(body) = again.body.again() else {
            metrics.replayed(ReplayOutcome::BodyTooLarge);
            return Ok((first, lease));
        };
        // The first sending's connection may be used again only if it cannot take what is still to
        // come of the body, and if its answer was sound.
        if again.body.is_read() && hop::check_framing(first.headers()).is_ok() {
            Relay::drain(first.into_body(), lease);
        } else {
            drop((first, lease));
        }
        let mut request = again.request(body);
        self.carry(newer, &mut request);
        let (response, lease) = self.send(request).await?;
        let status = response.status().as_u16();
        let refused_again = self.route().config.replay.statuses.contains(&status);
        metrics.replayed(if refused_again {
            ReplayOutcome::Unauthorized
        } else {
            ReplayOutcome::Succeeded
        });
        Ok((response, lease))
    }

    /// A token that may do better than the refused one; `None` if there is none in time.
    async fn replacement(&self, refused: &Held) -> Option<Held> {
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
        route.credential_metrics.waited(monotonic() - started.mono);
        held.ok()
    }
}

//! One request, top to bottom.
//!
//! `route` lets it in, the credential gives a token, `hop` strips, `inject` sets, `upstream` sends,
//! `replay` sends again if the token was refused, `relay` passes the answer down. A refusal at any
//! step goes through `reject`. A request never fetches a token: it looks, or waits for the writer.

use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http::request::Parts;
use http::{Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::clock::Moment;
use crate::credential::Held;
use crate::metrics::ReplayOutcome;

mod challenge;
mod connection;
pub mod hop;
pub mod inject;
pub mod listener;
pub mod reject;
mod relay;
pub mod replay;
pub mod route;
pub mod upstream;
mod watchdog;

use reject::Reason;
use relay::{Downstream, Record, Relay};
use replay::{Handle, Outbound};
use route::{Route, Routes};
use upstream::{Lease, UpstreamError};
use watchdog::Watchdog;

/// A token refused within this time of its refresh may be too new for the upstream (replication
/// lag, `nbf`): it is tried once more after a short pause, and nobody refreshes.
const SETTLING: Duration = Duration::from_secs(1);
/// The short pause.
const SETTLING_PAUSE: Duration = Duration::from_millis(200);

/// Answers one request.
pub async fn handle(
    routes: Arc<Routes>,
    watchdog: Arc<Watchdog>,
    request: Request<Incoming>,
) -> Response<Downstream> {
    let now = Moment::now();
    let (head, body) = request.into_parts();
    let route = match routes.admit(&head) {
        Ok(route) => Arc::clone(route),
        Err(reason) => {
            watchdog.rest(now.mono);
            return refuse(&routes, None, reason);
        }
    };
    let record = Record::begin(route, Arc::clone(&watchdog), now);
    let exchange = Exchange { routes: &routes, watchdog, now, record };
    exchange.run(head, body).await
}

fn refuse(routes: &Routes, record: Option<Record>, reason: Reason) -> Response<Downstream> {
    routes.refused[reason.index()].inc();
    tracing::debug!(target: "bearerd::access", reason = reason.as_str(), "refused");
    let response = reject::response(reason);
    let record = record.map(|mut record| {
        record.status(response.status().as_u16());
        record
    });
    response.map(|text| Downstream::Own { text: Some(text), record })
}

/// One request that has a route.
struct Exchange<'r> {
    routes: &'r Routes,
    watchdog: Arc<Watchdog>,
    now: Moment,
    record: Record,
}

/// What a second sending needs of the first.
struct Again {
    head: Parts,
    body: Handle,
}

impl Exchange<'_> {
    async fn run(mut self, head: Parts, body: Incoming) -> Response<Downstream> {
        match self.forward(head, body).await {
            Ok((response, lease)) => self.relay(response, lease),
            Err(reason) => refuse(self.routes, Some(self.record), reason),
        }
    }

    fn route(&self) -> Arc<Route> {
        Arc::clone(self.record.route())
    }

    async fn forward(
        &mut self,
        mut head: Parts,
        body: Incoming,
    ) -> Result<(Response<Incoming>, Lease), Reason> {
        let route = self.route();
        let config = &route.config;
        let keeps_own =
            inject::caller_keeps_own(&head.headers, &config.header, config.client_authorization)?;
        let held = if keeps_own { None } else { Some(self.token(&route).await?) };
        hop::strip_request(&mut head.headers, &route.policy(keeps_own), &self.routes.via)?;
        head.headers.insert(HOST, route.authority.clone());
        head.uri = origin_form(head.uri)?;
        let limit = if held.is_some() { config.replay.body_bytes } else { 0 };
        let body = Outbound::new(body, limit, &self.routes.budget, &config.header);
        let Some(held) = held else {
            return self.send(&route, Request::from_parts(head, body), None).await;
        };
        let again = body.handle().map(|body| Again { head: head.clone(), body });
        inject::inject(&mut head.headers, &config.header, held.value.clone());
        let request = Request::from_parts(head, body);
        let (response, lease) = self.send(&route, request, again.as_ref()).await?;
        if config.replay.statuses.contains(&response.status().as_u16()) {
            return self.replay(&route, &held, again, response, lease).await;
        }
        Ok((response, lease))
    }

    /// The current token, or the next one if that comes in time.
    async fn token(&self, route: &Route) -> Result<Held, Reason> {
        if let Some(held) = route.credential.bearer(self.now, &route.config.scheme) {
            return Ok(held);
        }
        let deadline = self.now.mono + route.config.wait;
        self.watchdog.request(deadline + Duration::from_secs(1), Duration::ZERO);
        let held = route.credential.newer_than(0, deadline, &route.config.scheme).await;
        route.credential_metrics.waited(Moment::now().mono - self.now.mono);
        held.map_err(|unavailable| Reason::TokenUnavailable(unavailable.retry_after))
    }

    /// The upstream refused the token: a newer one, and the same request once more. If that cannot
    /// be, the first answer is the answer.
    async fn replay(
        &self,
        route: &Route,
        refused: &Held,
        again: Option<Again>,
        first: Response<Incoming>,
        lease: Lease,
    ) -> Result<(Response<Incoming>, Lease), Reason> {
        if !challenge::invites_new_token(first.headers()) {
            return Ok((first, lease));
        }
        let body = again.as_ref().and_then(|again| again.body.again());
        let (Some(again), Some(_)) = (again, body) else {
            route.credential.nudge(refused.generation);
            let large = route.config.replay.body_bytes > 0;
            let outcome =
                if large { ReplayOutcome::BodyTooLarge } else { ReplayOutcome::NotReplayable };
            route.metrics.replayed(outcome);
            return Ok((first, lease));
        };
        let Some(held) = self.replacement(route, refused).await else {
            route.metrics.replayed(ReplayOutcome::TokenUnavailable);
            return Ok((first, lease));
        };
        let Some(body) = again.body.again() else {
            route.metrics.replayed(ReplayOutcome::BodyTooLarge);
            return Ok((first, lease));
        };
        Relay::new(first.into_body(), lease, Arc::clone(&self.watchdog), None).drain();
        let mut head = again.head;
        inject::inject(&mut head.headers, &route.config.header, held.value);
        let (response, lease) = self.send(route, Request::from_parts(head, body), None).await?;
        let refused_again = route.config.replay.statuses.contains(&response.status().as_u16());
        route.metrics.replayed(if refused_again {
            ReplayOutcome::Unauthorized
        } else {
            ReplayOutcome::Succeeded
        });
        Ok((response, lease))
    }

    /// A token that may do better than the refused one; `None` if there is none in time.
    async fn replacement(&self, route: &Route, refused: &Held) -> Option<Held> {
        let started = Moment::now();
        let deadline = started.mono + route.config.wait;
        self.watchdog.request(deadline + Duration::from_secs(1), Duration::ZERO);
        let scheme = &route.config.scheme;
        let age = started.mono.saturating_duration_since(refused.obtained_at.mono);
        if refused.generation > 1 && age < SETTLING {
            tokio::time::sleep(SETTLING_PAUSE.min(route.config.wait)).await;
            return route.credential.bearer(Moment::now(), scheme);
        }
        let held = route.credential.replacement(refused.generation, deadline, scheme).await;
        route.credential_metrics.waited(Moment::now().mono - started.mono);
        held.ok()
    }

    /// Sends a request and waits for the response head. What cannot have reached the upstream is
    /// sent again; of what may have, only a request that is idempotent and has no body, once, and
    /// only when a pooled connection turned out to be closed (RFC 9110 §9.2.2, RFC 9112 §9.3.1).
    async fn send(
        &self,
        route: &Route,
        request: Request<Outbound>,
        again: Option<&Again>,
    ) -> Result<(Response<Incoming>, Lease), Reason> {
        let started = Moment::now().mono;
        let idempotent = request.method().is_idempotent();
        let authorization = request.headers().get(&route.config.header).cloned();
        let timeouts = route.config.timeouts;
        self.watchdog.request(started + timeouts.connect + timeouts.response, timeouts.response);
        let mut lease = route.upstream.lease(started).await.map_err(reason)?;
        let failed = match self.exchange(&mut lease, request).await? {
            Ok(response) => return Ok((response, lease)),
            Err(failed) => failed,
        };
        let request = match (failed.unsent, again) {
            (Some(request), _) => request,
            (None, Some(again)) if failed.stale && idempotent && again.body.is_empty() => {
                let mut head = again.head.clone();
                if let Some(value) = authorization {
                    inject::inject(&mut head.headers, &route.config.header, value);
                }
                Request::from_parts(head, Outbound::Empty)
            }
            _ => return Err(reason(failed.error)),
        };
        let mut lease = route.upstream.connect(Moment::now().mono).await.map_err(reason)?;
        let response = self.exchange(&mut lease, request).await?;
        response.map(|response| (response, lease)).map_err(|failed| reason(failed.error))
    }

    /// One sending on one connection, within the watchdog's deadline.
    async fn exchange(
        &self,
        lease: &mut Lease,
        request: Request<Outbound>,
    ) -> Result<Result<Response<Incoming>, Box<upstream::Failed>>, Reason> {
        let mut sending = std::pin::pin!(lease.send(request));
        std::future::poll_fn(|cx| match sending.as_mut().poll(cx) {
            std::task::Poll::Pending if self.watchdog.expired() => {
                std::task::Poll::Ready(Err(Reason::UpstreamTimeout))
            }
            other => other.map(Ok),
        })
        .await
    }

    fn relay(mut self, response: Response<Incoming>, lease: Lease) -> Response<Downstream> {
        let (mut head, body) = response.into_parts();
        // RFC 9110 §7.8: a protocol switch that nobody asked for.
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return refuse(self.routes, Some(self.record), Reason::UpstreamProtocol);
        }
        let route = self.route();
        if let Err(reason) = hop::strip_response(&mut head.headers, route.config.strip_cookies) {
            return refuse(self.routes, Some(self.record), reason);
        }
        let idle = route.config.timeouts.idle;
        self.watchdog.request(self.now.mono + idle, idle);
        self.record.status(head.status.as_u16());
        let relay = Relay::new(body, lease, self.watchdog, Some(self.record));
        Response::from_parts(head, Downstream::Relayed(relay))
    }
}

/// The target as an origin server wants it (RFC 9112 §3.2.1): path and query, bytes unchanged.
fn origin_form(uri: Uri) -> Result<Uri, Reason> {
    if uri.authority().is_none() {
        return Ok(uri);
    }
    let target = uri.into_parts().path_and_query.ok_or(Reason::BadRequest)?;
    Uri::try_from(target.as_str()).map_err(|_| Reason::BadRequest)
}

fn reason(error: UpstreamError) -> Reason {
    let reason = match &error {
        UpstreamError::Unreachable(crate::dial::DialError::Timeout) => Reason::UpstreamTimeout,
        UpstreamError::Unreachable(_) => Reason::UpstreamUnreachable,
        UpstreamError::Protocol(_) => Reason::UpstreamProtocol,
    };
    tracing::warn!(
        error = crate::refresher::chain(&error),
        reason = reason.as_str(),
        "upstream failed"
    );
    reason
}

/// What every worker does now and then: close what has been idle for too long.
pub fn sweep(now: Instant) {
    upstream::sweep(now);
}

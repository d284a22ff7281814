//! One request that has a route: its token, its sending, its replay, its answer.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::reject::{self, Reason};
use super::relay::{Downstream, Record, Relay};
use super::replay::{Handle, Outbound};
use super::route::{Route, Routes};
use super::upstream::{Failed, Lease, Sent, UpstreamError};
use super::watchdog::Watchdog;
use super::{challenge, hop, inject};
use crate::clock::{Moment, monotonic};
use crate::credential::Held;
use crate::dial::DialError;
use crate::metrics::ReplayOutcome;

/// A token refused within this time of its refresh may be too new for the upstream (replication
/// lag, `nbf`): it is tried once more after a short pause, and nobody refreshes.
const SETTLING: Duration = Duration::from_secs(1);
/// What has a bound of its own is abandoned by the watchdog only if that fails.
const WATCHDOG_SLACK: Duration = Duration::from_secs(1);
/// The short pause.
const SETTLING_PAUSE: Duration = Duration::from_millis(200);

/// A response head, and the connection that its body comes from.
pub(super) type Answered = Result<(Response<Incoming>, Lease), Reason>;

/// A request that was let in, and what goes out of it.
type Begun = (Box<Exchange>, Request<Outbound>);

/// One request that has a route.
pub(super) struct Exchange {
    routes: Arc<Routes>,
    now: Moment,
    record: Record,
    /// The token that the request carries; `None` while it waits for one, and with the caller's own.
    held: Option<Held>,
    /// The caller's own credential goes out instead of ours.
    keeps_own: bool,
    /// What a second sending needs; `None` if there can be none.
    again: Option<Again>,
}

/// A request as it was before injection.
struct Again {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Handle,
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
    /// Lets the request in, strips it, and injects the token if there is one.
    pub(super) fn begin(
        routes: Arc<Routes>,
        watchdog: Arc<Watchdog>,
        request: Request<Incoming>,
    ) -> Result<Begun, Box<Response<Downstream>>> {
        let now = Moment::now();
        let (head, body) = request.into_parts();
        let route = match routes.admit(&head) {
            Ok(route) => Arc::clone(route),
            Err(reason) => {
                watchdog.rest(now.mono);
                let own = |text| Downstream::Own { text: Some(text), record: None };
                return Err(Box::new(refusal(&routes, reason).map(own)));
            }
        };
        let record = Record::begin(route, watchdog, now);
        let exchange = Self { routes, now, record, held: None, keeps_own: false, again: None };
        let mut exchange = Box::new(exchange);
        match exchange.shape(head, body) {
            Ok(mut request) => {
                exchange.look_for_token(&mut request);
                Ok((exchange, request))
            }
            Err(reason) => Err(Box::new(exchange.refuse(reason))),
        }
    }

    fn route(&self) -> &Route {
        self.record.route()
    }

    /// The request as it goes out, but for the token.
    fn shape(&mut self, mut head: Parts, body: Incoming) -> Result<Request<Outbound>, Reason> {
        let route = self.record.route();
        let config = &route.config;
        let policy = config.client_authorization;
        self.keeps_own = inject::caller_keeps_own(&head.headers, &config.header, policy)?;
        let policy = route.policy(self.keeps_own);
        hop::strip_request(&mut head.headers, &policy, &self.routes.via)?;
        head.headers.insert(HOST, route.authority.clone());
        head.uri = origin_form(head.uri)?;
        let limit = if self.keeps_own { 0 } else { config.replay.body_bytes };
        let body = Outbound::new(body, limit, &self.routes.budget, &config.header);
        Ok(Request::from_parts(head, body))
    }

    fn look_for_token(&mut self, request: &mut Request<Outbound>) {
        if !self.keeps_own {
            let config = &self.route().config;
            if let Some(held) = self.route().credential.bearer(self.now, &config.scheme) {
                self.carry(held, request);
            }
        }
    }

    /// Puts the token into the request, and keeps what the same request takes with another one.
    fn carry(&mut self, held: Held, request: &mut Request<Outbound>) {
        self.again = request.body().handle().map(|body| Again {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
            body,
        });
        let header = &self.route().config.header;
        inject::inject(request.headers_mut(), header, held.value.clone());
        self.held = Some(held);
    }

    /// A pooled connection, if the request can be sent now.
    pub(super) fn pooled(&self) -> Option<Lease> {
        let sendable = self.held.is_some() || self.keeps_own;
        let lease = sendable.then(|| self.route().upstream.pooled(self.now.mono)).flatten()?;
        self.await_answer(self.now.mono);
        Some(lease)
    }

    /// From `from` on the response head is waited for; a body that still goes up extends that.
    fn await_answer(&self, from: Instant) {
        let response = self.route().config.timeouts.response;
        self.record.watchdog().request(from + response, response);
    }

    /// A new connection, within the route's own bound for that.
    async fn connect(&self) -> Result<Lease, Reason> {
        let started = monotonic();
        let bound = self.route().config.timeouts.connect + WATCHDOG_SLACK;
        self.record.watchdog().request(started + bound, Duration::ZERO);
        self.route().upstream.connect(started).await.map_err(|error| reason(&error))
    }

    /// Waits for what was missing, a token or a connection, and sends.
    pub(super) async fn send_when_possible(
        &mut self,
        mut request: Box<Request<Outbound>>,
    ) -> Answered {
        if self.held.is_none() && !self.keeps_own {
            let held = self.wait_for_token().await?;
            self.carry(held, &mut request);
        }
        self.send(*request).await
    }

    /// The next token if it comes in time.
    async fn wait_for_token(&self) -> Result<Held, Reason> {
        let route = self.route();
        let deadline = self.now.mono + route.config.wait;
        self.record.watchdog().request(deadline + WATCHDOG_SLACK, Duration::ZERO);
        let held = route.credential.newer_than(0, deadline, &route.config.scheme).await;
        route.credential_metrics.waited(monotonic() - self.now.mono);
        held.map_err(|unavailable| Reason::TokenUnavailable(unavailable.retry_after))
    }

    async fn send(&mut self, request: Request<Outbound>) -> Answered {
        let lease = match self.route().upstream.pooled(monotonic()) {
            Some(lease) => lease,
            None => self.connect().await?,
        };
        self.await_answer(monotonic());
        let (lease, response) = lease.start(request);
        self.head(lease, response).await
    }

    /// The response head. What cannot have reached the upstream is sent again; of what may have,
    /// only a request that is idempotent and has no body, once, and only when a pooled connection
    /// turned out to be closed (RFC 9110 §9.2.2, RFC 9112 §9.3.1).
    pub(super) async fn head(
        &mut self,
        mut lease: Lease,
        response: Pin<Box<impl Sent>>,
    ) -> Answered {
        match lease.head(response, self.record.watchdog()).await {
            Ok(response) => Ok((response, lease)),
            Err(failed) => Box::pin(self.send_again(*failed)).await,
        }
    }

    /// The second and last try after a connection failed, on a new one.
    async fn send_again(&mut self, failed: Failed) -> Answered {
        let request = match failed.unsent {
            Some(request) => request,
            None if failed.stale => match self.bodiless_copy() {
                Some(request) => request,
                None => return Err(reason(&failed.error)),
            },
            None => return Err(reason(&failed.error)),
        };
        let lease = self.connect().await?;
        self.await_answer(monotonic());
        let (mut lease, response) = lease.start(request);
        let answered = lease.head(response, self.record.watchdog()).await;
        answered.map(|response| (response, lease)).map_err(|failed| reason(&failed.error))
    }

    /// The request once more, with its token, if sending it twice cannot do more than sending it
    /// once.
    fn bodiless_copy(&self) -> Option<Request<Outbound>> {
        let (again, held) = (self.again.as_ref()?, self.held.as_ref()?);
        if !again.method.is_idempotent() || !again.body.is_empty() {
            return None;
        }
        let mut request = Request::new(Outbound::Empty);
        *request.method_mut() = again.method.clone();
        *request.uri_mut() = again.uri.clone();
        *request.headers_mut() = again.headers.clone();
        inject::inject(request.headers_mut(), &self.route().config.header, held.value.clone());
        Some(request)
    }

    /// The upstream refused our token.
    pub(super) fn is_refused(&self, response: &Response<Incoming>) -> bool {
        self.held.is_some()
            && self.route().config.replay.statuses.contains(&response.status().as_u16())
    }

    /// A newer token, and the same request once more. If that cannot be, the first answer is the
    /// answer.
    pub(super) async fn replay(&mut self, first: Response<Incoming>, lease: Lease) -> Answered {
        let Some(held) = self.held.take() else { return Ok((first, lease)) };
        if !challenge::invites_new_token(first.headers()) {
            return Ok((first, lease));
        }
        let metrics = Arc::clone(&self.route().metrics);
        let again = self.again.take();
        let Some(again) = again.filter(|again| again.body.again().is_some()) else {
            self.route().credential.nudge(held.generation);
            let keeps_bodies = self.route().config.replay.body_bytes > 0;
            metrics.replayed(if keeps_bodies {
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
        Relay::drain(first.into_body(), lease);
        let mut request = again.request(body);
        inject::inject(request.headers_mut(), &self.route().config.header, newer.value);
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
        let age = started.mono.saturating_duration_since(refused.obtained_at.mono);
        if refused.generation > 1 && age < SETTLING {
            tokio::time::sleep(SETTLING_PAUSE.min(route.config.wait)).await;
            return route.credential.bearer(Moment::now(), scheme);
        }
        let held = route.credential.replacement(refused.generation, deadline, scheme).await;
        route.credential_metrics.waited(monotonic() - started.mono);
        held.ok()
    }

    pub(super) fn relay(
        mut self,
        response: Response<Incoming>,
        lease: Lease,
    ) -> Response<Downstream> {
        let (mut head, body) = response.into_parts();
        // RFC 9110 §7.8: a protocol switch that nobody asked for.
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return self.refuse(Reason::UpstreamProtocol);
        }
        let config = &self.route().config;
        if let Err(reason) = hop::strip_response(&mut head.headers, config.strip_cookies) {
            return self.refuse(reason);
        }
        let idle = config.timeouts.idle;
        self.record.watchdog().request(self.now.mono + idle, idle);
        self.record.status(head.status.as_u16());
        let relay = Relay::new(body, lease, self.record);
        Response::from_parts(head, Downstream::Relayed(relay))
    }

    pub(super) fn refuse(mut self, reason: Reason) -> Response<Downstream> {
        let response = refusal(&self.routes, reason);
        self.record.status(response.status().as_u16());
        response.map(|text| Downstream::Own { text: Some(text), record: Some(self.record) })
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

/// What the caller is told; the log is told all.
fn reason(error: &UpstreamError) -> Reason {
    let reason = match error {
        UpstreamError::Timeout | UpstreamError::Unreachable(DialError::Timeout) => {
            Reason::UpstreamTimeout
        }
        UpstreamError::Unreachable(_) => Reason::UpstreamUnreachable,
        // The caller's body broke off, or its chunks are none (RFC 9112 §7.1).
        UpstreamError::Protocol(error) if error.is_user() => return Reason::BadRequest,
        UpstreamError::Protocol(_) => Reason::UpstreamProtocol,
    };
    tracing::warn!(
        error = crate::telemetry::chain(error),
        reason = reason.as_str(),
        "upstream failed"
    );
    reason
}

fn refusal(routes: &Routes, reason: Reason) -> Response<Bytes> {
    routes.refused[reason.index()].inc();
    tracing::debug!(target: "bearerd::access", reason = reason.as_str(), "refused");
    reject::response(reason)
}

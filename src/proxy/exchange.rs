//! One request that has a route: its token, its sending, its replay, its answer.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body::Body;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::reject::{self, Reason};
use super::relay::{Downstream, Record, Relay};
use super::replay::Outbound;
use super::route::{Route, Routes};
use super::upstream::{Lease, Sent, UpstreamError};
use super::watchdog::Watchdog;
use super::{hop, inject};
use crate::clock::{Moment, monotonic};
use crate::credential::Held;
use crate::dial::DialError;

mod again;

use again::Again;

/// What has a bound of its own is abandoned by the watchdog only if that fails.
const WATCHDOG_SLACK: Duration = Duration::from_secs(1);
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
    /// It may have arrived twice already.
    sent_twice: bool,
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
        let exchange = Self {
            routes,
            now,
            record,
            held: None,
            keeps_own: false,
            again: None,
            sent_twice: false,
        };
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
        // RFC 9112 §2.3: the version is each hop's own; Via tells what was received.
        let via = if head.version == Version::HTTP_10 {
            &self.routes.via_http10
        } else {
            &self.routes.via
        };
        head.version = Version::HTTP_11;
        hop::strip_request(&mut head.headers, &policy, via)?;
        head.headers.insert(HOST, route.authority.clone());
        head.uri = origin_form(head.uri)?;
        let limit = if self.keeps_own { 0 } else { config.replay.body_bytes };
        let body = Outbound::new(body, limit, &self.routes.budget, &config.header);
        if !body.is_end_stream() && body.size_hint().exact().is_none() {
            // Said again, or hyper takes a GET or HEAD to have no body.
            head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        self.again = body.handle().map(|body| Again {
            method: head.method.clone(),
            uri: head.uri.clone(),
            headers: head.headers.clone(),
            body,
        });
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

    /// Puts the token into the request.
    fn carry(&mut self, held: Held, request: &mut Request<Outbound>) {
        let header = &self.route().config.header;
        inject::inject(request.headers_mut(), header, held.value.clone());
        self.held = Some(held);
    }

    /// Connecting takes its time: an expired token is not sent, not even then.
    fn judge_again(&mut self, request: &mut Request<Outbound>) -> Result<(), Reason> {
        let now = Moment::now();
        if self.held.as_ref().is_none_or(|held| !held.expires_at.reached(now)) {
            return Ok(());
        }
        let held = self.route().credential.bearer(now, &self.route().config.scheme);
        let held = held.ok_or(Reason::TokenUnavailable(Duration::from_secs(1)))?;
        self.carry(held, request);
        Ok(())
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

    async fn send(&mut self, mut request: Request<Outbound>) -> Answered {
        let lease = match self.route().upstream.pooled(monotonic()) {
            Some(lease) => lease,
            None => self.connect().await?,
        };
        self.judge_again(&mut request)?;
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

    /// The upstream refused our token.
    pub(super) fn is_refused(&self, response: &Response<Incoming>) -> bool {
        self.held.is_some()
            && self.route().config.replay.statuses.contains(&response.status().as_u16())
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
        self.record.watchdog().request(monotonic() + idle, idle);
        head.version = Version::HTTP_11;
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

//! One request that has a route: its token, its sending, its replay, its answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, CONNECTION, DATE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, response};
use tokio::time::Instant;

use super::inbound::Inbound;
use super::reject::{self, Reason};
use super::relay::{Downstream, Record, Relay};
use super::replay::{Handle, Outbound};
use super::route::{Route, Routes};
use super::tunnel::{self, Tunnel};
use super::upstream::{Call, Lease, Outgoing, UpstreamError};
use super::wire::Wire;
use super::{hop, inject};
use crate::clock::{Moment, monotonic};
use crate::credential::Held;
use crate::dial::DialError;

mod again;
pub(super) mod first;
mod look;
mod proof;
mod shape;
#[cfg_attr(not(feature = "otlp"), path = "exchange/no_spans.rs")]
mod spans;

pub(super) use look::Looked;
use shape::{Stop, Upgrade};
use spans::Spans;

/// What has a bound of its own is abandoned by the watchdog only if that fails.
const WATCHDOG_SLACK: Duration = Duration::from_secs(1);
/// A response head, and the call that the rest comes from.
pub(super) type Answered = Result<(response::Parts, Call), Reason>;

/// One request that has a route.
pub(super) struct Exchange {
    routes: Arc<Routes>,
    now: Moment,
    record: Record,
    /// What goes out, however often.
    outgoing: Outgoing,
    /// The token that the request carries; `None` while it waits for one, and with the caller's own.
    held: Option<Held>,
    /// How long this sending has waited for a token.
    waited: Duration,
    /// The caller's own credential goes out instead of ours.
    keeps_own: bool,
    /// The body once more; `None` if it cannot be sent again.
    body_again: Option<Handle>,
    /// It may have arrived twice already.
    sent_twice: bool,
    /// What was read of the answer to see whether it speaks of the token.
    looked: Looked,
    /// What the caller would go on with.
    upgrade: Option<Box<Upgrade>>,
    /// What tracing tells of its sendings.
    spans: Spans,
}

impl Exchange {
    /// Lets the request in, strips it, and injects the token if there is one.
    pub(super) fn begin(
        routes: Arc<Routes>,
        wire: Arc<Wire>,
        mut request: Request<Inbound>,
    ) -> Result<(Box<Self>, Outbound), Box<Response<Downstream>>> {
        let now = Moment::now();
        let upgrade = shape::upgrade(&mut request, &wire);
        let (asked, body) = request.into_parts();
        let version = asked.version;
        let record = match routes.admit(&asked) {
            Ok(route) => Record::begin(Arc::clone(route), wire, now),
            Err(reason) => {
                wire.watchdog.rest(now.mono);
                return Err(Box::new(turn_away(&routes, reason)));
            }
        };
        let protocols = upgrade.as_ref().map(|upgrade| &upgrade.protocols);
        let (outgoing, keeps_own) = match shape::shape(asked, record.route(), &routes, protocols) {
            Ok(shaped) => shaped,
            Err(Stop::Refused(reason)) => return Err(Box::new(refuse(&routes, record, reason))),
            Err(Stop::LastRecipient) => {
                return Err(Box::new(own(record, reject::last_recipient())));
            }
        };
        let config = &record.route().config;
        let limit = if keeps_own { 0 } else { config.replay.body_bytes };
        let body = Outbound::new(body, version, limit, &routes.copies, &config.header);
        // RFC 9110 §7.8: an upgrade may have begun, so it is never sent twice.
        let body_again = if upgrade.is_none() { body.handle() } else { None };
        let (held, waited, looked) = (None, Duration::ZERO, Looked::default());
        let mut exchange = Box::new(Self {
            routes,
            now,
            record,
            outgoing,
            held,
            waited,
            keeps_own,
            body_again,
            sent_twice: false,
            looked,
            upgrade,
            spans: Spans::new(),
        });
        if !keeps_own && let Some(held) = exchange.present_token(now) {
            exchange.carry(held);
        }
        Ok((exchange, body))
    }

    fn route(&self) -> &Route {
        self.record.route()
    }

    fn present_token(&self, now: Moment) -> Option<Held> {
        let route = self.route();
        route.credential.bearer(now, &route.config.scheme)
    }

    /// Puts the token into the request.
    fn carry(&mut self, held: Held) {
        let header = &self.record.route().config.header;
        inject::inject(&mut self.outgoing.headers, header, held.value.clone());
        self.held = Some(held);
    }

    /// Connecting takes its time: an expired token is not sent, not even then.
    async fn judge_again(&mut self) -> Result<(), Reason> {
        let now = Moment::now();
        if self.held.as_ref().is_none_or(|held| !held.expires_at.reached(now)) {
            return Ok(());
        }
        let held = match self.present_token(now) {
            Some(held) => held,
            None => self.wait_for_token(now.mono).await?,
        };
        self.carry(held);
        Ok(())
    }

    /// A pooled connection, if the request can be sent now.
    pub(super) fn pooled(&self) -> Option<Lease> {
        let sendable = self.held.is_some() || self.keeps_own;
        let upstream = &self.route().upstream;
        let lease = sendable.then(|| upstream.pooled(&self.outgoing, self.now.mono)).flatten()?;
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
        let upstream = &self.route().upstream;
        upstream.connect(&self.outgoing, started).await.map_err(|error| reason(&error))
    }

    /// Puts the request on a connection.
    pub(super) fn start(&mut self, lease: Lease, body: Outbound) -> Call {
        if let Some(bound) = self.held.as_ref().and_then(|held| held.bound.as_ref()) {
            let upstream = &self.record.route().config.upstream;
            proof::add(bound, &mut self.outgoing, upstream);
            // The answer may bring a nonce for the next one.
            self.outgoing.answer_in_lines = false;
        }
        self.spans.begin(&mut self.outgoing, &self.record.route().config);
        lease.start(&self.outgoing, body)
    }

    /// Waits for what was missing, a token or a connection, and sends.
    pub(super) async fn send_when_possible(&mut self, body: Outbound) -> Answered {
        if self.held.is_none() && !self.keeps_own {
            let held = self.wait_for_token(self.now.mono).await?;
            self.carry(held);
        }
        self.send(body).await
    }

    /// The next token if it comes in what is left, from `from` on, of the time that it may take.
    async fn wait_for_token(&mut self, from: Instant) -> Result<Held, Reason> {
        let route = self.route();
        let deadline = from + route.config.wait.saturating_sub(self.waited);
        self.record.watchdog().request(deadline + WATCHDOG_SLACK, Duration::ZERO);
        let held = route.credential.newer_than(0, deadline, &route.config.scheme).await;
        let waited = monotonic() - from;
        route.credential_metrics.waited(waited);
        self.waited += waited;
        held.map_err(|unavailable| Reason::TokenUnavailable(unavailable.retry_after))
    }

    async fn send(&mut self, body: Outbound) -> Answered {
        let lease = self.lease().await?;
        self.send_on(lease, body).await
    }

    /// What it takes to send: a connection, pooled or new, and a token that is still good then.
    async fn lease(&mut self) -> Result<Lease, Reason> {
        let lease = match self.route().upstream.pooled(&self.outgoing, monotonic()) {
            Some(lease) => lease,
            None => self.connect().await?,
        };
        self.judge_again().await?;
        Ok(lease)
    }

    async fn send_on(&mut self, lease: Lease, body: Outbound) -> Answered {
        self.await_answer(monotonic());
        let call = self.start(lease, body);
        self.head(call).await
    }

    /// The response head. What cannot have reached the upstream is sent again; of what may have,
    /// only a request that is idempotent and has no body, once, and only when a pooled connection
    /// turned out to be closed (RFC 9110 §9.2.2, RFC 9112 §9.3.1).
    pub(super) async fn head(&mut self, call: Call) -> Answered {
        let answered = call.head(self.record.wire()).await;
        self.spans.end(&answered);
        let (mut head, mut call) = match answered {
            Ok(answered) => answered,
            Err(failed) => Box::pin(self.send_again(*failed)).await?,
        };
        if self.is_refused(&head) {
            call.read_lines(&mut head.headers).map_err(|_| Reason::UpstreamProtocol)?;
        }
        Ok((head, call))
    }

    /// The upstream may have refused our token.
    pub(super) fn is_refused(&self, head: &response::Parts) -> bool {
        self.held.is_some() && self.route().config.replay.concerns(head.status.as_u16())
    }

    pub(super) fn relay(
        mut self,
        mut head: response::Parts,
        mut call: Call,
    ) -> Response<Downstream> {
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch(head, call);
        }
        // RFC 8441 §4: to that caller every success would say that the WebSocket is open.
        if head.status.is_success()
            && self.upgrade.as_ref().is_some_and(|asked| asked.handshake.is_some())
        {
            return self.refuse(Reason::UpstreamProtocol);
        }
        if let Some(bound) = self.held.as_ref().and_then(|held| held.bound.as_ref()) {
            proof::remember(bound, &head.headers, &self.route().config.upstream);
        }
        if let Err(reason) = self.pass_on(&mut head.headers, &mut call) {
            return self.refuse(reason);
        }
        let config = &self.route().config;
        self.record.watchdog().response(self.now.mono, config.timeouts.idle);
        head.version = Version::HTTP_11;
        self.record.status(head.status.as_u16());
        call.leave_room(self.outgoing.headers);
        let (looked, relay) = (self.looked, Relay::new(call, self.record));
        Response::from_parts(head, Downstream::relayed(looked.frames, relay))
    }

    /// Makes the answer's fields, which are in a map or still lines, those of an answer of this hop.
    fn pass_on(&self, fields: &mut HeaderMap, call: &mut Call) -> Result<(), Reason> {
        if call.is_uploading() {
            // Then it is shared, and nobody sees its lines.
            call.read_lines(fields).map_err(|_| Reason::UpstreamProtocol)?;
        }
        // RFC 9110 §6.6.1: who passes an answer on and has a clock adds what is missing.
        if let Some(lines) = call.lines_mut() {
            lines.dated(reject::date);
            return Ok(());
        }
        hop::strip_response(fields, self.route().config.strip_cookies)?;
        if !fields.contains_key(DATE) {
            fields.insert(DATE, reject::date());
        }
        Ok(())
    }

    /// RFC 9110 §7.8: only to what was asked for.
    fn switch(mut self, mut head: response::Parts, call: Call) -> Response<Downstream> {
        let agreed =
            self.upgrade.take().filter(|asked| tunnel::agrees(&asked.protocols, &head.headers));
        let protocol = head.headers.get(header::UPGRADE).cloned();
        let stripped = hop::strip_response(&mut head.headers, self.route().config.strip_cookies);
        let (Some(upgrade), Some(protocol), Ok(())) = (agreed, protocol, stripped) else {
            return self.refuse(Reason::UpstreamProtocol);
        };
        let Some((stream, first)) = call.into_upgraded() else {
            return self.refuse(Reason::UpstreamProtocol);
        };
        if let Some(handshake) = &upgrade.handshake {
            if !handshake.agrees(&mut head) {
                return self.refuse(Reason::UpstreamProtocol);
            }
        } else {
            head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            head.headers.insert(header::UPGRADE, protocol);
        }
        head.version = Version::HTTP_11;
        self.record.status(head.status.as_u16());
        let wire = Arc::clone(self.record.wire());
        wire.leave(Tunnel::new(upgrade.caller, stream, first, self.record));
        Response::from_parts(head, Downstream::Own { text: None, record: None })
    }

    pub(super) fn refuse(self, reason: Reason) -> Response<Downstream> {
        refuse(&self.routes, self.record, reason)
    }
}

/// What the caller is told; the log is told all.
fn reason(error: &UpstreamError) -> Reason {
    let reason = match error {
        UpstreamError::Timeout | UpstreamError::Unreachable(DialError::Timeout) => {
            Reason::UpstreamTimeout
        }
        UpstreamError::Unreachable(_) => Reason::UpstreamUnreachable,
        UpstreamError::Full => Reason::Overloaded,
        UpstreamError::Shared(error) => return reason(error),
        // The caller's body broke off, or its chunks are none (RFC 9112 §7.1).
        UpstreamError::Caller(_) | UpstreamError::CallerLength => return Reason::BadRequest,
        UpstreamError::CallerTimeout => return Reason::BodyTimeout,
        UpstreamError::Broken(_) | UpstreamError::Malformed(_) | UpstreamError::Http2(_) => {
            Reason::UpstreamProtocol
        }
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

/// Refuses a request that has no route.
pub(super) fn turn_away(routes: &Routes, reason: Reason) -> Response<Downstream> {
    let own = |text| Downstream::Own { text: Some(text), record: None };
    refusal(routes, reason).map(own)
}

fn refuse(routes: &Routes, record: Record, reason: Reason) -> Response<Downstream> {
    own(record, refusal(routes, reason))
}

fn own(mut record: Record, response: Response<Bytes>) -> Response<Downstream> {
    record.status(response.status().as_u16());
    response.map(|text| Downstream::Own { text: Some(text), record: Some(record) })
}

//! A client span for each sending of a request, by OpenTelemetry's conventions for HTTP: the replay is
//! a second one, with `http.request.resend_count`.
//!
//! The caller's context is their parent, and the upstream sees the span of its own sending. A trace
//! that the caller does not sample passes untouched.

use http::{HeaderValue, Method, response};
use opentelemetry::global::{self, BoxedSpan};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Span, SpanKind, Status, Tracer};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;

use crate::config::{RouteConfig, UpstreamConfig};
use crate::dial::Address;
use crate::proxy::upstream::{Failed, Outgoing, UpstreamError};

const TRACEPARENT: &str = "traceparent";

/// The spans of one request; one that is not ended ends when this is dropped.
pub(super) struct Spans {
    caller: Option<Context>,
    current: Option<BoxedSpan>,
    sent: i64,
}

impl Spans {
    /// None yet.
    pub(super) fn new() -> Self {
        Self { caller: None, current: None, sent: 0 }
    }

    /// The request is about to be sent, for the first time or again.
    pub(super) fn begin(&mut self, outgoing: &mut Outgoing, route: &RouteConfig) {
        let propagator = TraceContextPropagator::new();
        let extract = || {
            let fields = HeaderExtractor(&outgoing.headers);
            propagator.extract_with_context(&Context::new(), &fields)
        };
        let caller = self.caller.get_or_insert_with(extract);
        let tracer = global::tracer("bearerd");
        let mut attributes = attributes(outgoing, route);
        if self.sent > 0 {
            attributes.push(KeyValue::new("http.request.resend_count", self.sent));
        }
        self.sent += 1;
        let span = tracer
            .span_builder(name(&outgoing.method).to_owned())
            .with_kind(SpanKind::Client)
            .with_attributes(attributes)
            .start_with_context(&tracer, caller);
        let context = span.span_context();
        if !context.is_sampled() {
            return;
        }
        // W3C Trace Context §3.2; what others keep in tracestate stays as it is.
        let parent = format!("00-{}-{}-01", context.trace_id(), context.span_id());
        if let Ok(parent) = HeaderValue::from_str(&parent) {
            outgoing.headers.insert(TRACEPARENT, parent);
        }
        self.current = Some(span);
    }

    /// The response head is there, or will not come.
    pub(super) fn end<T>(&mut self, answered: &Result<(response::Parts, T), Box<Failed>>) {
        let Some(mut span) = self.current.take() else { return };
        let error = match answered {
            Ok((head, _)) => {
                let status = i64::from(head.status.as_u16());
                span.set_attribute(KeyValue::new("http.response.status_code", status));
                (head.status.as_u16() >= 400).then(|| status.to_string())
            }
            Err(failed) => Some(class(&failed.error).to_owned()),
        };
        if let Some(error) = error {
            span.set_attribute(KeyValue::new("error.type", error));
            span.set_status(Status::error(""));
        }
        span.end();
    }
}

/// From a closed set, since names and methods are counted by who collects spans.
fn name(method: &Method) -> &str {
    let known = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::OPTIONS,
        Method::PATCH,
    ];
    if known.contains(method) { method.as_str() } else { "HTTP" }
}

fn attributes(outgoing: &Outgoing, route: &RouteConfig) -> Vec<KeyValue> {
    let UpstreamConfig { address, authority, tls, .. } = &route.upstream;
    let method = match name(&outgoing.method) {
        "HTTP" => "_OTHER",
        known => known,
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    // Without the query: there may be a secret in it.
    let url = format!("{scheme}://{authority}{}", outgoing.target.path());
    let mut attributes = vec![
        KeyValue::new("http.request.method", method.to_owned()),
        KeyValue::new("url.full", url),
        KeyValue::new("bearerd.route", route.name.clone()),
    ];
    match address {
        Address::Tcp(host, port) => {
            attributes.push(KeyValue::new("server.address", host.clone()));
            attributes.push(KeyValue::new("server.port", i64::from(*port)));
        }
        Address::Unix(path) => {
            attributes.push(KeyValue::new("server.address", path.display().to_string()));
        }
    }
    attributes
}

/// What kind of failure it was, without anything that comes from outside.
fn class(error: &UpstreamError) -> &'static str {
    match error {
        UpstreamError::Unreachable(_) => "unreachable",
        UpstreamError::Timeout => "timeout",
        UpstreamError::Broken(_) | UpstreamError::Http2(_) => "broken",
        UpstreamError::Malformed(_) => "malformed",
        UpstreamError::Full => "overloaded",
        UpstreamError::Shared(error) => class(error),
        UpstreamError::Caller(_) | UpstreamError::CallerLength | UpstreamError::CallerTimeout => {
            "caller"
        }
    }
}

//! Health and metrics, without TLS, for the kubelet and for Prometheus.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;

use crate::metrics::Metrics;
use crate::version::Version;

/// What is told.
pub struct Admin {
    /// Set once it is known: until then no review can be answered.
    pub version: Arc<OnceLock<Version>>,
    /// Set at a stop: the API server should ask another replica.
    pub stopping: Arc<AtomicBool>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Admin {
    /// Answers one request.
    #[must_use]
    pub fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return reply(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET\n");
        }
        match request.uri().path() {
            "/readyz" if self.stopping.load(Ordering::Relaxed) => unavailable("stopping\n"),
            "/readyz" if self.version.get().is_none() => {
                unavailable("the cluster's version is not known yet\n")
            }
            "/livez" | "/readyz" => reply(StatusCode::OK, "text/plain", "ok\n"),
            "/metrics" => reply(StatusCode::OK, "text/plain; version=0.0.4", self.metrics.render()),
            _ => reply(StatusCode::NOT_FOUND, "text/plain", "no such page\n"),
        }
    }
}

fn unavailable(why: &'static str) -> Response<Full<Bytes>> {
    reply(StatusCode::SERVICE_UNAVAILABLE, "text/plain", why)
}

fn reply(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

//! What the API server asks: `POST /inject` with a review, one answer, in bounded time and size.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bearerd::clock::monotonic;
use bearerd::telemetry::chain;
use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::decision::{Decision, Defaults, decide};
use crate::metrics::{Metrics, Outcome};
use crate::review;
use crate::version::Version;

/// The path that the webhook's configuration names.
pub const PATH: &str = "/inject";
/// The largest review that is read, in bytes: the API server takes no request above 3 MiB, and a
/// review wraps one.
const MAX_REVIEW: usize = 4 << 20;
/// From a request's head to the end of its body.
const BODY_TIME: Duration = Duration::from_secs(5);

/// What answers are made from.
pub struct Webhook {
    defaults: Defaults,
    version: Arc<OnceLock<Version>>,
    metrics: Arc<Metrics>,
    stopping: Arc<AtomicBool>,
}

/// Why there is no review to decide about.
struct Unanswerable(StatusCode, &'static str);

impl Webhook {
    /// Answers with `defaults`, once the cluster's version is known. While it is `stopping`, each answer
    /// is its connection's last.
    #[must_use]
    pub fn new(
        defaults: Defaults,
        version: Arc<OnceLock<Version>>,
        metrics: Arc<Metrics>,
        stopping: Arc<AtomicBool>,
    ) -> Self {
        Self { defaults, version, metrics, stopping }
    }

    /// Answers one request.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let started = monotonic();
        let (outcome, mut response) = match self.review(request).await {
            Ok((outcome, answer)) => (outcome, reply(StatusCode::OK, "application/json", answer)),
            Err(Unanswerable(status, why)) => {
                tracing::warn!(status = status.as_u16(), reason = why, "no review");
                let not_ready = status == StatusCode::SERVICE_UNAVAILABLE;
                let outcome = if not_ready { Outcome::NotReady } else { Outcome::Unreadable };
                (outcome, reply(status, "text/plain", format!("{why}\n")))
            }
        };
        self.metrics.reviewed(outcome, monotonic() - started);
        if self.stopping.load(Ordering::Relaxed) {
            // RFC 9112 §9.6. An API server that is not told sends the next review into the connection's
            // end, and does not send it again.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn review(&self, request: Request<Incoming>) -> Result<(Outcome, String), Unanswerable> {
        check(&request)?;
        let version = self.version.get();
        let version = *version.ok_or(Unanswerable(
            StatusCode::SERVICE_UNAVAILABLE,
            "the cluster's version is not known yet",
        ))?;
        let body = timeout(BODY_TIME, Limited::new(request.into_body(), MAX_REVIEW).collect());
        let body = body.await.map_err(|_| {
            Unanswerable(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")
        })?;
        let body = body.map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                Unanswerable(StatusCode::PAYLOAD_TOO_LARGE, "a review has at most 4 MiB")
            } else {
                Unanswerable(StatusCode::BAD_REQUEST, "the body broke off")
            }
        })?;
        let review = review::Request::read(&body.to_bytes()).map_err(|error| {
            tracing::debug!(error = chain(&error), "unreadable");
            Unanswerable(
                StatusCode::BAD_REQUEST,
                "not an AdmissionReview of admission.k8s.io/v1 or v1beta1 with a request",
            )
        })?;
        let decision = decide(&review, &self.defaults, version);
        let outcome = match &decision {
            Decision::Unchanged => Outcome::Unchanged,
            Decision::Injected { .. } => {
                tracing::info!(namespace = review.namespace, "injected");
                Outcome::Injected
            }
            Decision::Refused(why) => {
                tracing::warn!(namespace = review.namespace, reason = why, "refused");
                Outcome::Refused
            }
        };
        Ok((outcome, review.answer(&decision).to_string()))
    }
}

fn check(request: &Request<Incoming>) -> Result<(), Unanswerable> {
    if request.uri().path() != PATH {
        return Err(Unanswerable(StatusCode::NOT_FOUND, "reviews go to /inject"));
    }
    if request.method() != Method::POST {
        return Err(Unanswerable(StatusCode::METHOD_NOT_ALLOWED, "reviews come by POST"));
    }
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.map(|kind| kind.split(';').next().unwrap_or_default().trim());
    if kind.is_none_or(|kind| !kind.eq_ignore_ascii_case("application/json")) {
        return Err(Unanswerable(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "reviews are application/json",
        ));
    }
    Ok(())
}

fn reply(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

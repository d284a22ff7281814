//! Health, metrics and status, on a listener of its own. Everything here is free of secrets, and
//! read-only but for the opt-in end of the process in [`quit`].

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::clock::Moment;
use crate::credential::Credential;
use crate::metrics::Metrics;
use crate::proxy::route::Routes;

mod quit;
mod status;

use quit::Caller;

/// Open connections; a scraper and a few probes need a handful.
const MAX_CONNECTIONS: usize = 64;
/// For receiving a request head, and between two requests.
const HEAD_TIME: Duration = Duration::from_secs(30);

/// What runs now.
pub struct Snapshot {
    /// Every credential, in the order of the configuration.
    pub credentials: Vec<Credential>,
    /// Every route.
    pub routes: Arc<Routes>,
    /// Whether `POST /quitquitquit` ends the process.
    pub quit_endpoint: bool,
}

/// Serves `listener` for ever, and tells `quit` when somebody has rightly asked for the end.
pub async fn serve(
    listener: TcpListener,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    metrics: Arc<Metrics>,
    quit: Arc<Notify>,
) {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the admin listener");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let (snapshot, metrics) = (snapshot.clone(), Arc::clone(&metrics));
        let (caller, quit) = (Caller::new(peer), Arc::clone(&quit));
        let asking = caller.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let current = Arc::clone(&snapshot.borrow());
            let response = if current.quit_endpoint && request.uri().path() == quit::PATH {
                asking.answer(&request)
            } else {
                answer(&request, &current, &metrics)
            };
            async move { Ok::<_, Infallible>(response) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .serve_connection(TokioIo::new(stream), service);
        connections.spawn(async move {
            let _ = connection.await;
            // Not before: the answer would be lost with the process.
            if caller.asked() {
                quit.notify_one();
            }
        });
    }
}

fn answer(
    request: &Request<Incoming>,
    snapshot: &Snapshot,
    metrics: &Metrics,
) -> Response<Full<Bytes>> {
    const JSON: &str = "application/json";
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = reply(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let now = Moment::now();
    match request.uri().path() {
        "/livez" => reply(StatusCode::OK, "text/plain", "ok\n"),
        "/startupz" => probe(&status::without_first_token(snapshot)),
        "/readyz" => probe(&status::without_usable_token(snapshot, now)),
        "/metrics" => reply(StatusCode::OK, "text/plain; version=0.0.4", metrics.render()),
        "/status" => reply(StatusCode::OK, JSON, status::json(snapshot, now)),
        "/" => reply(StatusCode::OK, "text/html; charset=utf-8", status::page(snapshot, now)),
        _ => reply(StatusCode::NOT_FOUND, "text/plain", "no such page\n"),
    }
}

/// 200, or 503 and the credentials that it is about.
fn probe(missing: &[&str]) -> Response<Full<Bytes>> {
    let (status, word) = if missing.is_empty() {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "waiting")
    };
    let body = serde_json::json!({ "status": word, "credentials": missing });
    reply(status, "application/json", format!("{body}\n"))
}

fn reply(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

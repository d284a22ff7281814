//! Hands the tokens in force to other programs of the same user (`bearerd token`), over a unix socket
//! and never over a network. Whoever asks only looks, as a request does: nothing is fetched for him.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use crate::clock::monotonic;
use crate::credential::directory::{Directory, NotLent};

/// Where the token of a credential is: the name follows.
pub const PATH: &str = "/token/";
/// How long whoever asks waits for a token, as a request does by default.
pub const WAIT: Duration = Duration::from_secs(5);
/// Open connections; scripts need one each, for a moment.
const MAX_CONNECTIONS: usize = 64;
/// For receiving a request head.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// Serves `listener` for ever: this process's own user, and those in `uids`.
pub async fn serve(listener: UnixListener, credentials: Directory, uids: Vec<u32>) {
    let own = rustix::process::geteuid().as_raw();
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the token socket");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let peer = stream.peer_cred().map(|peer| peer.uid());
        if peer.as_ref().is_ok_and(|uid| *uid == own || uids.contains(uid)) {
            connections.spawn(connection(stream, credentials.clone()));
        } else {
            let uid = peer.ok();
            tracing::warn!(uid, "a user who is not in token_socket_uids was turned away");
        }
    }
}

async fn connection(stream: UnixStream, credentials: Directory) {
    let service = service_fn(|request: Request<Incoming>| {
        let credentials = credentials.clone();
        async move { Ok::<_, Infallible>(answer(&request, &credentials).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .serve_connection(TokioIo::new(stream), service);
    let _ = connection.await;
}

async fn answer<B>(request: &Request<B>, credentials: &Directory) -> Response<Full<Bytes>> {
    let Some(name) = request.uri().path().strip_prefix(PATH) else {
        return reply(StatusCode::NOT_FOUND, "no such page");
    };
    if request.method() != Method::GET {
        return reply(StatusCode::METHOD_NOT_ALLOWED, "only GET");
    }
    match credentials.lend(name, monotonic() + WAIT).await {
        Ok(token) => reply(StatusCode::OK, token.expose().to_owned()),
        Err(error @ NotLent::Unknown) => reply(StatusCode::NOT_FOUND, error.to_string()),
        Err(error @ NotLent::Bound) => reply(StatusCode::CONFLICT, error.to_string()),
        Err(error @ NotLent::Unavailable(after)) => {
            let mut response = reply(StatusCode::SERVICE_UNAVAILABLE, error.to_string());
            response.headers_mut().insert(RETRY_AFTER, after.as_secs().into());
            response
        }
    }
}

fn reply(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

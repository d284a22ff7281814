//! `bearerd healthcheck`: a GET to a running daemon, for images that have no shell and no curl.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// A probe that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(2);
/// Between two attempts of one that waits.
const PAUSE: Duration = Duration::from_millis(100);

/// Exit code 0 if the daemon at `admin` says that it lives, or with `ready` that it is ready, at
/// once or within `wait`.
pub(super) fn run(admin: SocketAddr, ready: bool, wait: Duration) -> ExitCode {
    let path = if ready { "/readyz" } else { "/livez" };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let well = runtime.is_ok_and(|runtime| runtime.block_on(well(admin, path, wait)));
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn well(admin: SocketAddr, path: &str, wait: Duration) -> bool {
    let once = async || matches!(timeout(DEADLINE, ask(admin, path)).await, Ok(Ok(true)));
    let again = async || {
        while !once().await {
            sleep(PAUSE).await;
        }
    };
    once().await || timeout(wait, again()).await.is_ok()
}

async fn ask(admin: SocketAddr, path: &str) -> Result<bool, Box<dyn std::error::Error>> {
    let stream = TcpStream::connect(admin).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header(http::header::HOST, admin.to_string())
        .body(Empty::<Bytes>::new())?;
    tokio::select! {
        response = sender.send_request(request) => Ok(response?.status().is_success()),
        ended = connection => ended.map(|()| false).map_err(Into::into),
    }
}

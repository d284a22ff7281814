//! `bearerd healthcheck`: one GET to a running daemon, for images that have no shell and no curl.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A probe that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(2);

/// Exit code 0 if the daemon at `admin` says that it lives, or with `ready` that it is ready.
pub(super) fn run(admin: SocketAddr, ready: bool) -> ExitCode {
    let path = if ready { "/readyz" } else { "/livez" };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let asked = runtime
        .map(|runtime| runtime.block_on(async { timeout(DEADLINE, ask(admin, path)).await }));
    match asked {
        Ok(Ok(Ok(true))) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
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

//! Upstreams by name: looked up again, looked up once for many, and reached by whichever address
//! answers. A library that stands between bearerd and the system's resolver (`names.c`) says which
//! addresses the name has.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::stage::{Stage, route_to, together};
use crate::support::{Daemon, eventually, read, request};

fn library() -> &'static Path {
    static LIBRARY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = LIBRARY.get_or_init(|| {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("names.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration/names.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&path).arg(source);
        assert!(compiler.arg("-ldl").status().expect("a C compiler").success());
        (directory, path)
    });
    path
}

/// Servers on one port of several loopback addresses, each of which tells its own.
async fn servers(addresses: &[&str]) -> u16 {
    // The first one's port may be in use on another.
    'ports: loop {
        let mut listeners: Vec<TcpListener> = Vec::new();
        for address in addresses {
            let port =
                listeners.first().map_or(0, |first| first.local_addr().expect("bound").port());
            match TcpListener::bind((*address, port)).await {
                Ok(listener) => listeners.push(listener),
                Err(error) if port != 0 => {
                    eprintln!("{address}:{port}: {error}");
                    continue 'ports;
                }
                Err(error) => panic!("{address}: {error}"),
            }
        }
        let port = listeners[0].local_addr().expect("bound").port();
        for listener in listeners {
            tokio::spawn(serve(listener));
        }
        return port;
    }
}

async fn serve(listener: TcpListener) {
    let name = listener.local_addr().expect("bound").ip().to_string();
    while let Ok((stream, _)) = listener.accept().await {
        let name = name.clone();
        let service = hyper::service::service_fn(move |_| {
            let answer =
                http::Response::new(http_body_util::Full::<bytes::Bytes>::from(name.clone()));
            async { Ok::<_, std::convert::Infallible>(answer) }
        });
        tokio::spawn(
            hyper::server::conn::http1::Builder::new()
                .serve_connection(hyper_util::rt::TokioIo::new(stream), service),
        );
    }
}

/// A daemon whose upstream is `api.test` at `port`.
async fn start(stage: &Stage, port: u16, route: &str) -> Daemon {
    let path = |name: &str| stage.home.path(name).display().to_string();
    let server = "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n";
    let more = format!("allow_plaintext = true\n{route}");
    let route = route_to(&format!("http://api.test:{port}"), &more);
    let config = format!("{server}{}{route}", stage.credential(""));
    let environment = [
        ("LD_PRELOAD", library().to_str().expect("UTF-8")),
        ("NAMES_FILE", &path("names")),
        ("NAMES_LOG", &path("lookups")),
    ];
    let daemon = Daemon::start_in(&stage.home, &config, &environment);
    daemon.ready().await;
    daemon
}

fn lookups(stage: &Stage) -> usize {
    read(stage.home.path("lookups")).len()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_connections_at_once_share_one_lookup() {
    let stage = Stage::new();
    let port = servers(&["127.0.0.2"]).await;
    stage.home.write("names", "127.0.0.2\n");
    let daemon = start(&stage, port, "").await;
    let proxy = daemon.proxy;
    let answers =
        together(512, |_| async move { request(proxy, "GET", "/", &[], b"").await }).await;
    assert!(answers.iter().all(|answer| answer.text() == "127.0.0.2"));
    // More than one only if this machine is too slow to ask within one lookup's time.
    assert!(lookups(&stage) < 32, "{} lookups", lookups(&stage));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_looked_up_again_when_its_connection_is_old() {
    let stage = Stage::new();
    let port = servers(&["127.0.0.2", "127.0.0.3"]).await;
    stage.home.write("names", "127.0.0.2\n");
    let daemon = start(&stage, port, "pool = { max_age_seconds = 1 }").await;
    assert_eq!(daemon.get("/").await.text(), "127.0.0.2");
    stage.home.write("names", "127.0.0.3\n");
    // The old address is still served, and its connection still open.
    eventually("the new address", async || daemon.get("/").await.text() == "127.0.0.3").await;
    stage.home.write("names", "");
    eventually("the name is gone", async || daemon.get("/").await.status == 502).await;
    stage.home.write("names", "127.0.0.2\n");
    eventually("the name is back", async || daemon.get("/").await.text() == "127.0.0.2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_refuses_or_is_silent_does_not_keep_the_others_from_answering() {
    let stage = Stage::new();
    let port = servers(&["127.0.0.2"]).await;
    let silent = silent(SocketAddr::from(([127, 0, 0, 4], port))).await;
    for names in [
        "127.0.0.3\n127.0.0.2\n",
        "::1\n127.0.0.2\n",
        "127.0.0.4\n127.0.0.2\n",
        "::1\n127.0.0.3\n127.0.0.4\n127.0.0.2\n",
    ] {
        stage.home.write("names", names);
        let daemon = start(&stage, port, "").await;
        assert_eq!(daemon.get("/").await.text(), "127.0.0.2", "{names}");
    }
    stage.home.write("names", "127.0.0.4\n");
    let daemon = start(&stage, port, "timeouts = { connect_ms = 1000 }").await;
    let answer = daemon.get("/").await;
    assert_eq!((answer.status, answer.header("bearerd-reason")), (504, Some("upstream_timeout")));
    drop(silent);
}

/// A listener that answers nobody any more: its queue is full.
async fn silent(address: SocketAddr) -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(address).expect("a free address");
    let listener = socket.listen(1).expect("it listens");
    let mut waiting = Vec::new();
    while let Ok(connected) =
        timeout(std::time::Duration::from_secs(1), TcpStream::connect(address)).await
    {
        waiting.push(connected.expect("a place in the queue"));
        assert!(waiting.len() < 100, "the queue is never full");
    }
    (listener, waiting)
}

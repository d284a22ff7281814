//! WebSocket from callers of HTTP/2 (RFC 8441): busy, idle, and at the end of the process.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::ext::Protocol;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::by_hand::{ByHand, Peer};
use crate::stage::{Stage, route_to};
use crate::support::{DEADLINE, Daemon, eventually};

/// RFC 6455 §4.2.2.
fn accept(head: &str) -> String {
    use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: "));
    let text = key.expect("a key").to_owned() + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    BASE64_STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

/// Opens a WebSocket through `daemon` to `upstream`, which says `first` at once.
async fn open(daemon: &Daemon, upstream: &ByHand) -> (TokioIo<Upgraded>, Peer) {
    let io = TokioIo::new(TcpStream::connect(daemon.proxy).await.expect("a connection"));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
    tokio::spawn(connection);
    let request = |method: &str, path: &str| {
        let uri = format!("http://localhost{path}");
        Request::builder().method(method).uri(uri).body(Empty::<Bytes>::new()).expect("a request")
    };
    // The first answer brings the settings, without which no caller may ask for this.
    let refused = sender.send_request(request("TRACE", "/")).await.expect("an answer");
    assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
    let mut connect = request("CONNECT", "/chat");
    connect.extensions_mut().insert(Protocol::from_static("websocket"));
    let switching = async {
        let mut peer = upstream.accept().await;
        let head = peer.head().await;
        assert!(head.starts_with("GET /chat HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("\r\nupgrade: websocket\r\n"), "{head}");
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\nfirst",
            accept(&head)
        );
        peer.send(answer.as_bytes()).await;
        peer
    };
    let (answer, peer) = tokio::join!(sender.send_request(connect), switching);
    let answer = answer.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    let tunnel = hyper::upgrade::on(answer).await.expect("open");
    let mut tunnel = TokioIo::new(tunnel);
    expect(&mut tunnel, "first").await;
    (tunnel, peer)
}

async fn expect(tunnel: &mut TokioIo<Upgraded>, text: &str) {
    let mut came = vec![0; text.len()];
    timeout(DEADLINE, tunnel.read_exact(&mut came)).await.expect("in time").expect("open");
    assert_eq!(String::from_utf8_lossy(&came), text);
}

/// One whose messages go `up`, `down` or both, for three times as long as it may be idle.
async fn is_busy_and_then_idle(up: bool, down: bool) {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, "timeouts = { idle_ms = 3000 }").await;
    let (mut tunnel, mut peer) = open(&daemon, &upstream).await;
    for number in 10..55 {
        let text = format!("message {number}");
        if up {
            tunnel.write_all(text.as_bytes()).await.expect("open");
            assert_eq!(peer.until(&text).await, text);
        }
        if down {
            peer.send(text.as_bytes()).await;
            expect(&mut tunnel, &text).await;
        }
        sleep(Duration::from_millis(200)).await;
    }
    let mut rest = Vec::new();
    let _ended = timeout(DEADLINE, tunnel.read_to_end(&mut rest)).await.expect("idle");
    assert_eq!((rest.len(), peer.rest().await), (0, String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_over_http_2_is_idle_only_if_nothing_moves() {
    tokio::join!(
        is_busy_and_then_idle(true, true),
        is_busy_and_then_idle(true, false),
        is_busy_and_then_idle(false, true),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_over_http_2_goes_on_while_draining_and_ends_at_the_deadline() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let server = "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n\
                  shutdown_grace_seconds = 2\n";
    let route = route_to(&format!("http://{}", upstream.address), "");
    let mut daemon =
        Daemon::start_with(&stage.home, &format!("{server}{}{route}", stage.credential("")));
    daemon.ready().await;
    let (mut tunnel, mut peer) = open(&daemon, &upstream).await;

    daemon.signal("TERM");
    eventually("draining", async || TcpStream::connect(daemon.proxy).await.is_err()).await;
    tunnel.write_all(b"still here").await.expect("open");
    assert_eq!(peer.until("still here").await, "still here");
    let mut rest = Vec::new();
    let _broken_off = timeout(DEADLINE, tunnel.read_to_end(&mut rest)).await.expect("in time");
    assert!(rest.is_empty());
    assert_eq!(peer.rest().await, "");
    assert!(daemon.exit().success());
}

//! WebSocket from callers of HTTP/2 (RFC 8441), at the end of the process.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::by_hand::ByHand;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_over_http_2_goes_on_while_draining_and_ends_at_the_deadline() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let server = "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n\
                  shutdown_grace_seconds = 2\n";
    let route = route_to(&format!("http://{}", upstream.address), "");
    let mut daemon =
        Daemon::start_with(&stage.home, &format!("{server}{}{route}", stage.credential("")));
    daemon.ready().await;
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
    let (answer, mut peer) = tokio::join!(sender.send_request(connect), switching);
    let answer = answer.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    let tunnel = hyper::upgrade::on(answer).await.expect("open");
    let mut tunnel = TokioIo::new(tunnel);
    let mut came = [0; 5];
    timeout(DEADLINE, tunnel.read_exact(&mut came)).await.expect("in time").expect("open");
    assert_eq!(&came, b"first");

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

//! Upstreams that answer while the body is still going up: the answer passes, and what is left of
//! the body is nobody's request.

use emulator::client::Client;
use tokio::time::timeout;

use crate::by_hand::{ByHand, Peer};
use crate::stage::Stage;
use crate::support::{DEADLINE, Daemon, request};

const TOO_LARGE: &str = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n";
/// Looks like a request where it is read as one.
const BODY: &str = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A caller whose body has not come but for its beginning, and the upstream that got that.
async fn half_way(upstream: &ByHand, daemon: &Daemon) -> (Client, Peer) {
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    let head = "POST /large HTTP/1.1\r\nHost: localhost\r\n";
    let length = BODY.len() * 1000;
    let start = format!("{head}Content-Length: {length}\r\n\r\n{BODY}");
    caller.send(start.as_bytes()).await.expect("sent");
    let mut peer = upstream.accept().await;
    peer.head().await;
    peer.until(BODY).await;
    (caller, peer)
}

async fn assert_413(caller: &mut Client) {
    let answer = timeout(DEADLINE, caller.answer()).await.expect("before the body has come");
    let answer = answer.expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (413, "much"));
    assert_eq!(answer.header("bearerd-reason"), None);
}

/// Sends the rest; whatever comes back is no answer to a part of a body.
async fn assert_rest_is_no_request(mut caller: Client, upstream: &ByHand, daemon: &Daemon) {
    let _closed = caller.send(BODY.repeat(999).as_bytes()).await;
    // Once this has been answered, all that came before it on other connections has been seen.
    let proxy = daemon.proxy;
    let after = async { request(proxy, "GET", "/after", &[], b"").await };
    let serving = async {
        let mut peer = upstream.accept().await;
        let head = peer.head().await;
        assert!(head.starts_with("GET /after "), "{head}");
        peer.ok("after").await;
        peer
    };
    let (answer, _peer) = tokio::join!(after, serving);
    assert_eq!(answer.text(), "after");
    let rest = timeout(DEADLINE, caller.rest()).await.expect("closed in time").unwrap_or_default();
    assert_eq!(String::from_utf8_lossy(&rest), "");
    assert!(!upstream.is_called().await, "a part of a body was taken for a request");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_passes_when_the_upstream_reads_no_more() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, "").await;
    let (mut caller, mut peer) = half_way(&upstream, &daemon).await;
    peer.send(format!("{TOO_LARGE}Connection: close\r\n\r\nmuch").as_bytes()).await;
    peer.finish().await;
    assert_413(&mut caller).await;
    drop(peer);
    assert_rest_is_no_request(caller, &upstream, &daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_passes_when_the_upstream_goes_on_reading() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, "").await;
    let (mut caller, mut peer) = half_way(&upstream, &daemon).await;
    peer.send(format!("{TOO_LARGE}\r\nmuch").as_bytes()).await;
    assert_413(&mut caller).await;
    let reading = tokio::spawn(async move { peer.rest().await });
    assert_rest_is_no_request(caller, &upstream, &daemon).await;
    // What it read was a part of the body, and the connection took nothing after that.
    let read = reading.await.expect("read to the end");
    assert!(BODY.repeat(999).starts_with(&read), "{read:.200}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_that_goes_on_lets_the_body_go_on() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, "").await;
    let (mut caller, mut peer) = half_way(&upstream, &daemon).await;
    peer.send(format!("{TOO_LARGE}\r\nmu").as_bytes()).await;
    let head = timeout(DEADLINE, caller.until("\r\n\r\nmu")).await.expect("in time");
    assert!(head.expect("a head").starts_with("HTTP/1.1 413 "));
    caller.send(BODY.repeat(999).as_bytes()).await.expect("sent");
    for _ in 0..999 {
        peer.until(BODY).await;
    }
    peer.send(b"ch").await;
    caller.until("ch").await.expect("the whole answer");
    // Both are whole: both connections take the next request.
    let next = b"GET /next HTTP/1.1\r\nHost: localhost\r\n\r\n";
    caller.send(next).await.expect("sent");
    assert!(peer.head().await.starts_with("GET /next "));
    peer.ok("next").await;
    assert_eq!(caller.answer().await.expect("an answer").text(), "next");
}

/// The body that nobody wants ends with the request, also where a copy of it is kept.
#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_to_a_chunked_body_passes() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, "").await;
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    let head = "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    caller.send(format!("{head}4\r\npart\r\n").as_bytes()).await.expect("sent");
    let mut peer = upstream.accept().await;
    peer.head().await;
    peer.until("part").await;
    peer.send(format!("{TOO_LARGE}\r\nmuch").as_bytes()).await;
    assert_413(&mut caller).await;
    assert!(!peer.rest().await.ends_with("0\r\n\r\n"), "a part of a body looks whole");
}

/// A server that closes with a body unread resets: its answer was sent before that.
#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_passes_also_when_a_reset_follows_it() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, "").await;
    for _ in 0..20 {
        let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
        let head = "POST /large HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n";
        let sending = [head.as_bytes(), "x".repeat(500_000).as_bytes()].concat();
        let (sent, mut peer) = tokio::join!(caller.send(&sending), async {
            let mut peer = upstream.accept().await;
            peer.head().await;
            peer
        });
        sent.expect("sent");
        peer.send(format!("{TOO_LARGE}Connection: close\r\n\r\nmuch").as_bytes()).await;
        drop(peer);
        assert_413(&mut caller).await;
    }
}

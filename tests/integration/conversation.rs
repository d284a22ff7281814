//! HTTP/1 with one caller: what becomes of the connection after each answer (RFC 9112 §9).

use emulator::Reply;
use emulator::client::Client;
use tokio::time::timeout;

use crate::by_hand::ByHand;
use crate::stage::Stage;
use crate::support::{DEADLINE, Daemon};

async fn connect(daemon: &Daemon) -> Client {
    Client::connect(daemon.proxy).await.expect("a connection")
}

/// True if the connection has ended, and nothing more was said on it.
async fn has_ended(caller: &mut Client) -> bool {
    timeout(DEADLINE, caller.rest()).await.expect("ended in time").expect("cleanly").is_empty()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wants_the_connection_closed_is_told_so_and_it_is() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let mut caller = connect(&daemon).await;
    let answer = caller.request("GET", "/", &[("Connection", "x-y, Close")], b"").await.unwrap();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert!(has_ended(&mut caller).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_of_http_1_0_goes_on_where_it_asks_to_and_the_answer_has_a_length() {
    let stage = Stage::new();
    stage.api.serve("/chunks", Reply::pattern(50_000).header("Trailer", "X").trailer("X", "1"));
    let daemon = stage.ready("").await;
    let mut caller = connect(&daemon).await;
    let ask = |target: &str| {
        format!("GET {target} HTTP/1.0\r\nHost: localhost\r\nConnection: Keep-Alive\r\n\r\n")
    };
    for _ in 0..2 {
        caller.send(ask("/").as_bytes()).await.unwrap();
        let answer = caller.answer().await.unwrap();
        assert_eq!((answer.status, answer.header("connection")), (200, Some("keep-alive")));
    }
    // Nobody knows how long that is, and it does not know chunks: it lasts until the connection ends.
    caller.send(ask("/chunks").as_bytes()).await.unwrap();
    let head = caller.until("\r\n\r\n").await.unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.0 200 ok\r\n"), "{head}");
    for field in ["connection:", "content-length:", "transfer-encoding:"] {
        assert!(!head.contains(field), "{head}");
    }
    assert_eq!(caller.rest().await.unwrap().len(), 50_000);
}

/// What was sent behind the last request is read and forgotten, or closing would take the answer away.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_answer_reaches_who_has_sent_more_already() {
    let stage = Stage::new();
    stage.api.serve("/large", Reply::pattern(500_000));
    let daemon = stage.ready("").await;
    let mut caller = connect(&daemon).await;
    let last = b"GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let more = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n";
    caller.send(&[&last[..], more, &vec![b'x'; 100_000]].concat()).await.unwrap();
    let answer = caller.answer().await.unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, 500_000));
    caller.send(&vec![b'x'; 100_000]).await.unwrap();
    assert!(has_ended(&mut caller).await);
    assert_eq!(stage.api.request_count(), 1);
}

/// RFC 9110 §10.1.1: nobody asked for its body, so it may come or not.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_who_holds_its_body_back_is_the_last_answer() {
    let stage = Stage::new();
    let daemon = stage.ready("methods = [\"GET\"]").await;
    let mut caller = connect(&daemon).await;
    let head = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\
                Expect: 100-continue\r\n\r\n";
    caller.send(head.as_bytes()).await.unwrap();
    let answer = caller.answer().await.unwrap();
    assert_eq!((answer.status, answer.header("connection")), (405, Some("close")));
    assert!(has_ended(&mut caller).await);
}

/// Its end would look like the end of the answer.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_http_1_0_that_is_cut_short_does_not_end_as_if_it_were_whole() {
    let stage = Stage::new();
    let upstream = ByHand::listen().await;
    let daemon = upstream.ready(&stage, "").await;
    let mut caller = connect(&daemon).await;
    caller.send(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut peer = upstream.accept().await;
    peer.head().await;
    peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n").await;
    caller.until("\r\n\r\nx").await.unwrap();
    drop(peer);
    let end = timeout(DEADLINE, caller.rest()).await.expect("ended in time");
    assert!(end.is_err(), "{end:?}");
}

/// A refusal does not wait for a body that nobody wants.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_refused_with_its_body_leaves_the_connection_good() {
    let stage = Stage::new();
    let daemon = stage.ready("methods = [\"GET\"]").await;
    let mut caller = connect(&daemon).await;
    for body in [&b"small"[..], &vec![b'x'; 20_000]] {
        assert_eq!(caller.request("POST", "/", &[], body).await.unwrap().status, 405);
    }
    let chunked = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
                    3\r\nabc\r\n0\r\nX: y\r\n\r\n";
    caller.send(chunked).await.unwrap();
    assert_eq!(caller.answer().await.unwrap().status, 405);
    assert_eq!(caller.request("GET", "/", &[], b"").await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_who_still_sends_and_the_connection_ends() {
    let stage = Stage::new();
    let daemon = stage.ready("methods = [\"GET\"]").await;
    let mut caller = connect(&daemon).await;
    let head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n";
    caller.send(&[&head[..], &vec![b'x'; 100_000]].concat()).await.unwrap();
    assert_eq!(caller.answer().await.unwrap().status, 405);
    caller.send(&vec![b'x'; 100_000]).await.unwrap();
    assert!(has_ended(&mut caller).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_begins_with_the_request_before_it_has_its_own_time() {
    let stage = Stage::new();
    let server = "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n\
                  limits = { head_seconds = 1, idle_seconds = 30 }\n";
    let config = format!("{server}{}{}", stage.credential(""), stage.route(""));
    let daemon = Daemon::start_with(&stage.home, &config);
    daemon.ready().await;
    let mut caller = connect(&daemon).await;
    caller.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HT").await.unwrap();
    assert_eq!(caller.answer().await.unwrap().status, 200);
    let late = timeout(DEADLINE, caller.answer()).await.expect("in time").unwrap();
    assert_eq!((late.status, late.header("connection")), (408, Some("close")));
    assert!(has_ended(&mut caller).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_in_the_middle_of_an_answer_takes_the_upstreams_with_it() {
    let stage = Stage::new();
    let upstream = ByHand::listen().await;
    let daemon = upstream.ready(&stage, "").await;
    for begun in [false, true] {
        let mut caller = connect(&daemon).await;
        caller.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut peer = upstream.accept().await;
        peer.head().await;
        if begun {
            peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n").await;
            caller.until("x\r\n").await.unwrap();
        }
        drop(caller);
        let rest = timeout(DEADLINE, peer.rest()).await.expect("ended in time");
        assert_eq!(rest, "", "begun: {begun}");
    }
}

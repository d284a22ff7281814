//! Pooled connections that the upstream has closed, in each way that this shows: what is sent
//! again, what is not, and never a third time.

use emulator::client::{Answer, Client};
use tokio::task::JoinSet;

use crate::by_hand::{ByHand, Peer, REFUSED};
use crate::stage::{Gate, Stage, route_to};
use crate::support::{DEADLINE, Daemon, request};

/// How the upstream ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// FIN, and nobody reads what still comes.
    Close,
    /// RST.
    Reset,
    /// FIN, and what still comes is read.
    HalfClose,
    /// What some servers say to a connection that idles, and FIN.
    Status408,
}

impl End {
    /// Ends `peer`; what is returned is to be kept until the test is over.
    async fn of(self, mut peer: Peer) -> Option<Peer> {
        match self {
            Self::Close => None,
            Self::Reset => {
                peer.reset();
                None
            }
            Self::HalfClose => {
                peer.finish().await;
                Some(peer)
            }
            Self::Status408 => {
                let timeout: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\
                                       Connection: close\r\n\r\n";
                peer.send(timeout).await;
                None
            }
        }
    }
}

/// A request under way.
fn asking(daemon: &Daemon, method: &'static str, body: &'static [u8]) -> JoinSet<Answer> {
    let proxy = daemon.proxy;
    JoinSet::from_iter([async move { request(proxy, method, "/again", &[], body).await }])
}

async fn answer(asking: JoinSet<Answer>) -> Answer {
    asking.join_all().await.remove(0)
}

/// A connection on which one request has been answered: it is in the pool.
async fn pooled(upstream: &ByHand, daemon: &Daemon) -> Peer {
    let first = asking(daemon, "GET", b"");
    let mut peer = upstream.accept().await;
    peer.head().await;
    peer.ok("first").await;
    assert_eq!(answer(first).await.text(), "first");
    peer
}

fn reason(answer: &Answer) -> (u16, Option<&str>) {
    (answer.status, answer.header("bearerd-reason"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ended_while_idle_takes_no_request_of_any_method() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, "").await;
    for end in [End::Close, End::Reset, End::HalfClose, End::Status408] {
        for (method, body) in [("GET", &b""[..]), ("POST", b"order"), ("DELETE", b"")] {
            let peer = pooled(&upstream, &daemon).await;
            let from = peer.from();
            let mut kept = end.of(peer).await;
            Peer::has_ended(from).await;
            let asked = asking(&daemon, method, body);
            let mut next = upstream.accept().await;
            let head = next.head().await;
            assert!(head.starts_with(&format!("{method} /again ")), "{end:?}: {head}");
            next.ok("fresh").await;
            assert_eq!(answer(asked).await.text(), "fresh", "{end:?} {method}");
            if let Some(kept) = &mut kept {
                assert_eq!(kept.rest().await, "", "{end:?} {method}: sent to who had closed");
            }
            next.reset();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotent_request_without_body_survives_a_connection_that_ends_under_it() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, "").await;
    for end in [End::Close, End::Reset, End::HalfClose] {
        for method in ["GET", "DELETE", "OPTIONS", "PUT"] {
            let mut peer = pooled(&upstream, &daemon).await;
            let asked = asking(&daemon, method, b"");
            let first = peer.head().await;
            let _kept = end.of(peer).await;
            let mut next = upstream.accept().await;
            assert_eq!(next.head().await, first, "{end:?}: another request");
            next.ok("second").await;
            assert_eq!(answer(asked).await.text(), "second", "{end:?} {method}");
            next.reset();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_had_its_effect_is_not_sent_again() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, "").await;
    for end in [End::Close, End::Reset, End::HalfClose] {
        for (method, body) in [("POST", &b""[..]), ("PATCH", b""), ("POST", b"1"), ("PUT", b"1")] {
            let mut peer = pooled(&upstream, &daemon).await;
            let asked = asking(&daemon, method, body);
            peer.head().await;
            if !body.is_empty() {
                peer.until("1").await;
            }
            let _kept = end.of(peer).await;
            let answer = answer(asked).await;
            assert_eq!(reason(&answer), (502, Some("upstream_protocol")), "{end:?} {method}");
            assert!(!upstream.is_called().await, "{end:?} {method}: sent again");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_meets_a_broken_pipe_is_not_sent_again() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, "").await;
    let mut peer = pooled(&upstream, &daemon).await;
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    let head = b"PUT /again HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n1";
    caller.send(head).await.expect("sent");
    peer.head().await;
    peer.until("1").await;
    let from = peer.from();
    peer.reset();
    Peer::has_ended(from).await;
    // The rest runs into the reset.
    let _closed = caller.send("1".repeat(999_999).as_bytes()).await;
    let answer = caller.answer().await.expect("an answer");
    assert_eq!(reason(&answer), (502, Some("upstream_protocol")));
    assert!(!upstream.is_called().await, "sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_a_third_time_when_the_second_connection_ends_too() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, "").await;
    let mut peer = pooled(&upstream, &daemon).await;
    let asked = asking(&daemon, "GET", b"");
    peer.head().await;
    drop(peer);
    let mut second = upstream.accept().await;
    second.head().await;
    drop(second);
    assert_eq!(reason(&answer(asked).await), (502, Some("upstream_protocol")));
    assert!(!upstream.is_called().await, "sent a third time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_401_for_what_was_sent_twice_passes_on_and_causes_a_refresh() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, "").await;
    let mut peer = pooled(&upstream, &daemon).await;
    let asked = asking(&daemon, "GET", b"");
    peer.head().await;
    drop(peer);
    let mut second = upstream.accept().await;
    second.head().await;
    second.send(REFUSED).await;
    let answer = answer(asked).await;
    assert_eq!(reason(&answer), (401, None));
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    stage.idp.wait_for_token_requests(2, DEADLINE).await.expect("the next request is served");
    assert_eq!(daemon.metric("bearerd_replays_total", &["not_replayable"]).await as u64, 1);
    // The third time that this upstream is sent anything, it is the next request.
    let next = asking(&daemon, "POST", b"");
    assert!(second.head().await.starts_with("POST "));
    second.ok("next").await;
    assert_eq!(self::answer(next).await.text(), "next");
    assert!(!upstream.is_called().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_whose_connection_ends_under_it_is_not_sent_a_third_time() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, "").await;
    let asked = asking(&daemon, "GET", b"");
    let mut peer = upstream.accept().await;
    let first = peer.head().await;
    peer.send(REFUSED).await;
    // On the connection of the refusal, with another token.
    let second = peer.head().await;
    assert_ne!(first, second);
    drop(peer);
    assert_eq!(reason(&answer(asked).await), (502, Some("upstream_protocol")));
    assert!(!upstream.is_called().await, "sent a third time");
    let counted =
        async |labels: &[&str]| daemon.metric("bearerd_replays_total", labels).await as u64;
    assert_eq!((counted(&["not_replayable"]).await, counted(&[]).await), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_after_a_401_that_closed_its_connection_goes_out_on_another() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let gate = Gate::before(stage.idp.server().address()).await;
    gate.open();
    let route = route_to(&format!("http://{}", upstream.address), "");
    let credential = stage.credential_from(&gate.url("/token"), "");
    let daemon = Daemon::start(&stage.home, &(credential + &route));
    daemon.ready().await;
    gate.close();
    let asked = asking(&daemon, "POST", b"order");
    let mut peer = upstream.accept().await;
    peer.until("order").await;
    // Nothing announces the end.
    peer.send(REFUSED).await;
    let from = peer.from();
    drop(peer);
    Peer::has_ended(from).await;
    gate.open();
    let mut second = upstream.accept().await;
    second.until("order").await;
    second.ok("replayed").await;
    assert_eq!(answer(asked).await.text(), "replayed");
}

/// RFC 9112 §6.1: what follows such a 401 on its connection may be another's answer. It is no
/// answer at all, so there is nothing to replay.
#[tokio::test(flavor = "multi_thread")]
async fn a_401_with_two_framings_is_a_502_and_loses_its_connection() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, "").await;
    for framings in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
    ] {
        let asked = asking(&daemon, "GET", b"");
        let mut peer = upstream.accept().await;
        peer.head().await;
        let head = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer";
        peer.send(format!("{head}\r\n{framings}\r\n\r\n0\r\n\r\n").as_bytes()).await;
        assert_eq!(reason(&answer(asked).await), (502, Some("upstream_protocol")), "{framings}");
        assert_eq!(peer.rest().await, "", "{framings}: used again");
        assert!(!upstream.is_called().await, "{framings}: sent again");
    }
    assert_eq!(stage.idp.token_requests(), 1, "a refresh for what is no answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ends_within_an_answer_is_an_error_and_nothing_is_sent_again() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, "").await;
    for part in ["H", "HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 102 Processing\r\n\r\n"] {
        for end in [End::Close, End::HalfClose] {
            let mut peer = pooled(&upstream, &daemon).await;
            let asked = asking(&daemon, "GET", b"");
            peer.head().await;
            peer.send(part.as_bytes()).await;
            let _kept = end.of(peer).await;
            let answer = answer(asked).await;
            assert_eq!(reason(&answer), (502, Some("upstream_protocol")), "{part:?} {end:?}");
            assert!(!upstream.is_called().await, "{part:?} {end:?}: sent again");
        }
    }
}

//! Upstreams that speak HTTP badly, or an old one: what is passed on, what is a 502, and that the
//! connection takes no other request.

use std::time::Duration;

use emulator::client::{Answer, Client};
use tokio::task::JoinSet;

use crate::by_hand::{ByHand, Peer};
use crate::stage::Stage;
use crate::support::{DEADLINE, Daemon, request};

/// The bytes of one more answer, which nobody may get.
const SMUGGLED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled";

fn asking(daemon: &Daemon) -> JoinSet<Answer> {
    let proxy = daemon.proxy;
    JoinSet::from_iter([async move { request(proxy, "GET", "/", &[], b"").await }])
}

async fn answer(asking: JoinSet<Answer>) -> Answer {
    asking.join_all().await.remove(0)
}

/// One request on a new connection, which has been read.
async fn asked(upstream: &ByHand, daemon: &Daemon) -> (JoinSet<Answer>, Peer) {
    let asking = asking(daemon);
    let mut peer = upstream.accept().await;
    peer.head().await;
    (asking, peer)
}

/// A connection to the proxy on which a request has been sent, and what the upstream has of it.
async fn by_hand(upstream: &ByHand, daemon: &Daemon) -> (Client, Peer) {
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    caller.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
    let mut peer = upstream.accept().await;
    peer.head().await;
    (caller, peer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_head_is_a_502_and_its_connection_is_closed() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, "").await;
    let field = |line: &str| format!("HTTP/1.1 200 OK\r\n{line}\r\n\r\n");
    for head in [
        field("Content-Length: 2\r\nTransfer-Encoding: chunked"),
        field("Transfer-Encoding: chunked\r\nContent-Length: 2"),
        field("Content-Length: 2\r\nContent-Length: 3"),
        field("Content-Length: 2, 3"),
        field("Content-Length: +2"),
        field("Content-Length: 99999999999999999999"),
        field("Content-Length: 0\r\n : x"),
        field("Content-Length : 0"),
        field("Content-Length: 0\r\nX-Bare: a\rb"),
        field("Content-Length: 0\r\nX-Null: a\0b"),
        field("Content-Length: 0\r\nX-Folded: a\r\n b"),
        field("Content-Length: 0\r\nno colon"),
        field(&format!("Content-Length: 0\r\nConnection: {}", ["a"; 11].join(", "))),
        field("Transfer-Encoding: gzip, chunked"),
        "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "\r\n\r\nnot HTTP\r\n\r\n".to_owned(),
    ] {
        let (asking, mut peer) = asked(&upstream, &daemon).await;
        // It may be closed before all of it has been written.
        let _closed = peer.try_send(format!("{head}0\r\n\r\n{SMUGGLED}").as_bytes()).await;
        let answer = answer(asking).await;
        let seen = (answer.status, answer.header("bearerd-reason"));
        assert_eq!(seen, (502, Some("upstream_protocol")), "{head:?}: {}", answer.text());
        assert_eq!(peer.rest().await, "", "{head:?}: used again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_behind_an_answer_is_nobodys() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, "").await;
    for (framed, body) in [
        ("Content-Length: 2\r\n\r\nok", "ok"),
        ("Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "ok"),
        ("Content-Length: 0\r\n\r\n", ""),
    ] {
        let (asking, mut peer) = asked(&upstream, &daemon).await;
        peer.send(format!("HTTP/1.1 200 OK\r\n{framed}{SMUGGLED}").as_bytes()).await;
        assert_eq!(answer(asking).await.text(), body, "{framed:?}");
        let (asking, mut next) = asked(&upstream, &daemon).await;
        next.ok("own").await;
        assert_eq!(answer(asking).await.text(), "own", "{framed:?}");
        next.reset();
        assert_eq!(peer.rest().await, "", "{framed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_comes_out_whole_however_it_is_cut() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, "").await;
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    let mut peer = None;
    for framed in [
        "Content-Length: 5\r\n\r\nwhole",
        "Content-Length: 5, 5\r\nContent-Length: 5\r\n\r\nwhole",
        "Transfer-Encoding: chunked\r\n\r\n1\r\nw\r\n004;a=\"b\"\r\nhole\r\n0\r\n\r\n",
        "Transfer-Encoding: Chunked\r\n\r\n5 \r\nwhole\r\n0\r\nX-Sum: 1\r\nX-Y: 2\r\n\r\n",
        "X-Empty:\r\nX-Spaced: \t 1 \t\r\nContent-Length: 5\r\n\r\nwhole",
    ] {
        let answer = format!("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\n{framed}");
        for piece in [1, 2, 7, answer.len()] {
            caller.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
            let peer = match &mut peer {
                Some(peer) => peer,
                none => none.insert(upstream.accept().await),
            };
            peer.head().await;
            for piece in answer.as_bytes().chunks(piece) {
                peer.send(piece).await;
                tokio::task::yield_now().await;
            }
            let got = caller.answer().await.expect("an answer");
            assert_eq!((got.status, got.text().as_str()), (200, "whole"), "{framed:?} by {piece}");
        }
    }
    assert!(!upstream.is_called().await, "a connection was not used again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_chunk_cuts_the_answer_short() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, "").await;
    for bad in [
        "zz\r\nok\r\n",
        "fffffffffffffffff\r\n",
        "2 x\r\nok\r\n",
        "2\nok",
        "2\r\nok",
        "1\r\nok\r\n",
        "-1\r\n",
    ] {
        let (mut caller, mut peer) = by_hand(&upstream, &daemon).await;
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n";
        let _closed = peer.try_send(format!("{head}{bad}0\r\n\r\n{SMUGGLED}").as_bytes()).await;
        assert!(caller.answer().await.is_err(), "{bad:?}: a broken answer looks whole");
        assert_eq!(peer.rest().await, "", "{bad:?}: used again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_beyond_every_bound_is_a_502() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, "").await;
    let many: String = (0..2000).map(|n| format!("X-{n}: a\r\n")).collect();
    let long = format!("X-Long: {}\r\n", "a".repeat(4 << 20));
    for fields in [many, long] {
        let (asking, mut peer) = asked(&upstream, &daemon).await;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{fields}\r\n");
        let _closed = peer.try_send(head.as_bytes()).await;
        assert_eq!(answer(asking).await.status, 502, "{fields:.40}");
        peer.rest().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn interim_answers_have_a_bound() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, "").await;
    let interim = "HTTP/1.1 102 Processing\r\nX-Interim: 1\r\n\r\n";
    let (asking, mut peer) = asked(&upstream, &daemon).await;
    // Until nobody takes them any more.
    let flood = async { while peer.try_send(interim.as_bytes()).await.is_ok() {} };
    let (ended, answer) = tokio::join!(tokio::time::timeout(DEADLINE, flood), answer(asking));
    assert!(ended.is_ok(), "interim answers were taken for ever");
    assert_eq!((answer.status, answer.header("bearerd-reason")), (502, Some("upstream_protocol")));
    // A few cost nothing.
    let (asking, mut peer) = asked(&upstream, &daemon).await;
    peer.send(interim.repeat(10).as_bytes()).await;
    peer.ok("final").await;
    let answer = self::answer(asking).await;
    assert_eq!((answer.text().as_str(), answer.header("x-interim")), ("final", None));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_http_1_0_is_passed_on_and_its_connection_not_used_again() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, "").await;
    let keep = "Connection: keep-alive\r\n";
    for (fields, closes) in [
        (format!("{keep}Content-Length: 2\r\n"), false),
        ("Content-Length: 2\r\n".to_owned(), false),
        (String::new(), true),
    ] {
        let (asking, mut peer) = asked(&upstream, &daemon).await;
        peer.send(format!("HTTP/1.0 200 OK\r\n{fields}\r\nok").as_bytes()).await;
        if closes {
            peer.finish().await;
        }
        let answer = answer(asking).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{fields:?}");
        assert_eq!(answer.header("connection"), None, "{fields:?}");
        assert_eq!(peer.rest().await, "", "{fields:?}: used again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_of_http_1_0_are_not_believed() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, "").await;
    // RFC 9112 §6.1: HTTP/1.0 has no transfer codings; such a message is faulty.
    let (asking, mut peer) = asked(&upstream, &daemon).await;
    let chunked = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    peer.send(format!("{chunked}{SMUGGLED}").as_bytes()).await;
    peer.finish().await;
    let answer = answer(asking).await;
    assert_eq!((answer.status, answer.header("bearerd-reason")), (502, Some("upstream_protocol")));
    assert_eq!(peer.rest().await, "", "used again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ends_with_its_connection_is_whole_only_if_that_ends_properly() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, "").await;
    for version in ["1.0", "1.1"] {
        let head = format!("HTTP/{version} 200 OK\r\n\r\n");
        let (mut caller, mut peer) = by_hand(&upstream, &daemon).await;
        peer.send(format!("{head}whole").as_bytes()).await;
        peer.finish().await;
        assert_eq!(caller.answer().await.expect("an answer").text(), "whole", "{version}");
        let (mut caller, mut peer) = by_hand(&upstream, &daemon).await;
        peer.send(format!("{head}part").as_bytes()).await;
        assert_eq!(caller.until("part").await.expect("passed on").matches("200").count(), 1);
        peer.reset();
        let end = caller.rest().await.unwrap_or_default();
        assert!(!end.ends_with(b"0\r\n\r\n"), "{version}: a part looks whole");
        // With a length the end tells by itself.
        let (mut caller, mut peer) = by_hand(&upstream, &daemon).await;
        let short = format!("HTTP/{version} 200 OK\r\nContent-Length: 10\r\n\r\nshort");
        peer.send(short.as_bytes()).await;
        peer.finish().await;
        assert!(caller.answer().await.is_err(), "{version}: a part looks whole");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unasked_switch_of_protocols_is_a_502_and_the_tunnel_is_closed() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, "").await;
    for fields in ["Connection: upgrade\r\nUpgrade: evil\r\n", ""] {
        let (asking, mut peer) = asked(&upstream, &daemon).await;
        peer.send(format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n{SMUGGLED}").as_bytes())
            .await;
        let answer = answer(asking).await;
        let seen = (answer.status, answer.header("bearerd-reason"));
        assert_eq!(seen, (502, Some("upstream_protocol")), "{fields:?}");
        assert_eq!(peer.rest().await, "", "{fields:?}: used again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_says_nothing_has_a_bound_also_in_the_middle_of_a_head() {
    let (stage, upstream) = (Stage::new(), ByHand::listen().await);
    let daemon = upstream.ready(&stage, "timeouts = { response_ms = 300 }").await;
    let (asking, mut peer) = asked(&upstream, &daemon).await;
    peer.send(b"HTTP/1.1 200 OK\r\nX-Drip: ").await;
    // A byte now and then is no head.
    let drip = async {
        loop {
            if peer.try_send(b"X").await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (ended, answer) = tokio::join!(tokio::time::timeout(DEADLINE, drip), answer(asking));
    assert!(ended.is_ok(), "it may drip for ever");
    assert_eq!((answer.status, answer.header("bearerd-reason")), (504, Some("upstream_timeout")));
}

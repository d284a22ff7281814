//! `Expect: 100-continue` towards upstreams of HTTP/2 (RFC 9110 §10.1.1).

use http::{Response, StatusCode};

use super::{Asked, Upstream, answer};
use crate::stage::Stage;

const EXPECTS: &str = "POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\
                       Content-Length: 4\r\n\r\n";
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

impl Asked {
    fn go_on(&mut self) {
        let word = Response::builder().status(StatusCode::CONTINUE).body(()).expect("a response");
        self.respond.send_informational(word).expect("open");
    }

    fn refuse(&mut self, status: u16) {
        let refusal = Response::builder().status(status).body(()).expect("a response");
        self.respond.send_response(refusal, true).expect("open");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_waits_for_the_word_of_an_upstream_of_http_2_if_its_caller_does() {
    let (stage, mut upstream) = (Stage::new(), Upstream::allowing(100).await);
    let daemon = upstream.ready(&stage, "").await;
    let mut caller = super::caller(&daemon, EXPECTS.as_bytes()).await;
    let mut asked = upstream.asked().await;
    assert_eq!(asked.request.headers()["expect"], "100-continue");
    asked.go_on();
    assert_eq!(caller.until("\r\n\r\n").await.expect("told"), CONTINUE);
    caller.send(b"body").await.expect("sent");
    assert_eq!(asked.whole().await, b"body");
    asked.ok("taken");
    assert_eq!(answer(&mut caller).await.text(), "taken");

    // Refused before the body: nobody is asked for it, and it never comes.
    caller.send(EXPECTS.as_bytes()).await.expect("sent");
    let mut asked = upstream.asked().await;
    asked.refuse(413);
    let refused = answer(&mut caller).await;
    assert_eq!((refused.status, refused.header("connection")), (413, Some("close")));
    assert!(asked.cut().await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_word_of_an_upstream_of_http_2_is_not_waited_for_without_end() {
    let (stage, mut upstream) = (Stage::new(), Upstream::allowing(100).await);
    let daemon = upstream.ready(&stage, "").await;
    let mut caller = super::caller(&daemon, EXPECTS.as_bytes()).await;
    let mut asked = upstream.asked().await;
    assert_eq!(caller.until("\r\n\r\n").await.expect("told after a while"), CONTINUE);
    caller.send(b"body").await.expect("sent");
    assert_eq!(asked.whole().await, b"body");
    asked.ok("taken");
    assert_eq!(answer(&mut caller).await.text(), "taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_waits_for_the_word_of_an_upstream_of_http_2_goes_to_the_replay() {
    let (stage, mut upstream) = (Stage::new(), Upstream::allowing(100).await);
    let daemon = upstream.ready(&stage, "").await;
    let mut caller = super::caller(&daemon, EXPECTS.as_bytes()).await;
    let mut refused = upstream.asked().await;
    refused.refuse(401);
    let mut asked = upstream.asked().await;
    assert_eq!(asked.request.headers()["expect"], "100-continue");
    asked.go_on();
    assert_eq!(caller.until("\r\n\r\n").await.expect("told"), CONTINUE);
    caller.send(b"body").await.expect("sent");
    assert_eq!(asked.whole().await, b"body");
    asked.ok("taken");
    assert_eq!(answer(&mut caller).await.text(), "taken");
    assert!(refused.cut().await.is_some(), "the first one got nothing of it");
}

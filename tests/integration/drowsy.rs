//! Connections that no request has come on for a while give back what they were served with: nobody
//! must be able to tell. Each pause is longer than the half second after which they do.

use std::time::Duration;

use emulator::Reply;
use emulator::client::Client;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use crate::stage::Stage;
use crate::support::{DEADLINE, Daemon, eventually};

const PAUSE: Duration = Duration::from_millis(1100);
const CHUNKED: &[u8] = b"POST /c HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
                         5\r\nhello\r\n0\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_every_shape_are_answered_after_a_pause() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    for _ in 0..2 {
        let answer = caller.request("GET", "/", &[], b"").await.expect("an answer");
        assert_eq!(answer.status, 200);
        tokio::time::sleep(PAUSE).await;
        let answer = caller.request("POST", "/", &[], &[b'x'; 3000]).await.expect("an answer");
        assert_eq!(answer.json()["body_length"], json!(3000));
        tokio::time::sleep(PAUSE).await;
        // Cut in the head, byte by byte at first, and pausing there.
        for part in [&CHUNKED[..1], &CHUNKED[1..2], &CHUNKED[2..30]] {
            caller.send(part).await.expect("sent");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(PAUSE).await;
        caller.send(&CHUNKED[30..]).await.expect("sent");
        let answer = caller.answer().await.expect("an answer");
        assert_eq!(answer.json()["body_length"], json!(5));
        tokio::time::sleep(PAUSE).await;
        // Two at once, in one write.
        let get = b"GET /p HTTP/1.1\r\nHost: localhost\r\n\r\n";
        caller.send(&[&get[..], CHUNKED].concat()).await.expect("sent");
        assert_eq!(caller.answer().await.expect("an answer").status, 200);
        assert_eq!(caller.answer().await.expect("an answer").json()["body_length"], json!(5));
        tokio::time::sleep(PAUSE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_began_with_http_1_does_not_change_to_http_2() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    assert_eq!(caller.request("GET", "/", &[], b"").await.expect("an answer").status, 200);
    tokio::time::sleep(PAUSE).await;
    caller.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("sent");
    assert_eq!(caller.answer().await.expect("an answer").status, 400);
    assert_eq!(caller.rest().await.expect("a clean end"), b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_framings_are_seen_after_a_pause() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    assert_eq!(caller.request("GET", "/", &[], b"").await.expect("an answer").status, 200);
    tokio::time::sleep(PAUSE).await;
    let both = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\
                 Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    caller.send(both).await.expect("sent");
    assert_eq!(caller.answer().await.expect("an answer").status, 400);
}

/// Answers that lie in the connection, and those of which the end is still in our hands when the
/// caller pauses: of some of these lengths nothing but the end is.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_read_late_is_whole() {
    let stage = Stage::new();
    let socket = stage.home.path("proxy.sock");
    let server =
        format!("[server]\nlisten = [\"unix:{}\"]\nadmin = \"127.0.0.1:0\"\n", socket.display());
    let config = server + &stage.credential("") + &stage.route("");
    let daemon = Daemon::start_with(&stage.home, &config);
    daemon.ready().await;
    let mut callers = JoinSet::new();
    for length in (1..=40).map(|step| step * 12_000) {
        let path = format!("/{length}");
        stage.api.serve(&path, Reply::bytes(200, "text/plain", vec![b'x'; length]));
        let mut stream = UnixStream::connect(&socket).await.expect("a connection");
        callers.spawn(async move {
            let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("sent");
            tokio::time::sleep(2 * PAUSE).await;
            let mut answer = Vec::new();
            while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
                assert_ne!(stream.read_buf(&mut answer).await.expect("read"), 0);
            }
            let head = answer.windows(4).position(|end| end == b"\r\n\r\n").expect("found") + 4;
            while answer.len() < head + length {
                let read = stream.read_buf(&mut answer).await.expect("read");
                assert_ne!(read, 0, "{} of {length} bytes", answer.len() - head);
            }
            assert_eq!(answer.len(), head + length);
        });
    }
    let all = tokio::time::timeout(2 * DEADLINE, async {
        while let Some(ended) = callers.join_next().await {
            ended.expect("a whole answer");
        }
    });
    all.await.expect("in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_pauses_goes_on() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    let head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\nabc";
    caller.send(head).await.expect("sent");
    tokio::time::sleep(PAUSE).await;
    caller.send(b"def").await.expect("sent");
    assert_eq!(caller.answer().await.expect("an answer").json()["body_length"], json!(6));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pausing_connection_ends_at_a_stop() {
    let stage = Stage::new();
    let mut daemon = stage.ready("").await;
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    assert_eq!(caller.request("GET", "/", &[], b"").await.expect("an answer").status, 200);
    tokio::time::sleep(PAUSE).await;
    daemon.signal("TERM");
    assert_eq!(caller.rest().await.expect("a clean end"), b"");
    assert!(daemon.exit().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_reaches_a_pausing_connection() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
    assert_eq!(caller.request("GET", "/", &[], b"").await.expect("an answer").status, 200);
    tokio::time::sleep(PAUSE).await;
    let config = stage.home.path("bearerd.toml");
    let text = crate::support::read(&config);
    stage
        .home
        .write("bearerd.toml", &text.replace("[[routes]]", "[[routes]]\nmethods = [\"PUT\"]"));
    daemon.signal("HUP");
    eventually("the reload", async || {
        daemon.metric("bearerd_config_reloads_total", &["outcome=\"ok\""]).await >= 1.0
    })
    .await;
    let answer = caller.request("GET", "/", &[], b"").await.expect("an answer");
    assert_eq!((answer.status, answer.header("bearerd-reason")), (405, Some("method_not_allowed")));
}

//! Both directions at the same time: a response that begins before its request has ended.

use std::time::Duration;

use emulator::client::Client;
use emulator::{Reply, Step};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::stage::{Stage, route_to};
use crate::support::Daemon;

const MIB: usize = 1 << 20;
const LONG: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_although_its_caller_does_not_read_the_answer_yet() {
    let stage = Stage::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let (uploaded, _) = oneshot::channel();
    let upstream = tokio::spawn(answers_before_it_reads(listener, uploaded));
    let daemon = Daemon::start(&stage.home, &(stage.credential("") + &route_to(&url, "")));
    daemon.ready().await;

    let mut caller = TcpStream::connect(daemon.proxy).await.expect("a connection");
    let head =
        format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", 16 * MIB);
    caller.write_all(head.as_bytes()).await.expect("sent");
    let body = vec![b'u'; 16 * MIB];
    timeout(LONG, caller.write_all(&body)).await.expect("the upload stands still").expect("sent");
    let mut answer = Vec::new();
    timeout(LONG, async {
        while answer.len() < 32 * MIB {
            assert!(caller.read_buf(&mut answer).await.expect("read") > 0, "cut short");
        }
    })
    .await
    .expect("the answer stands still");
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    assert_eq!(upstream.await.expect("no panic"), 16 * MIB, "what the upstream got");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_half_a_request_reaches_a_caller_that_sends_all_of_it_first() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    for framing in [format!("Content-Length: {}", 8 * MIB), "Transfer-Encoding: chunked".to_owned()]
    {
        stage.api.script([Step::early(Reply::html(413))]);
        let mut caller = Client::connect(daemon.proxy).await.expect("a connection");
        let mut request = format!("POST / HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n");
        if framing.starts_with('T') {
            request += &format!("{:x}\r\n", 8 * MIB);
        }
        let request = [request.as_bytes(), &vec![b'u'; 8 * MIB]].concat();
        timeout(LONG, caller.send(&request)).await.expect("in time").expect("sent");
        let answer = timeout(LONG, caller.answer()).await.expect("in time").expect("an answer");
        assert_eq!(answer.status, 413);
        assert!(answer.text().ends_with("</html>\n"), "{framing}");
    }
}

/// Answers with 32 MiB, and reads 16 MiB of the request meanwhile, however slowly its answer goes;
/// tells when it has `uploaded` them.
pub async fn answers_before_it_reads(
    listener: TcpListener,
    uploaded: oneshot::Sender<usize>,
) -> usize {
    let (stream, _) = listener.accept().await.expect("a connection");
    let (mut read, mut write) = stream.into_split();
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        read.read_buf(&mut request).await.expect("a head");
    }
    let head = request.windows(4).position(|end| end == b"\r\n\r\n").expect("its end") + 4;
    let answering = async {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 32 * MIB);
        write.write_all(head.as_bytes()).await.expect("sent");
        write.write_all(&vec![b'd'; 32 * MIB - 1]).await.expect("sent");
    };
    let reading = async {
        let mut got = request.len() - head;
        let mut buffer = vec![0; 64 << 10];
        while got < 16 * MIB {
            got += read.read(&mut buffer).await.expect("read");
        }
        let _nobody_may_wait = uploaded.send(got);
        got
    };
    let ((), got) = tokio::join!(answering, reading);
    write.write_all(b"d").await.expect("sent");
    got
}

//! Much, slowly, and by HTTP/2: memory stays where it was, and neither direction waits for the other.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::duplex::answers_before_it_reads;
use crate::pressure::{GROWTH_KIB, TOTAL, memory};
use crate::stage::{Stage, route_to};
use crate::support::{DEADLINE, Daemon};

const PIECE: usize = 64 << 10;
const LONG: Duration = Duration::from_secs(60);

/// So many bytes, made as they are asked for.
struct Pour(usize);

impl Body for Pour {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        static LETTERS: [u8; PIECE] = [b'~'; PIECE];
        let here = self.0.min(PIECE);
        self.0 -= here;
        Poll::Ready((here > 0).then(|| Ok(Frame::data(Bytes::from_static(&LETTERS[..here])))))
    }

    fn is_end_stream(&self) -> bool {
        self.0 == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0 as u64)
    }
}

async fn swallow(mut body: Incoming) -> usize {
    let mut total = 0;
    while let Some(frame) = timeout(DEADLINE, body.frame()).await.expect("it goes on") {
        total += frame.expect("not cut short").into_data().map_or(0, |data| data.len());
    }
    total
}

/// Takes what it is sent, tells how much that was, and answers with as much as the path says.
async fn upstream(http2: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|request: Request<Incoming>| async {
                let wanted = request.uri().path()[1..].parse().expect("a number");
                let got = swallow(request.into_body()).await;
                let answer = Response::builder().header("got", got).body(Pour(wanted));
                Ok::<_, Infallible>(answer.expect("an answer"))
            });
            let io = TokioIo::new(stream);
            tokio::spawn(async move {
                if http2 {
                    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    drop(builder.serve_connection(io, service).await);
                } else {
                    let builder = hyper::server::conn::http1::Builder::new();
                    drop(builder.serve_connection(io, service).await);
                }
            });
        }
    });
    address
}

/// Sends `body` to `path` on a connection of its own.
async fn ask(to: SocketAddr, http2: bool, path: &str, body: Pour) -> Response<Incoming> {
    let io = TokioIo::new(TcpStream::connect(to).await.expect("a connection"));
    let request = Request::builder().method("POST");
    let sending: Pin<Box<dyn Future<Output = _> + Send>> = if http2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
        tokio::spawn(connection);
        let request = request.uri(format!("http://localhost{path}")).body(body).expect("a request");
        Box::pin(async move { sender.send_request(request).await })
    } else {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(io).await.expect("HTTP/1");
        tokio::spawn(connection);
        let request = request.uri(path).header("host", "localhost");
        let request = request.body(body).expect("a request");
        Box::pin(async move { sender.send_request(request).await })
    };
    timeout(LONG, sending).await.expect("in time").expect("an answer")
}

async fn start(stage: &Stage, address: SocketAddr, http2: bool) -> Daemon {
    let route = route_to(&format!("http://{address}"), if http2 { "http2 = true" } else { "" });
    let server = "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n";
    let config = format!("{server}{}{route}", stage.credential(""));
    // At TRACE each frame of HTTP/2 is a line.
    let daemon = Daemon::start_in(&stage.home, &config, &[("RUST_LOG", "info")]);
    daemon.ready().await;
    daemon
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_grow_with_what_passes_by_http_2() {
    for (inbound, outbound) in [(true, false), (false, true), (true, true)] {
        let stage = Stage::new();
        let daemon = start(&stage, upstream(outbound).await, outbound).await;
        let before = memory(&daemon, "VmRSS");
        let answer = ask(daemon.proxy, inbound, "/0", Pour(TOTAL)).await;
        assert_eq!(answer.headers()["got"], TOTAL.to_string().as_str());
        let answer = ask(daemon.proxy, inbound, &format!("/{TOTAL}"), Pour(0)).await;
        assert_eq!(swallow(answer.into_body()).await, TOTAL);
        let grown = memory(&daemon, "VmHWM").saturating_sub(before);
        assert!(grown < GROWTH_KIB, "{inbound} {outbound}: {grown} KiB");
    }
}

/// However much the upstream has for it.
#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_grow_for_callers_that_read_a_byte_a_second() {
    for outbound in [false, true] {
        let stage = Stage::new();
        let daemon = start(&stage, upstream(outbound).await, outbound).await;
        let before = memory(&daemon, "VmRSS");
        let mut slow = tokio::task::JoinSet::new();
        let proxy = daemon.proxy;
        for _ in 0..8 {
            slow.spawn(read_slowly_by_http_1(proxy));
            slow.spawn(read_slowly_by_http_2(proxy));
        }
        slow.join_all().await;
        let grown = memory(&daemon, "VmHWM").saturating_sub(before);
        assert!(grown < GROWTH_KIB, "{outbound}: {grown} KiB");
        // Nobody else has waited for them.
        assert_eq!(ask(proxy, true, "/0", Pour(10)).await.headers()["got"], "10");
    }
}

const BYTES: usize = 4;
const SECOND: Duration = Duration::from_secs(1);

async fn read_slowly_by_http_1(proxy: SocketAddr) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut caller = TcpStream::connect(proxy).await.expect("a connection");
    let request = format!("GET /{TOTAL} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    caller.write_all(request.as_bytes()).await.expect("sent");
    for _ in 0..BYTES {
        timeout(DEADLINE, caller.read_u8()).await.expect("in time").expect("a byte");
        tokio::time::sleep(SECOND).await;
    }
}

async fn read_slowly_by_http_2(proxy: SocketAddr) {
    let stream = TcpStream::connect(proxy).await.expect("a connection");
    let (sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    let mut sender = sender.ready().await.expect("ready");
    let request = Request::builder().uri(format!("http://localhost/{TOTAL}")).body(());
    let (answer, _) = sender.send_request(request.expect("a request"), true).expect("sent");
    let mut body = timeout(DEADLINE, answer).await.expect("in time").expect("a head").into_body();
    let mut came = 0;
    for read in 0..BYTES {
        if came <= read {
            let data = timeout(DEADLINE, body.data()).await.expect("in time");
            came += data.expect("not the end").expect("not cut short").len();
        }
        body.flow_control().release_capacity(1).expect("one of those that came");
        tokio::time::sleep(SECOND).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_although_its_http_2_caller_does_not_read_the_answer_yet() {
    const MIB: usize = 1 << 20;
    let stage = Stage::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let (uploaded, is_up) = tokio::sync::oneshot::channel();
    let upstream = tokio::spawn(answers_before_it_reads(listener, uploaded));
    let daemon = start(&stage, address, false).await;
    let answer = ask(daemon.proxy, true, "/", Pour(16 * MIB)).await;
    // All of it is up before a byte of the answer is read.
    let got = timeout(LONG, is_up).await.expect("the upload stands still");
    assert_eq!(got, Ok(16 * MIB));
    assert_eq!(swallow(answer.into_body()).await, 32 * MIB);
    assert_eq!(upstream.await.expect("no panic"), 16 * MIB);
}

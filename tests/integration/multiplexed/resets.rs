//! Streams that end before their time on a connection that others share: the others' go on, and the
//! upstream is told once.

use tokio::net::TcpListener;
use tokio::time::timeout;

use super::{GET, answer};
use crate::hostile::frames::{
    DATA, END_HEADERS, END_STREAM, Frame, HEADERS, RST_STREAM, Raw, SETTINGS, WHOLE, block, frame,
    get, setting,
};
use crate::stage::{Stage, route_to};
use crate::support::{DEADLINE, Daemon};

/// Error codes (RFC 9113 §7).
const CANCEL: [u8; 4] = [0, 0, 0, 8];
const STREAM_CLOSED: [u8; 4] = [0, 0, 0, 5];
/// The setting of how many streams there may be (RFC 9113 §6.5.2).
const STREAMS: u16 = 3;
/// How large the upstream's window for a request is, which it never opens.
const WINDOW: usize = 65_535;

/// An HTTP/2 upstream that sends frames as they are.
struct Upstream(TcpListener);

impl Upstream {
    async fn listen() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.expect("a loopback port"))
    }

    /// A daemon before it that does not log each frame.
    async fn ready(&self, stage: &Stage) -> Daemon {
        let address = self.0.local_addr().expect("bound");
        let server = "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n";
        let route = route_to(&format!("http://{address}"), "http2 = true");
        let config = server.to_owned() + &stage.credential("") + &route;
        let daemon = Daemon::start_in(&stage.home, &config, &[("RUST_LOG", "info")]);
        daemon.ready().await;
        daemon
    }

    /// The next connection, which may have so many `streams`.
    async fn accept(&self, streams: u32) -> Peer {
        let accepted = timeout(DEADLINE, self.0.accept()).await.expect("a connection in time");
        let mut raw = Raw::over(accepted.expect("a connection").0);
        raw.greeted().await;
        raw.send(&frame(SETTINGS, 0, 0, &setting(STREAMS, streams))).await;
        Peer(raw)
    }

    async fn is_called(&self) -> bool {
        timeout(std::time::Duration::ZERO, self.0.accept()).await.is_ok()
    }
}

/// A connection to it.
struct Peer(Raw);

impl Peer {
    /// The next frame of this kind.
    async fn next_of(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.0.next().await.expect("the connection lives");
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// The stream of the next request, before which nothing was reset.
    async fn request(&mut self) -> u32 {
        loop {
            let frame = self.0.next().await.expect("the connection lives");
            assert_ne!(frame.kind, RST_STREAM, "told a second time: {:?}", frame.payload);
            if frame.kind == HEADERS {
                return frame.stream;
            }
        }
    }

    /// A whole answer.
    async fn answer(&mut self, stream: u32, text: &str) {
        let head = frame(HEADERS, END_HEADERS, stream, &block(&[(":status", "200")]));
        self.0.send(&[head, frame(DATA, END_STREAM, stream, text.as_bytes())].concat()).await;
    }
}

/// Answers for nobody on all of these streams.
fn late(streams: impl Iterator<Item = u32>) -> Vec<u8> {
    let head = block(&[(":status", "200")]);
    streams.flat_map(|stream| frame(HEADERS, WHOLE, stream, &head)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_who_leave_harm_nobody_who_stays_on_their_connection() {
    const AT_ONCE: u32 = 50;
    /// Answers for whom cross their leaving.
    const CROSSED: u32 = 20;
    /// In all: of so many that left not all are remembered.
    const WAVES: u32 = 56;
    let (stage, upstream) = (Stage::new(), Upstream::listen().await);
    let daemon = upstream.ready(&stage).await;
    let mut stays = super::caller(&daemon, GET).await;
    let mut peer = upstream.accept(100).await;
    assert_eq!(peer.request().await, 1);
    let mut leaves = Raw::greet(daemon.proxy).await;
    let on = |wave: u32, index: u32| 2 * (wave * AT_ONCE + index) + 1;
    for wave in 0..WAVES {
        let own = || (0..AT_ONCE).map(move |index| on(wave, index));
        leaves.send(&own().flat_map(|stream| get(stream, "/")).collect::<Vec<_>>()).await;
        for stream in own() {
            assert_eq!(peer.request().await, stream + 2);
        }
        let reset = |stream| frame(RST_STREAM, 0, stream, &CANCEL);
        leaves.send(&own().flat_map(reset).collect::<Vec<_>>()).await;
        for _ in own() {
            assert_eq!(peer.next_of(RST_STREAM).await.payload, CANCEL);
        }
        if wave < CROSSED {
            peer.0.send(&late(own().map(|stream| stream + 2))).await;
        }
    }
    // Whom it does not remember it resets again; more often than h2 puts up with by itself.
    let left = (0..WAVES * AT_ONCE).map(|number| 2 * number + 3);
    peer.0.send(&late(left)).await;
    for _ in 0..=1024 {
        assert_eq!(peer.next_of(RST_STREAM).await.payload, STREAM_CLOSED);
    }
    peer.answer(1, "own").await;
    assert_eq!(answer(&mut stays).await.text(), "own");
    stays.send(GET).await.expect("sent");
    let next = peer.next_of(HEADERS).await.stream;
    peer.answer(next, "next").await;
    assert_eq!(answer(&mut stays).await.text(), "next");
    assert!(!upstream.is_called().await, "one connection was enough");
}

/// Whether or not the connection has all of it: what waits for a window may be its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_answer_is_whole_is_free_although_its_request_was_never_read() {
    const FIRST: usize = 60_000;
    for (then, more) in [(6_000, 0), (6_000, 100_000)] {
        let (stage, upstream) = (Stage::new(), Upstream::listen().await);
        let daemon = upstream.ready(&stage).await;
        let length = FIRST + then + more;
        let head = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: ";
        let mut caller = super::caller(&daemon, format!("{head}{length}\r\n\r\n").as_bytes()).await;
        caller.send(&vec![b'u'; FIRST]).await.expect("sent");
        let mut peer = upstream.accept(1).await;
        assert_eq!(peer.request().await, 1);
        let mut read = 0;
        while read < WINDOW {
            read += peer.next_of(DATA).await.payload.len();
            if read == FIRST {
                caller.send(&vec![b'u'; then + more]).await.expect("sent");
            }
        }
        peer.answer(1, "enough").await;
        assert_eq!(answer(&mut caller).await.text(), "enough");
        let reset = peer.next_of(RST_STREAM).await;
        assert_eq!((reset.stream, reset.payload.as_slice()), (1, &CANCEL[..]), "{more}");
        let mut next = super::caller(&daemon, GET).await;
        assert_eq!(peer.request().await, 3, "on the only stream that there may be");
        peer.answer(3, "next").await;
        assert_eq!(answer(&mut next).await.text(), "next");
        assert!(!upstream.is_called().await, "one connection was enough");
    }
}

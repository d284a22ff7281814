//! An upstream by hand: the test takes each connection itself, sees what came on it, and decides
//! byte by byte what goes back and how the connection ends.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::stage::{Stage, route_to};
use crate::support::{DEADLINE, Daemon, eventually, read};

/// A bare 401.
pub const REFUSED: &[u8] =
    b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nContent-Length: 0\r\n\r\n";

/// Where an upstream by hand listens.
pub struct ByHand {
    listener: TcpListener,
    pub address: SocketAddr,
}

impl ByHand {
    pub async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let address = listener.local_addr().expect("bound");
        Self { listener, address }
    }

    /// Starts a daemon whose route leads here and has more lines, and waits for its first token.
    pub async fn ready(&self, stage: &Stage, route: &str) -> Daemon {
        let route = route_to(&format!("http://{}", self.address), route);
        let daemon = Daemon::start(&stage.home, &(stage.credential("") + &route));
        daemon.ready().await;
        daemon
    }

    /// The next connection.
    pub async fn accept(&self) -> Peer {
        let accepted =
            timeout(DEADLINE, self.listener.accept()).await.expect("a connection in time");
        let (stream, from) = accepted.expect("a connection");
        stream.set_nodelay(true).expect("a TCP connection");
        Peer { stream, from, ahead: Vec::new() }
    }

    /// Whether a connection waits to be accepted.
    pub async fn is_called(&self) -> bool {
        timeout(Duration::ZERO, self.listener.accept()).await.is_ok()
    }
}

/// One connection from the daemon.
pub struct Peer {
    stream: TcpStream,
    from: SocketAddr,
    ahead: Vec<u8>,
}

impl Peer {
    /// The next request head, up to and including its empty line.
    pub async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    /// Everything up to and including `end`.
    pub async fn until(&mut self, end: &str) -> String {
        loop {
            let found = self.ahead.windows(end.len()).position(|part| part == end.as_bytes());
            if let Some(at) = found {
                let rest = self.ahead.split_off(at + end.len());
                let bytes = std::mem::replace(&mut self.ahead, rest);
                return String::from_utf8_lossy(&bytes).into_owned();
            }
            let reading = timeout(DEADLINE, self.stream.read_buf(&mut self.ahead)).await;
            let came = reading.unwrap_or_else(|_| panic!("no {end:?} in time: {:?}", self.text()));
            assert!(
                came.is_ok_and(|came| came > 0),
                "no {end:?} before the end: {:?}",
                self.text()
            );
        }
    }

    /// The connection itself; nothing was read ahead.
    pub fn into_stream(self) -> TcpStream {
        assert!(self.ahead.is_empty(), "read ahead: {:?}", self.text());
        self.stream
    }

    /// Sends exactly these bytes.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).await.expect("sent");
    }

    /// The same, where the daemon may have closed.
    pub async fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Answers 200 with this text.
    pub async fn ok(&mut self, text: &str) {
        let length = text.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{text}");
        self.send(answer.as_bytes()).await;
    }

    /// What comes until the daemon closes.
    pub async fn rest(&mut self) -> String {
        let mut rest = std::mem::take(&mut self.ahead);
        let reading = timeout(DEADLINE, self.stream.read_to_end(&mut rest)).await;
        let _reset_or_closed = reading.expect("closed in time");
        String::from_utf8_lossy(&rest).into_owned()
    }

    /// Says that nothing more will be sent, and goes on reading.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.expect("open until now");
    }

    /// Ends the connection by a reset.
    pub fn reset(self) {
        self.stream.set_zero_linger().expect("a TCP connection");
    }

    /// Waits until what ends the connection has reached the daemon's side of it.
    pub async fn has_ended(from: SocketAddr) {
        eventually("the end has arrived", async || !is_established(from.port())).await;
    }

    /// The daemon's end.
    pub fn from(&self) -> SocketAddr {
        self.from
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.ahead).into_owned()
    }
}

/// Whether a connection from `port` of this machine is open both ways.
fn is_established(port: u16) -> bool {
    const ESTABLISHED: &str = "01";
    read("/proc/net/tcp").lines().skip(1).any(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let local = columns.next().is_some_and(|local| local.ends_with(&format!(":{port:04X}")));
        local && columns.nth(1) == Some(ESTABLISHED)
    })
}

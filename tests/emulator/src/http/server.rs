//! Listens on a loopback port that the system chooses and serves each connection until it or the
//! server ends.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::exchange::Exchange;
use super::reply::Reply;
use super::tls::{Certificate, Tls};
use super::wire::{Io, Wire};
use super::write::{self, After};

/// How long a closing connection waits for what the client is still sending, so that the answer is
/// not lost to a reset.
const LINGER: Duration = Duration::from_secs(1);
/// After this a TLS handshake that does not come is given up.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What a handler returns; an error closes the connection.
pub type Work<'a> = Pin<Box<dyn Future<Output = io::Result<Reply>> + Send + 'a>>;

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Serves one exchange. Without a call to [`Exchange::body`] the answer is an early one.
    fn handle<'a>(&'a self, exchange: &'a mut Exchange) -> Work<'a>;
}

/// A running server; it and its connections end when this is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    tls: Tls,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    accepting: AtomicBool,
    accepted: AtomicU64,
    open: watch::Sender<usize>,
    malformed: AtomicU64,
    tls_failures: AtomicU64,
}

impl Server {
    /// Binds 127.0.0.1 and serves on the runtime that this is called on.
    pub fn start(handler: Arc<impl Handler>, tls: Tls) -> Self {
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = listen(any_port).expect("a loopback port can be bound");
        let address = listener.local_addr().expect("a bound listener has an address");
        let state = Arc::new(State {
            accepting: AtomicBool::new(true),
            accepted: AtomicU64::new(0),
            open: watch::channel(0).0,
            malformed: AtomicU64::new(0),
            tls_failures: AtomicU64::new(0),
        });
        let task = tokio::spawn(accept(listener, handler, tls.clone(), Arc::clone(&state)));
        Self { address, tls, state, task }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT` or `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        let scheme = if self.certificate().is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The certificate, when it speaks TLS.
    pub fn certificate(&self) -> Option<&Certificate> {
        match &self.tls {
            Tls::Off => None,
            Tls::On(certificate) => Some(certificate),
        }
    }

    /// Connections accepted so far, also those closed at once.
    pub fn connections(&self) -> u64 {
        self.state.accepted.load(Relaxed)
    }

    /// Connections open now.
    pub fn open_connections(&self) -> usize {
        *self.state.open.borrow()
    }

    /// Waits until exactly so many connections are open; false when the deadline passes first.
    pub async fn wait_for_open_connections(&self, wanted: usize, deadline: Duration) -> bool {
        let mut open = self.state.open.subscribe();
        tokio::time::timeout(deadline, open.wait_for(|now| *now == wanted)).await.is_ok()
    }

    /// Requests that were not HTTP/1.x or framed ambiguously; each got a 400 and the connection
    /// closed.
    pub fn malformed(&self) -> u64 {
        self.state.malformed.load(Relaxed)
    }

    /// TLS handshakes that failed, plaintext on a TLS port among them.
    pub fn tls_failures(&self) -> u64 {
        self.state.tls_failures.load(Relaxed)
    }

    /// False: new connections are closed as soon as they are accepted.
    pub fn set_accepting(&self, accepting: bool) {
        self.state.accepting.store(accepting, Relaxed);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Listens with a backlog that a thousand simultaneous connects do not overflow.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(4096)
}

/// Makes the close of this stream a reset.
pub(crate) fn reset_on_close(stream: &TcpStream) {
    // A failure means that the stream is gone already, which is what the caller wants.
    let _gone = stream.set_zero_linger();
}

async fn accept(listener: TcpListener, handler: Arc<impl Handler>, tls: Tls, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_ended) = connections.join_next() => continue,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors: give the open connections time to end.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let number = state.accepted.fetch_add(1, Relaxed) + 1;
        if state.accepting.load(Relaxed) {
            let (handler, tls, open) = (Arc::clone(&handler), tls.clone(), Open::count(&state));
            connections.spawn(connection(stream, number, handler, tls, open));
        }
    }
}

async fn connection(
    stream: TcpStream,
    number: u64,
    handler: Arc<impl Handler>,
    tls: Tls,
    open: Open,
) {
    let state = &open.0;
    let _unsupported = stream.set_nodelay(true);
    let (io, sni): (Box<dyn Io>, _) = match &tls {
        Tls::Off => (Box::new(stream), None),
        Tls::On(certificate) => {
            let handshake = certificate.acceptor().accept(stream);
            match tokio::time::timeout(HANDSHAKE, handshake).await {
                Ok(Ok(stream)) => {
                    let sni = stream.get_ref().1.server_name().map(str::to_owned);
                    (Box::new(stream), sni)
                }
                _ => {
                    state.tls_failures.fetch_add(1, Relaxed);
                    return;
                }
            }
        }
    };
    let tls = matches!(tls, Tls::On(_));
    let exchange = Exchange::new(Wire::new(io), tls, sni, number);
    // An error here is a client that went away or broke the protocol: both are counted where they
    // matter.
    let _ended = serve(exchange, &*handler, state).await;
}

async fn serve(mut exchange: Exchange, handler: &impl Handler, state: &State) -> io::Result<()> {
    loop {
        match exchange.next().await {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                state.malformed.fetch_add(1, Relaxed);
                let refusal = Reply::status(400).close();
                write::reply(&mut exchange.wire, refusal, "GET", false).await?;
                return close(exchange).await;
            }
            Err(error) => return Err(error),
        }
        let reply = handler.handle(&mut exchange).await?;
        let method = exchange.head().method.clone();
        let keep_alive = exchange.keeps_alive();
        match write::reply(&mut exchange.wire, reply, &method, keep_alive).await? {
            After::Next => exchange.drain_body().await?,
            After::Close => return close(exchange).await,
            After::Drop => return Ok(()),
        }
    }
}

/// Closes so that an answer to a half-sent request still arrives.
async fn close(mut exchange: Exchange) -> io::Result<()> {
    exchange.wire.finish().await?;
    if exchange.body_unread() {
        let _given_up = tokio::time::timeout(LINGER, exchange.wire.drain()).await;
    }
    Ok(())
}

/// A connection counts as open from when it was accepted, not only when its task first runs.
struct Open(Arc<State>);

impl Open {
    fn count(state: &Arc<State>) -> Self {
        state.open.send_modify(|open| *open += 1);
        Self(Arc::clone(state))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open -= 1);
    }
}

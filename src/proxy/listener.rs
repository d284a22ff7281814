//! Accepts connections, on runtimes that pingora-core starts: one service, one thread, one loop.
//!
//! pingora's own listening loop is not used: its stream wrapper costs memory on every idle
//! connection, it panics if it cannot bind, and it spins on accept errors. Listeners are bound
//! before the runtimes start, and every worker accepts from all of them.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::connection::{Protocol, Served, serve};
use super::reject::{self, Reason};
use super::route::Routes;
use super::turns;
use crate::clock::monotonic;
use crate::stream::Stream;

mod bound;
mod crew;
mod drain;

pub use bound::Bound;
pub use crew::Crew;
use crew::{Member, Moves};
pub use drain::Drain;
use drain::{Open, Place};

/// How often a worker closes what has been idle for too long.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// After running out of file descriptors or memory, accepting again at once would only spin.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a connection over the limit may take to be told so.
const FAREWELL: Duration = Duration::from_secs(1);

/// One worker: a thread with a runtime of its own, which accepts and serves.
pub struct Worker {
    name: String,
    listeners: Vec<Bound>,
    routes: watch::Receiver<Arc<Routes>>,
    drain: Arc<Drain>,
    crew: Arc<Crew>,
}

impl Worker {
    /// The worker with number `index`.
    ///
    /// # Errors
    /// The listeners cannot be shared with it.
    pub fn new(
        index: usize,
        listeners: &[Bound],
        routes: watch::Receiver<Arc<Routes>>,
        drain: Arc<Drain>,
        crew: Arc<Crew>,
    ) -> io::Result<Self> {
        let listeners = listeners.iter().map(Bound::try_clone).collect::<io::Result<_>>()?;
        Ok(Self { name: format!("proxy-{index}"), listeners, routes, drain, crew })
    }

    /// Accepts until draining begins; connections go on by themselves.
    #[allow(clippy::disallowed_methods)] // one of the two places that spawn
    async fn run(&mut self) -> io::Result<()> {
        let member = self.crew.join();
        for listener in self.listeners.drain(..) {
            let speaks_tls = matches!(listener, Bound::Tls(_));
            let (routes, drain) = (self.routes.clone(), Arc::clone(&self.drain));
            let (crew, member) = (Arc::clone(&self.crew), member.clone());
            let door = Door { routes, drain, crew, member, speaks_tls };
            match listener {
                Bound::Tcp(listener) => {
                    let listener = tokio::net::TcpListener::from_std(listener)?;
                    let accept = async move || accept_tcp(&listener).await;
                    tokio::spawn(door.accept(accept, |stream, served| {
                        serve(stream.into(), Protocol::Unknown, served)
                    }));
                }
                Bound::Tls(listener) => {
                    let listener = tokio::net::TcpListener::from_std(listener)?;
                    let accept = async move || accept_tcp(&listener).await;
                    tokio::spawn(door.accept(accept, tls));
                }
                Bound::Unix(listener, _) => {
                    let listener = tokio::net::UnixListener::from_std(listener)?;
                    let routes = self.routes.clone();
                    let accept = async move || accept_unix(&listener, &routes).await;
                    tokio::spawn(door.accept(accept, |stream, served| {
                        serve(stream.into(), Protocol::Unknown, served)
                    }));
                }
            }
        }
        tokio::spawn(turns::call());
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            super::sweep(monotonic());
        }
    }
}

async fn accept_tcp(listener: &tokio::net::TcpListener) -> io::Result<TcpStream> {
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A connection of a user who may make one. Without a list the socket's mode says who may.
async fn accept_unix(
    listener: &tokio::net::UnixListener,
    routes: &watch::Receiver<Arc<Routes>>,
) -> io::Result<UnixStream> {
    loop {
        let (stream, _) = listener.accept().await?;
        let peer = stream.peer_cred()?.uid();
        let allowed = Arc::clone(&routes.borrow());
        if allowed.peer_uids.is_empty() || allowed.peer_uids.contains(&peer) {
            return Ok(stream);
        }
        tracing::warn!(uid = peer, "a user who is not in allow_peer_uids was turned away");
    }
}

/// Shakes hands, within the time that a request head has, and serves what was agreed on.
async fn tls(stream: TcpStream, served: Served) {
    let (config, limit) = {
        let routes = served.routes.borrow();
        (routes.tls.clone(), routes.limits.head_time)
    };
    let Some(config) = config else { return };
    let shaking = timeout(limit, TlsAcceptor::from(config).accept(stream));
    // No request is under way before there is a connection to ask on.
    let shaken = tokio::select! {
        shaken = shaking => shaken,
        () = served.drain.wait() => return,
    };
    let stream = match shaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake with a caller failed"),
        Err(_) => return,
    };
    let protocol = match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        _ => Protocol::Http1,
    };
    serve(Stream::tls(stream), protocol, served).await;
}

/// Where connections come in.
struct Door {
    routes: watch::Receiver<Arc<Routes>>,
    drain: Arc<Drain>,
    crew: Arc<Crew>,
    /// The worker that accepts here.
    member: Member,
    speaks_tls: bool,
}

impl Door {
    fn served(&self) -> Served {
        Served { routes: self.routes.clone(), drain: Arc::clone(&self.drain) }
    }

    /// Accepts from `next`, and has each connection served by a task of its own.
    #[allow(clippy::disallowed_methods)] // one of the two places that spawn
    async fn accept<I, F>(self, next: impl AsyncFn() -> io::Result<I>, serve: fn(I, Served) -> F)
    where
        I: AsyncRead + AsyncWrite + Moves + Unpin + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        loop {
            let begun = self.drain.begun.notified();
            if self.drain.has_begun() {
                return;
            }
            let accepted = tokio::select! {
                accepted = next() => accepted,
                () = begun => return,
            };
            match accepted {
                Ok(io) => match self.place() {
                    Place::Free(open) => self.hand_over(io, open, serve),
                    // Who waits for a handshake understands nothing else.
                    Place::Full(_) if self.speaks_tls => {}
                    Place::Full(open) => {
                        tokio::spawn(async move {
                            turn_away(io).await;
                            drop(open);
                        });
                    }
                    Place::None => {}
                },
                // The caller was gone before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::error!(%error, "cannot accept");
                    tokio::time::sleep(PAUSE).await;
                }
            }
            // Where many come at once, who is here already is not behind all of them.
            tokio::task::yield_now().await;
        }
    }

    /// To the worker that serves the fewest.
    fn hand_over<I, F>(&self, io: I, open: Open, serve: fn(I, Served) -> F)
    where
        I: Moves + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let (served, worker) = (self.served(), self.crew.least(&self.member));
        let counted = (open, worker.begin());
        if worker.is(&self.member) {
            let serving = serve(io, served);
            return worker.run(async move {
                serving.await;
                drop(counted);
            });
        }
        // What the system cannot move is closed.
        let Ok(moved) = io.leave() else { return };
        worker.run(async move {
            if let Ok(io) = I::arrive(moved) {
                serve(io, served).await;
            }
            drop(counted);
        });
    }

    fn place(&self) -> Place {
        let routes = self.routes.borrow();
        let limit = routes.limits.connections;
        let place = Open::enter(&self.drain, limit);
        if !matches!(place, Place::Free(_)) {
            routes.refused[Reason::Overloaded.index()].inc();
            tracing::warn!(limit, "too many connections: one was turned away");
        }
        place
    }
}

/// Answers a connection over the limit. What it asks is read first, or closing would take the
/// answer away from it.
async fn turn_away<I: AsyncRead + AsyncWrite + Unpin>(mut io: I) {
    let answering = async {
        let mut asked = [0; 1024];
        if io.read(&mut asked).await? > 0 {
            io.write_all(&reject::on_the_wire(Reason::Overloaded)).await?;
            io.shutdown().await?;
            while io.read(&mut asked).await? > 0 {}
        }
        Ok::<_, io::Error>(())
    };
    // Whether it hears it is its own affair.
    let _ = timeout(FAREWELL, answering).await;
}

#[async_trait]
impl Service for Worker {
    async fn start_service(&mut self, _: Option<ListenFds>, _: ShutdownWatch, _: usize) {
        if let Err(error) = self.run().await {
            tracing::error!(%error, "worker cannot listen");
        }
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

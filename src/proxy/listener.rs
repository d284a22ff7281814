//! Accepts connections, on runtimes that pingora-core starts: one service, one thread, one loop.
//!
//! pingora's own listening loop is not used: its stream wrapper costs memory on every idle
//! connection, it panics if it cannot bind, and it spins on accept errors. Listeners are bound
//! before the runtimes start, and every worker accepts from all of them.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, watch};

use super::connection::{Protocol, Served, serve};
use super::route::Routes;
use crate::clock::monotonic;
use crate::config::Listen;

/// How often a worker closes what has been idle for too long.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// After running out of file descriptors or memory, accepting again at once would only spin.
const PAUSE: Duration = Duration::from_millis(200);

/// A bound listener.
pub enum Bound {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket and its path, which is removed in the end.
    Unix(UnixListener, PathBuf),
}

impl Bound {
    /// Binds `listen`. A unix socket is for its owner only, and a dead one is replaced.
    ///
    /// # Errors
    /// The operating system's.
    pub fn bind(listen: &Listen) -> io::Result<Self> {
        match listen {
            Listen::Tcp(address) => {
                let listener = TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Ok(Self::Tcp(listener))
            }
            Listen::Unix(path) => {
                remove_dead_socket(path)?;
                // Created 0600 from the first moment: nobody connects before a chmod.
                let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
                let listener = UnixListener::bind(path);
                rustix::process::umask(mask);
                let listener = listener?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
                listener.set_nonblocking(true)?;
                Ok(Self::Unix(listener, path.clone()))
            }
        }
    }

    /// The address, with the port that the system chose for port 0.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    /// Closes this end, the workers keep theirs; a unix socket's path is to be removed in the end.
    #[must_use]
    pub fn close(self) -> Option<PathBuf> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(_, path) => Some(path),
        }
    }

    fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(listener) => Self::Tcp(listener.try_clone()?),
            Self::Unix(listener, path) => Self::Unix(listener.try_clone()?, path.clone()),
        })
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => address.fmt(f),
                Err(error) => error.fmt(f),
            },
            Self::Unix(_, path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A socket that nobody listens on any more is left over from a process that died.
fn remove_dead_socket(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {
            match std::os::unix::net::UnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path)
                }
                _ => Err(io::ErrorKind::AddrInUse.into()),
            }
        }
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// The end of accepting and the connections that are still open.
#[derive(Default)]
pub struct Drain {
    /// Wakes every connection when draining begins.
    pub(super) begun: Arc<Notify>,
    draining: AtomicBool,
    open: AtomicUsize,
    /// Wakes who waits for the last connection.
    closed: Notify,
}

impl Drain {
    /// Stops accepting; connections end after the request that they are at.
    pub fn begin(&self) {
        self.draining.store(true, Ordering::Release);
        self.begun.notify_waiters();
    }

    /// True once [`Drain::begin`] was called.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Returns when draining begins.
    pub(super) async fn wait(&self) {
        let begun = self.begun.notified();
        if !self.has_begun() {
            begun.await;
        }
    }

    /// Returns when no connection is open any more.
    pub async fn finished(&self) {
        loop {
            let closed = self.closed.notified();
            if self.open.load(Ordering::Acquire) == 0 {
                return;
            }
            closed.await;
        }
    }
}

/// Counts one open connection.
struct Open(Arc<Drain>);

impl Open {
    fn enter(drain: &Arc<Drain>, limit: usize) -> Option<Self> {
        let open = drain.open.fetch_add(1, Ordering::AcqRel);
        let place = Self(Arc::clone(drain));
        (open < limit).then_some(place)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.closed.notify_waiters();
        }
    }
}

/// One worker: a thread with a runtime of its own, which accepts and serves.
pub struct Worker {
    name: String,
    listeners: Vec<Bound>,
    routes: watch::Receiver<Arc<Routes>>,
    drain: Arc<Drain>,
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
    ) -> io::Result<Self> {
        let listeners = listeners.iter().map(Bound::try_clone).collect::<io::Result<_>>()?;
        Ok(Self { name: format!("proxy-{index}"), listeners, routes, drain })
    }

    /// Accepts until draining begins; connections go on by themselves.
    #[allow(clippy::disallowed_methods)] // one of the two places that spawn
    async fn run(&mut self) -> io::Result<()> {
        for listener in self.listeners.drain(..) {
            let (routes, drain) = (self.routes.clone(), Arc::clone(&self.drain));
            match listener {
                Bound::Tcp(listener) => {
                    let listener = tokio::net::TcpListener::from_std(listener)?;
                    tokio::spawn(accept(routes, drain, async move || {
                        let (stream, _) = listener.accept().await?;
                        stream.set_nodelay(true)?;
                        Ok(stream)
                    }));
                }
                Bound::Unix(listener, _) => {
                    let listener = tokio::net::UnixListener::from_std(listener)?;
                    tokio::spawn(accept(routes, drain, async move || {
                        Ok(listener.accept().await?.0)
                    }));
                }
            }
        }
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            super::sweep(monotonic());
        }
    }
}

#[allow(clippy::disallowed_methods)] // one of the two places that spawn
async fn accept<I>(
    routes: watch::Receiver<Arc<Routes>>,
    drain: Arc<Drain>,
    next: impl AsyncFn() -> io::Result<I>,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    loop {
        let begun = drain.begun.notified();
        if drain.has_begun() {
            return;
        }
        let accepted = tokio::select! {
            accepted = next() => accepted,
            () = begun => return,
        };
        let limit = routes.borrow().limits.connections;
        match accepted {
            Ok(io) => {
                let Some(open) = Open::enter(&drain, limit) else {
                    tracing::warn!(limit, "too many connections: one was closed at once");
                    continue;
                };
                let served = Served { routes: routes.clone(), drain: Arc::clone(&drain) };
                let serving = serve(io, Protocol::Unknown, served);
                tokio::spawn(async move {
                    serving.await;
                    drop(open);
                });
            }
            // The caller was gone before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
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

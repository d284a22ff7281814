//! The composition root: the only place that wires and spawns.
//!
//! pingora-core gives the process: a service and a runtime for each worker thread, one for control
//! (refreshers, admin, reload), and the signals. Everything is bound before anything runs, so that
//! a port in use is told at once, and fetched after, so that an identity provider that is down
//! keeps nobody from starting.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{
    ListenFds, RunArgs, Server, ShutdownSignal, ShutdownSignalWatch, ShutdownWatch,
};
use pingora_core::services::Service;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, Notify, watch};
use tokio::time::timeout_at;
use tracing::{error, info, warn};

use crate::admin::{self, Snapshot};
use crate::clock::Moment;
use crate::config::{self, Config, ConfigError, Listen};
use crate::credential::directory::Directory;
use crate::metrics::Metrics;
use crate::proxy::listener::{Bound, Crew, Drain, Worker};
use crate::token_socket;

mod credentials;
mod files;
mod reload;
mod succession;
mod wiring;

use credentials::Refreshers;
pub use credentials::{handover, refresher, remedy, source};
use files::Files;
use reload::{Reload, watched};
use wiring::{Wiring, WiringError};

/// How long a stop waits for the refreshers at least, when draining used the grace up.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why the daemon could not start or reload.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The configuration is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// As configured.
        address: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// Routes cannot be wired.
    #[error(transparent)]
    Wiring(#[from] WiringError),
    /// A metric is not acceptable.
    #[error("metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
    /// Spans cannot be sent.
    #[cfg(feature = "otlp")]
    #[error(transparent)]
    Traces(#[from] crate::traces::TracesError),
    /// What only a restart can change was changed.
    #[error("{0} cannot change while bearerd runs; restart it")]
    NeedsRestart(&'static str),
}

/// Runs the daemon until a signal ends it.
///
/// # Errors
/// [`ServerError`] if it cannot start.
pub fn run(path: &Path) -> Result<(), ServerError> {
    // Looked at first: what changes from now on is a change.
    let mut files = Files::new([path.to_owned()]);
    let config = config::load(path)?;
    files.watch(watched(path, &config));
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let metrics = Arc::new(Metrics::new()?);
    #[cfg(feature = "otlp")]
    let traces = crate::traces::start()?;
    let listeners = bind(&config)?;
    let admin = bind_admin(&config)?;
    let token_socket = bind_token_socket(&config)?;
    let addresses: Vec<_> = listeners.iter().filter_map(Bound::address).collect();
    let mut wiring = Wiring::new(Arc::clone(&metrics), addresses);
    let mut refreshers = Refreshers::new(path.to_owned(), Arc::clone(&metrics));
    let prepared = wiring.prepare(&config)?;
    let credentials = refreshers.apply(&config);
    let routes = Arc::new(wiring.routes(&config, prepared, &credentials));
    let directory = refreshers.directory();
    let quit_endpoint = config.server.quit_endpoint;
    let snapshot = Snapshot { credentials, routes: Arc::clone(&routes), quit_endpoint };
    let (routes, routes_seen) = watch::channel(routes);
    let (snapshot, snapshot_seen) = watch::channel(Arc::new(snapshot));
    let (drain, crew) = (Arc::new(Drain::default()), Arc::new(Crew::default()));
    let refreshers = Arc::new(Mutex::new(refreshers));
    let mut server = Server::new_with_opt_and_conf(None, process(config.server.threads));
    for index in 0..config.server.threads {
        let (routes, drain, crew) = (routes_seen.clone(), Arc::clone(&drain), Arc::clone(&crew));
        let worker = Worker::new(index, &listeners, routes, drain, crew);
        let failed = |source| ServerError::Bind { address: "the workers".to_owned(), source };
        server.add_service(worker.map_err(failed)?);
    }
    let announcement = Announcement::of(&config, &listeners, &admin);
    let (handled, quit) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut sockets: Vec<PathBuf> = config.server.token_socket.iter().cloned().collect();
    // From here on only the workers listen: when they stop, connecting is refused.
    sockets.extend(listeners.into_iter().filter_map(Bound::close));
    let stop = Stop {
        handled: Arc::clone(&handled),
        quit: Arc::clone(&quit),
        sockets,
        drain,
        refreshers: Arc::clone(&refreshers),
        grace: config.server.shutdown_grace,
    };
    let path = path.to_owned();
    let uids = config.server.token_socket_uids.clone();
    let token_socket = token_socket.map(|socket| (socket, directory, uids));
    let reload = Reload { path, config, files, wiring, refreshers, metrics, routes, snapshot };
    let admin = Some((admin, snapshot_seen));
    server.add_service(Control { admin, token_socket, reload, handled, quit, announcement });
    server.run(RunArgs { shutdown_signal: Box::new(stop) });
    #[cfg(feature = "otlp")]
    traces.into_iter().for_each(crate::traces::Traces::end);
    info!("stopped");
    Ok(())
}

/// Draining is ours (see [`Stop`]): pingora would sleep its grace periods even when idle.
fn process(threads: usize) -> ServerConf {
    ServerConf {
        threads,
        work_stealing: false,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    }
}

fn bind(config: &Config) -> Result<Vec<Bound>, ServerError> {
    let bind = |listen: &Listen| {
        Bound::bind(listen, !config.server.peer_uids.is_empty()).map_err(|source| {
            let address = match listen {
                Listen::Tls(address) => format!("tls:{address}"),
                Listen::Tcp(address) => address.to_string(),
                Listen::Unix(path) => format!("unix:{}", path.display()),
            };
            ServerError::Bind { address, source }
        })
    };
    config.server.listen.iter().map(bind).collect()
}

fn bind_token_socket(config: &Config) -> Result<Option<UnixListener>, ServerError> {
    let Some(path) = &config.server.token_socket else {
        return Ok(None);
    };
    let for_others = !config.server.token_socket_uids.is_empty();
    match Bound::bind(&Listen::Unix(path.clone()), for_others) {
        Ok(Bound::Unix(listener, _)) => Ok(Some(listener)),
        Ok(_) => Ok(None),
        Err(source) => {
            let address = format!("unix:{}", path.display());
            Err(ServerError::Bind { address, source })
        }
    }
}

fn bind_admin(config: &Config) -> Result<TcpListener, ServerError> {
    let address = config.server.admin;
    let bound = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|source| ServerError::Bind { address: address.to_string(), source })
}

/// The addresses with the ports that the system chose: programs and people start from this line.
struct Announcement {
    listen: String,
    admin: String,
    credentials: usize,
    routes: usize,
}

impl Announcement {
    fn of(config: &Config, listeners: &[Bound], admin: &TcpListener) -> Self {
        let listen: Vec<String> = listeners.iter().map(Bound::to_string).collect();
        let admin = admin.local_addr().map_or_else(|_| String::new(), |a| a.to_string());
        let (credentials, routes) = (config.credentials.len(), config.routes.len());
        Self { listen: listen.join(" "), admin, credentials, routes }
    }

    fn make(&self) {
        let Self { listen, admin, credentials, routes } = self;
        info!(listen, admin, credentials, routes, "bearerd is listening");
    }
}

/// Refreshers, admin and reload, on a thread of their own: the data plane never waits for them.
struct Control {
    admin: Option<(TcpListener, watch::Receiver<Arc<Snapshot>>)>,
    /// Where tokens are handed out, which, and to whom.
    token_socket: Option<(UnixListener, Directory, Vec<u32>)>,
    reload: Reload,
    /// Told when the signals to end are handled.
    handled: Arc<Notify>,
    /// Tells that the admin listener was asked for the end.
    quit: Arc<Notify>,
    announcement: Announcement,
}

#[async_trait]
impl Service for Control {
    async fn start_service(&mut self, _: Option<ListenFds>, _: ShutdownWatch, _: usize) {
        // Nothing that a sudden end could lose is begun before signals are handled; and whoever
        // ends the refreshers finds them begun.
        let mut refreshers = self.reload.refreshers.lock().await;
        self.handled.notified().await;
        let hangup = match signal(SignalKind::hangup()) {
            Ok(hangup) => hangup,
            Err(error) => return error!(%error, "SIGHUP cannot be handled"),
        };
        self.announcement.make();
        refreshers.spawn();
        drop(refreshers);
        let Some((listener, snapshot)) = self.admin.take() else {
            return;
        };
        let listener = match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return error!(%error, "the admin listener cannot be served"),
        };
        let metrics = Arc::clone(&self.reload.metrics);
        let admin = admin::serve(listener, snapshot, metrics, Arc::clone(&self.quit));
        let token_socket = hand_out(self.token_socket.take());
        tokio::join!(admin, token_socket, self.reload.run(hangup));
    }

    fn name(&self) -> &'static str {
        "control"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

/// Serves the token socket, if there is one.
async fn hand_out(socket: Option<(UnixListener, Directory, Vec<u32>)>) {
    let Some((listener, credentials, uids)) = socket else {
        return;
    };
    match tokio::net::UnixListener::from_std(listener) {
        Ok(listener) => token_socket::serve(listener, credentials, uids).await,
        Err(error) => error!(%error, "the token socket cannot be served"),
    }
}

/// What a signal to end, or the same said to the admin listener, does: drain, then let the
/// refreshers finish, then tell pingora.
struct Stop {
    handled: Arc<Notify>,
    quit: Arc<Notify>,
    /// Paths of the unix sockets listened on.
    sockets: Vec<PathBuf>,
    drain: Arc<Drain>,
    refreshers: Arc<Mutex<Refreshers>>,
    grace: Duration,
}

#[async_trait]
impl ShutdownSignalWatch for Stop {
    async fn recv(&self) -> ShutdownSignal {
        let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
        let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
            error!("SIGTERM and SIGINT cannot be handled");
            return ShutdownSignal::FastShutdown;
        };
        self.handled.notify_one();
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            () = self.quit.notified() => "quitquitquit",
        };
        info!(signal = name, grace = ?self.grace, "stopping");
        let deadline = Moment::now().plus(self.grace);
        // First, and while the sockets still live: a successor may listen there from now on.
        for socket in &self.sockets {
            let _ = std::fs::remove_file(socket);
        }
        self.drain.begin();
        if timeout_at(deadline.mono, self.drain.finished()).await.is_err() {
            warn!("the grace is over: requests that are still under way are cut off");
        }
        let last = Moment::now().plus(LAST_WORDS);
        let deadline = if last.mono > deadline.mono { last } else { deadline };
        self.refreshers.lock().await.stop(deadline).await;
        ShutdownSignal::FastShutdown
    }
}

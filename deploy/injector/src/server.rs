//! The composition root: binds, serves both listeners, follows certificate and version, stops.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bearerd::telemetry::chain;
use bearerd::tls::{TlsError, TlsIdentity};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::admin::Admin;
use crate::certificate::Certificate;
use crate::decision::Defaults;
use crate::metrics::Metrics;
use crate::version::{ApiServer, Version};
use crate::webhook::Webhook;

/// Open connections of a listener; an API server keeps a few.
const MAX_CONNECTIONS: usize = 256;
/// For a TLS handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// For receiving a request head, and between two requests: longer than an API server keeps an idle
/// connection, so that it is not closed under its hands.
const HEAD_TIME: Duration = Duration::from_mins(2);
/// For what is still under way when a connection is to end.
const DRAIN_TIME: Duration = Duration::from_secs(10);
/// Between two requests for room.
const CROWD_PAUSE: Duration = Duration::from_millis(200);
/// Between two questions for the cluster's version.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// After a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What the command line says.
#[derive(Debug)]
pub struct Options {
    /// Where reviews come.
    pub listen: SocketAddr,
    /// Where health and metrics are.
    pub admin: SocketAddr,
    /// The webhook's certificate.
    pub identity: TlsIdentity,
    /// What decisions start from.
    pub defaults: Defaults,
    /// The cluster's version, if it is told.
    pub version: Option<Version>,
    /// Who is asked for it otherwise.
    pub api_server: ApiServer,
    /// How long reviews are answered after a signal to stop.
    pub linger: Duration,
}

/// Why the injector could not start.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The certificate cannot be used.
    #[error("the webhook's certificate cannot be used")]
    Certificate(#[from] TlsError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// As told.
        address: SocketAddr,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A metric is not acceptable.
    #[error("metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
    /// The machine has no room for a runtime, or takes no signal handler.
    #[error("the process cannot be set up")]
    Process(#[from] io::Error),
}

/// Runs until a signal ends it.
///
/// # Errors
/// [`ServerError`] if it cannot start.
pub fn run(options: Options) -> Result<(), ServerError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve_all(options))
}

async fn serve_all(options: Options) -> Result<(), ServerError> {
    let mut signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let metrics = Arc::new(Metrics::new()?);
    let certificate = Arc::new(Certificate::read(options.identity)?);
    let (reviews, admin) = (bind(options.listen).await?, bind(options.admin).await?);
    announce(&reviews, &admin);
    let version = Arc::new(OnceLock::new());
    if let Some(told) = options.version {
        let _ = version.set(told);
    }
    let stopping = Arc::new(AtomicBool::new(false));
    let webhook = Webhook::new(
        options.defaults,
        Arc::clone(&version),
        Arc::clone(&metrics),
        Arc::clone(&stopping),
    );
    let webhook = Role::Webhook(webhook, Arc::clone(&certificate));
    let health = Admin {
        version: Arc::clone(&version),
        stopping: Arc::clone(&stopping),
        metrics: Arc::clone(&metrics),
    };
    let (stop, stopped) = watch::channel(false);
    let reviews = serve(reviews, Arc::new(webhook), stopped.clone());
    // Tells of the stop for as long as it takes.
    let health = serve(admin, Arc::new(Role::Admin(health)), watch::channel(false).1);
    let mut reviews = pin!(reviews);
    let aside = async {
        tokio::join!(certificate.follow(&metrics), learn(&version, &options.api_server), health);
    };
    let mut aside = pin!(aside);
    let signalled = async {
        end(&mut signals).await;
        tracing::info!(linger = ?options.linger, "stopping");
        stopping.store(true, Ordering::Relaxed);
        sleep(options.linger).await;
    };
    tokio::select! {
        () = signalled => {}
        () = &mut reviews => {}
        () = &mut aside => {}
    }
    let _ = stop.send(true);
    tokio::select! {
        () = &mut reviews => {}
        () = &mut aside => {}
    }
    tracing::info!("stopped");
    Ok(())
}

async fn bind(address: SocketAddr) -> Result<TcpListener, ServerError> {
    TcpListener::bind(address).await.map_err(|source| ServerError::Bind { address, source })
}

/// The addresses with the ports that the system chose: tests start from this line.
fn announce(reviews: &TcpListener, admin: &TcpListener) {
    let address = |listener: &TcpListener| {
        listener.local_addr().map_or_else(|_| String::new(), |address| address.to_string())
    };
    let (listen, admin) = (address(reviews), address(admin));
    tracing::info!(listen, admin, "bearerd-injector is listening");
}

async fn end((terminate, interrupt): &mut (Signal, Signal)) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Asks for the cluster's version until it is known. Until then nothing is ready.
async fn learn(version: &OnceLock<Version>, api_server: &ApiServer) {
    while version.get().is_none() {
        match api_server.version().await {
            Ok(known) => {
                tracing::info!(version = %known, "the cluster's version");
                let _ = version.set(known);
            }
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(error, "the cluster's version is not known yet");
                sleep(ASK_EVERY).await;
            }
        }
    }
}

/// What a listener is for.
enum Role {
    Webhook(Webhook, Arc<Certificate>),
    Admin(Admin),
}

/// Serves `listener` until `stop` says so, and then what is under way.
async fn serve(listener: TcpListener, role: Arc<Role>, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let crowded = Arc::new(Notify::new());
    loop {
        while connections.try_join_next().is_some() {}
        make_room(&mut connections, &crowded).await;
        let accepted = tokio::select! {
            () = said(&mut stop) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let end = End { stop: stop.clone(), crowded: Arc::clone(&crowded) };
                connections.spawn(connection(stream, Arc::clone(&role), end));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Where there are as many connections as there may be, those that are idle are closed: an API server
/// comes again, and nobody else can keep it out. What is under way has [`DRAIN_TIME`].
async fn make_room(connections: &mut JoinSet<()>, crowded: &Notify) {
    if connections.len() < MAX_CONNECTIONS {
        return;
    }
    tracing::warn!(
        limit = MAX_CONNECTIONS,
        "no more connections at once; those that are idle are closed"
    );
    while connections.len() >= MAX_CONNECTIONS {
        crowded.notify_waiters();
        // Who was shaking hands has not heard it.
        let _ = timeout(CROWD_PAUSE, connections.join_next()).await;
    }
}

/// What ends a connection before its caller does.
struct End {
    stop: watch::Receiver<bool>,
    crowded: Arc<Notify>,
}

/// Ends once `stop` says so; never if nobody is left who could.
async fn said(stop: &mut watch::Receiver<bool>) {
    let said = stop.wait_for(|stop| *stop).await.is_ok();
    if !said {
        std::future::pending::<()>().await;
    }
}

async fn connection(stream: TcpStream, role: Arc<Role>, end: End) {
    let Role::Webhook(_, certificate) = &*role else {
        return exchange(stream, role, end).await;
    };
    let handshake = TlsAcceptor::from(certificate.current()).accept(stream);
    match timeout(HANDSHAKE_TIME, handshake).await {
        Ok(Ok(stream)) => exchange(stream, role, end).await,
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => tracing::debug!("TLS handshake took too long"),
    }
}

async fn exchange<S>(stream: S, role: Arc<Role>, mut end: End)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let role = Arc::clone(&role);
        async move {
            Ok::<_, Infallible>(match &*role {
                Role::Webhook(webhook, _) => webhook.answer(request).await,
                Role::Admin(admin) => admin.answer(&request),
            })
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = pin!(served);
    tokio::select! {
        _ = served.as_mut() => return,
        () = said(&mut end.stop) => {}
        () = end.crowded.notified() => {}
    }
    served.as_mut().graceful_shutdown();
    let _ = timeout(DRAIN_TIME, served).await;
}

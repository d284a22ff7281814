//! Takes a changed configuration over while requests run: all of it, or nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::{Mutex, watch};
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::ServerError;
use super::credentials::{Refreshers, login_files};
use super::files::Files;
use super::wiring::Wiring;
use crate::admin::Snapshot;
use crate::config::{self, Config};
use crate::metrics::Metrics;
use crate::proxy::route::Routes;
use crate::telemetry::chain;

/// How often a file that was refused is read again. What made it so may lie in another file, which
/// nobody watches since it is no part of the running configuration.
const MENDED_WITHIN: Duration = Duration::from_secs(5);

/// The running configuration and what it is made into.
pub(super) struct Reload {
    /// Where it is read from.
    pub path: PathBuf,
    /// As it runs.
    pub config: Config,
    /// What it is made of, since before it was read.
    pub files: Files,
    /// Makes routes.
    pub wiring: Wiring,
    /// Makes tokens.
    pub refreshers: Arc<Mutex<Refreshers>>,
    /// Counts reloads.
    pub metrics: Arc<Metrics>,
    /// To the workers.
    pub routes: watch::Sender<Arc<Routes>>,
    /// To the admin listener.
    pub snapshot: watch::Sender<Arc<Snapshot>>,
}

impl Reload {
    /// Reloads at `hangup` and when a file changes, for ever.
    pub(super) async fn run(&mut self, mut hangup: Signal) {
        let mut refused = false;
        loop {
            let changed = tokio::select! {
                _ = hangup.recv() => Vec::new(),
                changed = self.files.changed() => changed,
                () = mended(&self.path), if refused => Vec::new(),
            };
            let secrets_only = !changed.is_empty() && !changed.iter().any(|p| self.shapes(p));
            if !secrets_only {
                refused = self.reload().await;
                self.files.watch(watched(&self.path, &self.config));
            }
            self.refreshers.lock().await.look_again(&changed);
        }
    }

    /// Loads the file; a bad one changes nothing, and is told in log and metric. True if it was one.
    async fn reload(&mut self) -> bool {
        let result = self.take_over().await;
        self.metrics.reloaded(result.is_ok());
        match &result {
            Ok(()) => info!("configuration reloaded"),
            Err(error) => {
                error!(error = chain(error), "configuration not reloaded, the former one stays");
            }
        }
        matches!(result, Err(ServerError::Config(_)))
    }

    async fn take_over(&mut self) -> Result<(), ServerError> {
        let config = config::load(&self.path)?;
        let (now, new) = (&self.config.server, &config.server);
        for (same, key) in [
            (now.listen == new.listen, "server.listen"),
            (now.admin == new.admin, "server.admin"),
            (
                // The mode of the sockets depends on it.
                now.peer_uids.is_empty() == new.peer_uids.is_empty(),
                "whether there is a server.allow_peer_uids",
            ),
            (now.token_socket == new.token_socket, "server.token_socket"),
            (now.token_socket_uids == new.token_socket_uids, "server.token_socket_uids"),
            (now.threads == new.threads, "server.threads"),
            (now.shutdown_grace == new.shutdown_grace, "server.shutdown_grace_seconds"),
        ] {
            if !same {
                return Err(ServerError::NeedsRestart(key));
            }
        }
        let prepared = self.wiring.prepare(&config)?;
        let mut refreshers = self.refreshers.lock().await;
        let credentials = refreshers.apply(&config);
        refreshers.spawn();
        let routes = Arc::new(self.wiring.routes(&config, prepared, &credentials));
        self.routes.send_replace(Arc::clone(&routes));
        let quit_endpoint = config.server.quit_endpoint;
        self.snapshot.send_replace(Arc::new(Snapshot { credentials, routes, quit_endpoint }));
        for warning in &config.warnings {
            warn!("{warning}");
        }
        self.config = config;
        Ok(())
    }

    /// True for a file whose content is part of the configuration; what credentials name is read at
    /// each use.
    fn shapes(&self, path: &PathBuf) -> bool {
        *path == self.path || self.config.shaping_files().any(|file| file == *path)
    }
}

/// Waits until the file at `path` could be loaded.
async fn mended(path: &Path) {
    loop {
        sleep(MENDED_WITHIN).await;
        if config::load(path).is_ok() {
            return;
        }
    }
}

/// The files that `config`, which is at `path`, is made of, and what logins leave.
pub(super) fn watched(path: &Path, config: &Config) -> Vec<PathBuf> {
    let mut files = config.files();
    files.push(path.to_owned());
    files.extend(login_files(config));
    files
}

//! Starts, keeps and stops the refreshers that a configuration asks for.

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::timeout_at;

use crate::clock::Moment;
use crate::config::{Config, CredentialConfig, SourceConfig};
use crate::credential::directory::Directory;
use crate::credential::{Credential, publish};
use crate::metrics::Metrics;
use crate::refresher::{Ending, Refresher};
use crate::source::Source;
use crate::source::dialect::Dialect;
use crate::source::endpoint::Endpoint;
use crate::source::exec::ExecSource;
use crate::source::file::FileSource;
use crate::source::speaker::DialectSource;
use crate::source::template::Template;
use crate::store::{Rotation, Store, file::FileStore};

/// How long a credential that a reload replaces may take to finish its refresh.
const REPLACE_GRACE: Duration = Duration::from_secs(10);

/// Builds the source that `config` describes; it may ask for tokens of `subjects`.
#[must_use]
fn source(config: &CredentialConfig, subjects: &Directory) -> Source {
    let default_lifetime = config.refresh.default_lifetime;
    match &config.source {
        SourceConfig::File(path) => Source::File(FileSource::new(path.clone(), default_lifetime)),
        SourceConfig::Exec(program) => {
            Source::Exec(ExecSource::new(program.clone(), default_lifetime))
        }
        SourceConfig::Dialect { dialect, values, params, tls } => {
            let endpoint = Endpoint::new(tls.clone());
            let (dialect, values, params) = (Arc::clone(dialect), values.clone(), params.clone());
            let subjects = subjects.clone();
            let source =
                DialectSource::new(dialect, values, params, endpoint, default_lifetime, subjects);
            Source::Dialect(Box::new(source))
        }
    }
}

/// Builds the refresher of `config`, with the readers' end of what it will publish.
#[must_use]
pub fn refresher(
    config: &CredentialConfig,
    metrics: &Metrics,
    subjects: &Directory,
) -> (Refresher<Source>, Credential) {
    let (publisher, credential) = publish(&config.name);
    let store = config.store.clone().map(|path| Store::File(FileStore::new(path)));
    let refresher = Refresher {
        name: config.name.clone(),
        source: source(config, subjects),
        rotation: Rotation::new(config.refresh_token.clone(), store),
        publisher,
        policy: config.refresh,
        revoke_on_shutdown: config.revoke_on_shutdown,
        metrics: metrics.credential(&config.name),
        entropy: fastrand::f64,
    };
    (refresher, credential)
}

/// Something to spawn.
type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A refresher that runs, or is about to.
struct Running {
    config: CredentialConfig,
    credential: Credential,
    stop: watch::Sender<Option<Ending>>,
    /// Comes when the refresher has ended: the refresh token as it left it.
    ended: oneshot::Receiver<Rotation>,
}

impl Running {
    async fn stop(self, ending: Ending, deadline: Moment) {
        self.stop.send_replace(Some(ending));
        let _ = timeout_at(deadline.mono, self.ended).await;
    }

    /// Ends it in favour of `successor` and waits until it has: two owners of one refresh token
    /// would spend it twice. What it waits for has bounds of its own: an answer of the identity
    /// provider, then the store.
    async fn give_way(self, successor: &CredentialConfig, rotation: &mut Rotation) {
        let same_grant = self.config.refresh_token == successor.refresh_token
            && same_account(&self.config.source, &successor.source);
        let same_place = same_grant && self.config.store == successor.store;
        let ending = if same_place {
            Ending::Succeeded
        } else {
            Ending::Removed(Moment::now().plus(REPLACE_GRACE))
        };
        self.stop.send_replace(Some(ending));
        match self.ended.await {
            Ok(former) if same_place => rotation.inherit(former),
            Ok(former) if same_grant => rotation.adopt(former),
            _ => {}
        }
    }
}

/// A refresh token belongs to an account at an identity provider, and goes to no other.
fn same_account(one: &SourceConfig, other: &SourceConfig) -> bool {
    const NAMES: [&str; 5] = ["host", "token_url", "issuer", "client_id", "username"];
    match (one, other) {
        (
            SourceConfig::Dialect { dialect: a, values: x, .. },
            SourceConfig::Dialect { dialect: b, values: y, .. },
        ) => {
            let urls = |dialect: &Dialect| -> Vec<Template> {
                dialect.obtain.iter().map(|exchange| exchange.url.clone()).collect()
            };
            a.name == b.name
                && urls(a) == urls(b)
                && NAMES.iter().all(|name| x.get(*name) == y.get(*name))
        }
        _ => false,
    }
}

/// Every refresher of the process, by credential name.
pub(super) struct Refreshers {
    metrics: Arc<Metrics>,
    /// All of them, for those that are chained to another one.
    subjects: Directory,
    running: HashMap<String, Running>,
    pending: Vec<Task>,
}

impl Refreshers {
    /// None yet.
    #[must_use]
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        let (running, pending) = (HashMap::new(), Vec::new());
        Self { metrics, subjects: Directory::default(), running, pending }
    }

    /// Prepares what `config` asks for; [`Refreshers::spawn`] sets it going. A credential whose
    /// configuration is the same keeps its token and generation; one that changed starts anew when
    /// its former refresher has ended.
    pub(super) fn apply(&mut self, config: &Config) -> Vec<Credential> {
        let mut former = std::mem::take(&mut self.running);
        for wanted in &config.credentials {
            let running = match former.remove(&wanted.name) {
                Some(running) if running.config == *wanted => running,
                replaced => self.prepare(wanted, replaced),
            };
            self.running.insert(wanted.name.clone(), running);
        }
        let deadline = Moment::now().plus(REPLACE_GRACE);
        for removed in former.into_values() {
            self.pending.push(Box::pin(removed.stop(Ending::Removed(deadline), deadline)));
        }
        let in_order = config.credentials.iter().filter_map(|c| self.running.get(&c.name));
        let credentials: Vec<_> = in_order.map(|running| running.credential.clone()).collect();
        self.subjects.set(&credentials);
        credentials
    }

    fn prepare(&mut self, config: &CredentialConfig, replaced: Option<Running>) -> Running {
        let (mut refresher, credential) = refresher(config, &self.metrics, &self.subjects);
        let (stop, stopped) = watch::channel(None);
        let (end, ended) = oneshot::channel();
        let config = config.clone();
        let successor = config.clone();
        self.pending.push(Box::pin(async move {
            if let Some(replaced) = replaced {
                replaced.give_way(&successor, &mut refresher.rotation).await;
            }
            let rotation = refresher.run(stopped).await;
            // Nobody may be waiting for it: then its store is released here.
            drop(end.send(rotation));
        }));
        Running { config, credential, stop, ended }
    }

    /// Sets everything prepared going, on the runtime that this is called on.
    #[allow(clippy::disallowed_methods)] // one of the two places that spawn
    pub(super) fn spawn(&mut self) {
        self.pending.drain(..).for_each(|task| drop(tokio::spawn(task)));
    }

    /// Tells the credentials that read one of `paths` to look at it.
    pub(super) fn look_again(&self, paths: &[PathBuf]) {
        for running in self.running.values() {
            if running.config.files().iter().any(|file| paths.contains(file)) {
                running.credential.look_again();
            }
        }
    }

    /// Ends all of them; each may take until `deadline` for what must not be lost.
    pub(super) async fn stop(&mut self, deadline: Moment) {
        for running in self.running.values() {
            running.stop.send_replace(Some(Ending::Process(deadline)));
        }
        for (_, running) in self.running.drain() {
            running.stop(Ending::Process(deadline), deadline).await;
        }
    }
}

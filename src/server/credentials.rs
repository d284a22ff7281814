//! Starts, keeps and stops the refreshers that a configuration asks for.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::sync::watch;
use tokio::time::timeout_at;

use super::succession::{heirs, identity};
use crate::clock::Moment;
use crate::config::{Config, CredentialConfig, SourceConfig};
use crate::credential::directory::Directory;
use crate::credential::{Credential, publish};
use crate::metrics::Metrics;
use crate::refresher::{Ending, Legacy, Past, Refresher, Sharing};
use crate::source::endpoint::Endpoint;
use crate::source::exec::ExecSource;
use crate::source::file::FileSource;
use crate::source::speaker::DialectSource;
use crate::source::{Source, TokenSource, Traits};
use crate::store::file::{FileStore, left_beside};
use crate::store::shared::{Agreement, Party};
use crate::store::{Destination, Handover, Rotation, Store, StoreSettings};

/// How long a credential that a reload replaces may take to finish its refresh.
const REPLACE_GRACE: Duration = Duration::from_secs(10);

/// Builds the source that `config` describes; it may ask for tokens of `subjects`.
#[must_use]
pub fn source(config: &CredentialConfig, subjects: &Directory) -> Source {
    let bounds = config.bounds;
    match &config.source {
        SourceConfig::File(path) => Source::File(FileSource::new(path.clone(), bounds)),
        SourceConfig::Exec(program) => Source::Exec(ExecSource::new(program.clone(), bounds)),
        SourceConfig::Dialect { dialect, values, params, tls } => {
            let endpoint = Endpoint::new(tls.clone(), bounds);
            let (dialect, values, params) = (Arc::clone(dialect), values.clone(), params.clone());
            let subjects = subjects.clone();
            let source = DialectSource::new(dialect, values, params, endpoint, bounds, subjects);
            Source::Dialect(Box::new(source))
        }
    }
}

/// The command by which a person signs in for `config`, which stands in `file`.
#[must_use]
pub fn remedy(config: &CredentialConfig, file: &Path) -> Option<String> {
    let possible = config.login.is_some() && config.store.is_some();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@".contains(c);
    let mut file = file.display().to_string();
    if !file.chars().all(plain) {
        file = format!("'{}'", file.replace('\'', "'\\''"));
    }
    possible.then(|| format!("bearerd login --config {file} {}", config.name))
}

/// Where a login leaves what it brings for a credential that runs.
fn login_file(config: &CredentialConfig) -> Option<PathBuf> {
    match (&config.login, &config.store) {
        (Some(_), Some(StoreSettings::File(path))) => Some(left_beside(path)),
        _ => None,
    }
}

/// Where logins leave what they bring.
pub(super) fn login_files(config: &Config) -> impl Iterator<Item = PathBuf> {
    config.credentials.iter().filter_map(login_file)
}

/// Builds the refresher of `config`, which stands in `file`, with the readers' end of what it will
/// publish.
#[must_use]
pub fn refresher(
    config: &CredentialConfig,
    file: &Path,
    metrics: &Metrics,
    subjects: &Directory,
) -> (Refresher<Source>, Credential) {
    let (publisher, credential) = publish(&config.name, config.waiters);
    let source = source(config, subjects);
    let (rotation, agreement) = keeping(config, &source.traits());
    let refresher = Refresher {
        name: config.name.clone(),
        source,
        rotation,
        sharing: agreement.map(Sharing::by),
        past: Past::default(),
        publisher,
        policy: config.refresh,
        revoke_on_shutdown: config.revoke_on_shutdown,
        remedy: remedy(config, file),
        metrics: metrics.credential(&config.name),
        entropy: fastrand::f64,
    };
    (refresher, credential)
}

/// The way from a person's login to the store of `config`.
#[must_use]
pub fn handover(config: &CredentialConfig) -> Handover {
    Handover::new(match keeping(config, &Traits::default()) {
        (rotation, Some(agreement)) => Destination::Shared(rotation, Box::new(agreement.into())),
        (rotation, None) => Destination::Beside(rotation),
    })
}

/// The refresh token that `config` begins with, where it is kept, and with whom it is shared.
fn keeping(config: &CredentialConfig, traits: &Traits) -> (Rotation, Option<Agreement>) {
    let identity = identity(&config.source);
    let account = identity.as_ref().map(|identity| identity.account.clone());
    let rotation = |store| Rotation::new(config.refresh_token.clone(), store).of(identity);
    match &config.store {
        None => (rotation(None), None),
        Some(StoreSettings::File(path)) => {
            (rotation(Some(Store::File(FileStore::new(path.clone())))), None)
        }
        Some(StoreSettings::Shared(settings)) => {
            let Traits { rotation_grace: grace, rotation_expected: rotates, fallback, .. } =
                *traits;
            let party = Party { grace, rotates, fallback, account };
            (rotation(None).shared(), Some(Agreement::new(settings, party)))
        }
    }
}

/// Something to spawn.
type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A refresher that runs, or is about to, or is to end.
struct Running {
    config: CredentialConfig,
    credential: Credential,
    stop: watch::Sender<Option<Ending>>,
    /// Comes when the refresher has ended: what it leaves to a successor, if it has one.
    ended: oneshot::Receiver<Legacy>,
}

impl Running {
    /// Tells it how to end.
    fn end(&self, ending: Ending) {
        self.stop.send_replace(Some(ending));
    }

    /// Waits until it has ended, but not beyond `deadline`.
    async fn ended(self, deadline: Moment) {
        let _ = timeout_at(deadline.mono, self.ended).await;
    }

    /// Whether its tokens are those that `config` asks for.
    fn asks_as(&self, config: &CredentialConfig) -> bool {
        let asked = identity(&self.config.source);
        asked.is_some() && asked == identity(&config.source)
    }

    /// Ends it in favour of `successor` and waits until it has: two owners of one refresh token
    /// would spend it twice. What it waits for has bounds of its own: an answer of the identity
    /// provider, then the store.
    async fn give_way(self, config: &CredentialConfig, successor: &mut Refresher<Source>) {
        let account = |config: &CredentialConfig| identity(&config.source).map(|i| i.account);
        let as_it_is = self.config.store == config.store
            && account(&self.config).is_some()
            && account(&self.config) == account(config);
        self.end(if as_it_is {
            Ending::Succeeded
        } else {
            Ending::Replaced(Moment::now().plus(REPLACE_GRACE))
        });
        if let Ok(legacy) = self.ended.await {
            successor.inherit(legacy);
        }
    }
}

/// Every refresher of the process.
pub(super) struct Refreshers {
    /// The configuration file.
    file: PathBuf,
    metrics: Arc<Metrics>,
    /// All of them, for those that are chained to another one.
    subjects: Directory,
    /// In the order of the configuration.
    running: Vec<Running>,
    /// Those whose credential was removed, until they have ended.
    leaving: Vec<Running>,
    pending: Vec<Task>,
    /// The process ends: nothing is begun any more that it would cut off.
    over: bool,
}

impl Refreshers {
    /// None yet.
    #[must_use]
    pub(super) fn new(file: PathBuf, metrics: Arc<Metrics>) -> Self {
        let (running, leaving, pending) = (Vec::new(), Vec::new(), Vec::new());
        let (subjects, over) = (Directory::default(), false);
        Self { file, metrics, subjects, running, leaving, pending, over }
    }

    /// All credentials by name, also after reloads.
    pub(super) fn directory(&self) -> Directory {
        self.subjects.clone()
    }

    /// Prepares what `config` asks for; [`Refreshers::spawn`] sets it going. A credential whose
    /// configuration is the same keeps its token and generation; one that changed goes on when its
    /// former refresher has ended.
    pub(super) fn apply(&mut self, config: &Config) -> Vec<Credential> {
        self.leaving.retain_mut(|l| matches!(l.ended.try_recv(), Err(TryRecvError::Empty)));
        let ran = self.running.len();
        let former: Vec<Running> = self.running.drain(..).chain(self.leaving.drain(..)).collect();
        let configs: Vec<&CredentialConfig> =
            former.iter().map(|running| &running.config).collect();
        let heirs = heirs(&config.credentials, &configs);
        let names: Vec<String> = configs.iter().map(|config| config.name.clone()).collect();
        let mut former: Vec<Option<Running>> = former.into_iter().map(Some).collect();
        for (wanted, heir) in config.credentials.iter().zip(heirs) {
            let running = match (heir, heir.and_then(|index| former[index].take())) {
                (Some(index), Some(same)) if index < ran && same.config == *wanted => same,
                (_, replaced) => self.prepare(wanted, replaced),
            };
            self.running.push(running);
        }
        self.leaving = former.into_iter().flatten().collect();
        let deadline = Moment::now().plus(REPLACE_GRACE);
        self.leaving.iter().for_each(|leaving| leaving.end(Ending::Removed(deadline)));
        let configured: Vec<&str> = config.credentials.iter().map(|c| c.name.as_str()).collect();
        let gone = names.iter().filter(|name| !configured.contains(&name.as_str()));
        gone.for_each(|name| self.metrics.forget(name));
        let command = |c: &'_ CredentialConfig| remedy(c, &self.file);
        let logins = config.credentials.iter().filter_map(|c| Some((c.name.as_str(), command(c)?)));
        self.metrics.logins(logins);
        let credentials: Vec<_> = self.running.iter().map(|r| r.credential.clone()).collect();
        self.subjects.set(&credentials);
        credentials
    }

    fn prepare(&mut self, config: &CredentialConfig, replaced: Option<Running>) -> Running {
        let (mut refresher, credential) =
            refresher(config, &self.file, &self.metrics, &self.subjects);
        // The former one may be in the middle of a refresh, which takes its time.
        if let Some(replaced) = replaced.as_ref().filter(|former| former.asks_as(config)) {
            refresher.publisher.begin_with(&replaced.credential);
        }
        let (stop, stopped) = watch::channel(None);
        let (end, ended) = oneshot::channel();
        let config = config.clone();
        let successor = config.clone();
        self.pending.push(Box::pin(async move {
            if let Some(replaced) = replaced {
                replaced.give_way(&successor, &mut refresher).await;
            }
            let legacy = refresher.run(stopped.clone()).await;
            let ending = *stopped.borrow();
            // Without a successor the store is released here.
            if let Some(Ending::Succeeded | Ending::Replaced(_)) = ending {
                drop(end.send(legacy));
            }
        }));
        Running { config, credential, stop, ended }
    }

    /// Sets everything prepared going, on the runtime that this is called on; after a stop nothing.
    #[allow(clippy::disallowed_methods)] // one of the two places that spawn
    pub(super) fn spawn(&mut self) {
        let tasks = self.pending.drain(..).filter(|_| !self.over);
        tasks.for_each(|task| drop(tokio::spawn(task)));
    }

    /// Tells the credentials that read one of `paths` to look at it.
    pub(super) fn look_again(&self, paths: &[PathBuf]) {
        for running in &self.running {
            let login = login_file(&running.config);
            if running.config.files().iter().chain(&login).any(|file| paths.contains(file)) {
                running.credential.look_again();
            }
        }
    }

    /// Ends all of them, for ever; each may take until `deadline` for what must not be lost.
    pub(super) async fn stop(&mut self, deadline: Moment) {
        self.over = true;
        self.running.iter().for_each(|running| running.end(Ending::Process(deadline)));
        self.leaving.iter().for_each(|leaving| leaving.end(Ending::Removed(deadline)));
        for running in self.running.drain(..).chain(self.leaving.drain(..)) {
            running.ended(deadline).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reload_that_comes_after_a_stop_begins_nothing() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("token");
        std::fs::write(&path, "projected").unwrap();
        let text = format!(
            "[credentials.c]\nprovider = \"file\"\npath = \"{}\"\n\
             [[routes]]\nupstream = \"https://a.example\"\ncredential = \"c\"",
            path.display()
        );
        let config = crate::config::parse(&text).unwrap();
        let mut refreshers = Refreshers::new(PathBuf::new(), Metrics::new().unwrap().into());
        for (round, tokens) in [("running", 1), ("stopped", 0)] {
            let credentials = refreshers.apply(&config);
            refreshers.spawn();
            tokio::time::sleep(Duration::from_mins(1)).await;
            assert_eq!(credentials[0].outlook().generation, tokens, "{round}");
            refreshers.stop(Moment::now().plus(Duration::from_secs(1))).await;
        }
    }
}

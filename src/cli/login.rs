//! `bearerd login`: a person signs in, and whoever owns the credential's store goes on with what that
//! brings.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{sleep, timeout};

use super::{BeforeError, SOFTWARE, USAGE, complain, config_with};
use crate::config::{CredentialConfig, SourceConfig};
use crate::credential::directory::Directory;
use crate::login::{LoginError, Terms, Way, sign_in};
use crate::server;
use crate::source::speaker::DialectSource;
use crate::source::speaker::login::SignIn;
use crate::source::{FetchError, Source};
use crate::store::{Destination, Rotation, StoreError};

/// A running bearerd looks at least this often, and is given time to do so.
const TAKEN_WITHIN: Duration = Duration::from_secs(20);
/// How often is looked whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What a shell reports for a program that was interrupted.
const INTERRUPTED: u8 = 130;

#[derive(Debug, Error)]
enum CommandError {
    #[error(transparent)]
    Before(#[from] BeforeError),
    #[error("nobody can sign in for {0}: {1}")]
    NoLogin(String, String),
    #[error(
        "there is nowhere to keep the refresh token of {0}; write store = \
         \"file:/var/lib/bearerd/{0}.json\", or a redis:// or kubernetes: one that replicas share"
    )]
    NoStore(String),
    #[error("the store is not fit for a login")]
    Store(#[source] StoreError),
    #[error("cannot begin")]
    Io(#[from] std::io::Error),
    #[error("the identity provider cannot be asked")]
    Open(#[source] FetchError),
    #[error(transparent)]
    Login(#[from] LoginError),
    #[error("interrupted; nothing was kept")]
    Interrupted,
}

/// Exit code 0 if a refresh token is where it belongs.
pub(super) fn run(path: &Path, name: &str, way: Option<Way>, browser: bool) -> ExitCode {
    crate::telemetry::init_at("warn");
    let Err(error) = log_in(path, name, way, browser) else {
        return ExitCode::SUCCESS;
    };
    complain(&error);
    match error {
        CommandError::Before(_) | CommandError::NoLogin(..) | CommandError::NoStore(_) => {
            ExitCode::from(USAGE)
        }
        CommandError::Io(_) => ExitCode::from(SOFTWARE),
        CommandError::Interrupted => ExitCode::from(INTERRUPTED),
        _ => ExitCode::FAILURE,
    }
}

fn log_in(path: &Path, name: &str, way: Option<Way>, browser: bool) -> Result<(), CommandError> {
    let config = config_with(path, name)?;
    let credential = config.credentials.iter().find(|credential| credential.name == name);
    let credential = credential.ok_or_else(|| no_login(name, None))?;
    let (Some(login), Source::Dialect(source)) =
        (&credential.login, server::source(credential, &Directory::default()))
    else {
        return Err(no_login(name, Some(credential)));
    };
    if credential.store.is_none() {
        return Err(CommandError::NoStore(name.to_owned()));
    }
    let handover = server::handover(credential);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        // Nobody is to sign in for nothing.
        handover.can_leave().await.map_err(CommandError::Store)?;
        // Handled from here on: a signal cannot come between a token and its store.
        let mut signals = Signals::new()?;
        let terms = Terms { name, config: login, way, browser, handover: &handover };
        whole_login(*source, &terms, &mut signals).await?;
        let told = match handover.to {
            Destination::Beside(mut rotation) => {
                handed_over(&mut rotation, credential, &mut signals).await
            }
            Destination::Shared(..) => format!(
                "The refresh token of {name} is in {}: all who share it go on with it.",
                place(credential)
            ),
        };
        // Whoever closed it does not want to read it.
        let _ = writeln!(std::io::stdout(), "{told}");
        Ok(())
    });
    // A thread may still wait for a line that nobody types.
    runtime.shutdown_background();
    result
}

/// Why nobody can, and what to write where something would help.
fn no_login(name: &str, credential: Option<&CredentialConfig>) -> CommandError {
    let source = credential.map(|credential| &credential.source);
    let why = match source {
        Some(SourceConfig::Dialect { dialect, .. }) => {
            match (&dialect.login, dialect.rotating_key()) {
                _ if credential.is_some_and(|credential| credential.provider == "oauth2") => {
                    "that is for grant = \"refresh_token\" with issuer, authorization_url or \
                 device_authorization_url"
                        .to_owned()
                }
                (None, Some(key)) => {
                    format!("{} has no [login]; put a new {} in place", dialect.name, key.name)
                }
                (None, None) => format!("{} has no [login]: it takes no person", dialect.name),
                (Some(login), _) => {
                    let needs: BTreeSet<_> = login.exchanges().flat_map(|way| &way.needs).collect();
                    let needs: Vec<_> = needs.into_iter().map(String::as_str).collect();
                    match needs.as_slice() {
                        [] => "what is chosen in it takes no person".to_owned(),
                        needs => {
                            format!("the [login] of {} needs {}", dialect.name, needs.join(" and "))
                        }
                    }
                }
            }
        }
        _ => "its tokens come from elsewhere".to_owned(),
    };
    CommandError::NoLogin(name.to_owned(), why)
}

/// What asks a command to end: Ctrl-C, SIGTERM, and a terminal that was closed.
struct Signals {
    all: [Signal; 3],
    came: bool,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(Self { all: [interrupt?, terminate?, hangup?], came: false })
    }

    /// Returns when one has come, now or before.
    async fn come(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.all;
        if !self.came {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        }
        self.came = true;
    }
}

/// Signs in, and ends early when a signal says so, unless something has come already.
async fn whole_login(
    source: DialectSource,
    terms: &Terms<'_>,
    signals: &mut Signals,
) -> Result<(), CommandError> {
    let whole = async {
        let source = SignIn::open(source).await.map_err(CommandError::Open)?;
        let source = source.ok_or_else(|| no_login(terms.name, None))?;
        sign_in(&source, terms).await.map_err(CommandError::Login)
    };
    let mut whole = pin!(whole);
    let ended = tokio::select! {
        biased;
        result = &mut whole => Some(result),
        () = signals.come() => None,
    };
    match ended {
        Some(result) => result,
        // What has come is kept first; there is no other copy.
        None if terms.handover.has_begun() => whole.await,
        None => Err(CommandError::Interrupted),
    }
}

/// Sees to it that what was left is taken up, and says by whom. It is durable by now, so that a signal
/// ends only the waiting.
async fn handed_over(
    rotation: &mut Rotation,
    credential: &CredentialConfig,
    signals: &mut Signals,
) -> String {
    let (name, place) = (&credential.name, place(credential));
    match rotation.open().and_then(|()| rotation.take_up_login()).and_then(|_| rotation.sync()) {
        Ok(()) => format!("The refresh token of {name} is in {place}."),
        Err(StoreError::Held { holder, .. }) => {
            let taken = async {
                while rotation.login_waits() {
                    sleep(LOOK_EVERY).await;
                }
            };
            let taken = tokio::select! {
                biased;
                taken = timeout(TAKEN_WITHIN, taken) => Some(taken.is_ok()),
                () = signals.come() => None,
            };
            match taken {
                Some(true) => {
                    format!("The refresh token of {name} is in {place}: {holder} goes on with it.")
                }
                Some(false) => format!(
                    "The refresh token of {name} lies beside {place}, but {holder} has not taken it \
                     up: its log says why."
                ),
                None => format!(
                    "The refresh token of {name} lies beside {place}, for {holder} to take up."
                ),
            }
        }
        Err(error) => {
            let error = crate::telemetry::chain(&error);
            format!("The refresh token of {name} lies beside {place}, to be taken up: {error}")
        }
    }
}

fn place(credential: &CredentialConfig) -> String {
    credential.store.as_ref().map_or_else(String::new, ToString::to_string)
}

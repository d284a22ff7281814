//! `bearerd login`: a person signs in, and whoever owns the credential's store goes on with what that
//! brings.

use std::io::Write;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

use super::{BeforeError, SOFTWARE, USAGE, complain, config_with};
use crate::config::CredentialConfig;
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
    #[error(
        "nobody can sign in for {0}: that is for grant = \"refresh_token\" with issuer, \
         authorization_url or device_authorization_url, and for dialects that have a [login]"
    )]
    NoLogin(String),
    #[error(
        "there is nowhere to keep the refresh token of {0}; write store = \
         \"file:/var/lib/bearerd/{0}.json\""
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
        CommandError::Before(_) | CommandError::NoLogin(_) | CommandError::NoStore(_) => {
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
    let no_login = || CommandError::NoLogin(name.to_owned());
    let credential = credential.ok_or_else(no_login)?;
    let (Some(login), Source::Dialect(source)) =
        (&credential.login, server::source(credential, &Directory::default()))
    else {
        return Err(no_login());
    };
    if credential.store.is_none() {
        return Err(CommandError::NoStore(name.to_owned()));
    }
    let handover = server::handover(credential);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Nobody is to sign in for nothing.
        handover.can_leave().await.map_err(CommandError::Store)?;
        let terms = Terms { name, config: login, way, browser, handover: &handover };
        whole_login(*source, &terms).await?;
        let told = match handover.to {
            Destination::Beside(mut rotation) => handed_over(&mut rotation, credential).await,
            Destination::Shared(..) => format!(
                "The refresh token of {name} is in {}: all who share it go on with it.",
                place(credential)
            ),
        };
        // Whoever closed it does not want to read it.
        let _ = writeln!(std::io::stdout(), "{told}");
        Ok(())
    })
}

/// Signs in, and ends early when a signal says so, unless something has come already.
async fn whole_login(source: DialectSource, terms: &Terms<'_>) -> Result<(), CommandError> {
    let no_login = || CommandError::NoLogin(terms.name.to_owned());
    let whole = async {
        let source = SignIn::open(source).await.map_err(CommandError::Open)?;
        let source = source.ok_or_else(no_login)?;
        sign_in(&source, terms).await.map_err(CommandError::Login)
    };
    // Handled from here on: a signal cannot come between a token and its store.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut whole = pin!(whole);
    let ended = tokio::select! {
        biased;
        result = &mut whole => Some(result),
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
    };
    match ended {
        Some(result) => result,
        // What has come is kept first; there is no other copy.
        None if terms.handover.has_begun() => whole.await,
        None => Err(CommandError::Interrupted),
    }
}

/// Sees to it that what was left is taken up, and says by whom.
async fn handed_over(rotation: &mut Rotation, credential: &CredentialConfig) -> String {
    let (name, place) = (&credential.name, place(credential));
    match rotation.open().and_then(|()| rotation.take_up_login()).and_then(|_| rotation.sync()) {
        Ok(()) => format!("The refresh token of {name} is in {place}."),
        Err(StoreError::Held { holder, .. }) => {
            let taken = async {
                while rotation.login_waits() {
                    sleep(LOOK_EVERY).await;
                }
            };
            if timeout(TAKEN_WITHIN, taken).await.is_ok() {
                format!("The refresh token of {name} is in {place}: {holder} goes on with it.")
            } else {
                format!(
                    "The refresh token of {name} lies beside {place}, but {holder} has not taken it \
                     up: its log says why."
                )
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

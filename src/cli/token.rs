//! `bearerd token`: a usable access token on standard output, for scripts. A running bearerd is asked
//! first; who asks the identity provider himself does not spend a refresh token behind its back.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{BeforeError, SOFTWARE, USAGE, complain, config_with};
use crate::config::{Config, CredentialConfig, SourceConfig};
use crate::credential::directory::Directory;
use crate::metrics::Metrics;
use crate::refresher::OnceError;
use crate::secret::Secret;
use crate::server;
use crate::store::StoreError;
use crate::token_socket::{PATH, WAIT};

/// What a running bearerd may take beyond its own waiting.
const SLACK: Duration = Duration::from_secs(5);
/// The largest answer that is read, in bytes; no token is larger.
const MAX_ANSWER_BYTES: usize = 64 << 10;

#[derive(Debug, Error)]
enum CommandError {
    #[error(transparent)]
    Before(#[from] BeforeError),
    #[error(
        "the tokens of {0} are bound to a key (dpop) that no other program has: send requests \
         through bearerd"
    )]
    Bound(String),
    #[error("cannot begin")]
    Begin(#[from] io::Error),
    #[error("the metrics cannot be made")]
    Metrics(#[from] prometheus::Error),
    #[error("the bearerd at {path} cannot be asked")]
    Socket {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the running bearerd says: {0}")]
    Said(String),
    #[error(
        "a running bearerd has the refresh token of {0}; write server.token_socket, so that it can be \
         asked"
    )]
    Held(String, #[source] Box<OnceError>),
    #[error("no token for {0}{1}")]
    Once(String, String, #[source] Box<OnceError>),
}

/// Exit code 0 if a token was printed.
pub(super) fn run(path: &Path, name: &str) -> ExitCode {
    crate::telemetry::init_at("warn");
    match token(path, name) {
        Ok(token) => {
            let mut out = io::stdout().lock();
            let written = writeln!(out, "{}", token.expose()).and_then(|()| out.flush());
            if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(SOFTWARE) }
        }
        Err(error) => {
            complain(&error);
            match error {
                CommandError::Before(_) | CommandError::Bound(_) => ExitCode::from(USAGE),
                CommandError::Begin(_) | CommandError::Metrics(_) => ExitCode::from(SOFTWARE),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn token(path: &Path, name: &str) -> Result<Secret, CommandError> {
    let config = config_with(path, name)?;
    let chain = chain(&config, name);
    let binds = |one: &CredentialConfig| match &one.source {
        SourceConfig::Dialect { dialect, .. } => dialect.dpop,
        SourceConfig::File(_) | SourceConfig::Exec(_) => false,
    };
    if chain.last().is_some_and(|last| binds(last)) {
        return Err(CommandError::Bound(name.to_owned()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if let Some(socket) = &config.server.token_socket
        && let Some(token) = runtime.block_on(lent(socket, name))?
    {
        return Ok(token);
    }
    let (metrics, subjects) = (Metrics::new()?, Directory::default());
    let mut readers = Vec::new();
    let mut token = None;
    for credential in chain {
        let (refresher, reader) = server::refresher(credential, path, &metrics, &subjects);
        readers.push(reader);
        subjects.set(&readers);
        let came = runtime.block_on(refresher.stored_or_once());
        token = Some(came.map_err(|error| not_come(credential, path, error))?);
    }
    let token = token.filter(|token| token.prover().is_none());
    let bound = || CommandError::Bound(name.to_owned());
    token.map(|token| token.value().clone()).ok_or_else(bound)
}

/// The credential `name` behind those that it asks with.
fn chain<'c>(config: &'c Config, name: &str) -> Vec<&'c CredentialConfig> {
    let mut wanted = vec![name];
    let mut chain: Vec<_> = config.in_order_of_chains();
    // From the end: whoever is asked with stands before.
    chain.reverse();
    chain.retain(|credential| {
        let needed = wanted.contains(&credential.name.as_str());
        if needed {
            wanted.extend(credential.subjects());
        }
        needed
    });
    chain.reverse();
    chain
}

fn not_come(credential: &CredentialConfig, path: &Path, error: OnceError) -> CommandError {
    let name = credential.name.clone();
    match error {
        OnceError::Store(StoreError::Held { .. }) => CommandError::Held(name, Box::new(error)),
        error => {
            let remedy = server::remedy(credential, path).filter(|_| error.needs_operator());
            let remedy = remedy.map_or_else(String::new, |command| format!("; run {command}"));
            CommandError::Once(name, remedy, Box::new(error))
        }
    }
}

/// The token of a running bearerd; `None` if none runs.
async fn lent(path: &Path, name: &str) -> Result<Option<Secret>, CommandError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| CommandError::Socket {
        path: path.to_owned(),
        source,
    };
    let stream = match UnixStream::connect(path).await {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(failed(error.into())),
    };
    let answer = timeout(WAIT + SLACK, ask(stream, name)).await;
    let (status, body) = answer.map_err(|late| failed(late.into()))?.map_err(failed)?;
    if status == StatusCode::OK {
        return Ok(Some(body));
    }
    Err(CommandError::Said(body.expose().to_owned()))
}

async fn ask(
    stream: UnixStream,
    name: &str,
) -> Result<(StatusCode, Secret), Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(format!("{PATH}{name}"))
        .header(http::header::HOST, "bearerd")
        .body(Empty::<Bytes>::new())?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await?.to_bytes();
        Ok((status, Secret::new(String::from_utf8(body.to_vec())?)))
    };
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // The connection may end first: what it delivered is still to be read.
        _ = connection => exchange.await,
    }
}

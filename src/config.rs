//! Raw TOML to valid domain types. Nobody else sees raw configuration: what comes out of here can
//! be run, and every mistake is told with its line, its path and what to write instead.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use thiserror::Error;

use crate::schedule::RefreshPolicy;
use crate::secret::{SecretRef, read_bytes};
use crate::source::Bounds;
use crate::source::dialect::Dialect;
use crate::source::exec::Program;
use crate::source::template::{Value, Values};
use crate::store::StoreSettings;
use crate::tls::{TlsIdentity, TlsSettings};

mod answers;
mod credential;
mod dialect;
mod reader;
mod route;
mod routes;
mod server;
mod tls;
mod url;

pub use reader::Problem;
pub use routes::{ClientAuthorization, ReplayConfig, RouteConfig, Timeouts, UpstreamConfig};

/// A configuration that can be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `[server]`
    pub server: ServerConfig,
    /// `[credentials.*]`, in the order of the file.
    pub credentials: Vec<CredentialConfig>,
    /// `[[routes]]`, in the order of the file: the first match wins.
    pub routes: Vec<RouteConfig>,
    /// What an operator should know although it is allowed.
    pub warnings: Vec<String>,
}

/// `[server]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Where applications connect to.
    pub listen: Vec<Listen>,
    /// Health, metrics, status.
    pub admin: SocketAddr,
    /// Whether `POST /quitquitquit` on the admin listener ends the process.
    pub quit_endpoint: bool,
    /// Worker threads of the data plane.
    pub threads: usize,
    /// Host names accepted beside the listeners' own and the routes', in lowercase, without port.
    pub allowed_hosts: Vec<String>,
    /// How long a stop may take.
    pub shutdown_grace: Duration,
    /// What TLS listeners show, and whom they ask for a certificate.
    pub tls: Option<TlsIdentity>,
    /// What callers have to show, if anything.
    pub key: Option<KeyConfig>,
    /// Users who may connect to unix sockets; empty = this process's own.
    pub peer_uids: Vec<u32>,
    /// Where `bearerd token` asks for tokens.
    pub token_socket: Option<PathBuf>,
    /// Users who may ask there, beside this process's own.
    pub token_socket_uids: Vec<u32>,
    /// Bounds that hold for all connections.
    pub limits: Limits,
}

/// `server.key`: what callers have to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyConfig {
    /// The header field that it comes in, which goes no further.
    pub header: HeaderName,
    /// Any of these will do, so that one can be replaced while callers still show the other.
    pub keys: Vec<SecretRef>,
}

/// Where applications connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// An address and a port.
    Tcp(SocketAddr),
    /// The same, with TLS.
    Tls(SocketAddr),
    /// A unix socket, for its owner only.
    Unix(PathBuf),
}

/// `[server.limits]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections; further ones are refused.
    pub connections: usize,
    /// Request line and header fields of one request, in bytes.
    pub head_bytes: usize,
    /// Header fields of one request.
    pub head_fields: usize,
    /// Path and query of one request, in bytes.
    pub target_bytes: usize,
    /// For receiving a whole request head, from its first byte.
    pub head_time: Duration,
    /// Between two requests on a connection.
    pub idle_time: Duration,
    /// Copies kept for replays, over all requests, in bytes.
    pub replay_bytes: usize,
    /// Requests at the same time on one HTTP/2 connection.
    pub http2_streams: u32,
    /// Requests at the same time on all HTTP/2 connections; further ones are refused.
    pub http2_requests: usize,
    /// HTTP/2 streams that a caller may reset before they were looked at (CVE-2023-44487), and that
    /// its errors may make us reset, before its connection is closed.
    pub http2_resets: usize,
}

/// `[credentials.NAME]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialConfig {
    /// Its name.
    pub name: String,
    /// The word in the configuration, for tables.
    pub provider: String,
    /// Where tokens come from.
    pub source: SourceConfig,
    /// The dialect file of `provider = "custom"`.
    pub dialect_file: Option<PathBuf>,
    /// The configured refresh token.
    pub refresh_token: Option<SecretRef>,
    /// Where a rotating refresh token lives.
    pub store: Option<StoreSettings>,
    /// When to refresh.
    pub refresh: RefreshPolicy,
    /// How much is taken of what says what the token is.
    pub bounds: Bounds,
    /// Requests that may wait for it at the same time.
    pub waiters: usize,
    /// Revoke the access token at a graceful stop.
    pub revoke_on_shutdown: bool,
    /// How a person signs in, where that is possible.
    pub login: Option<LoginConfig>,
}

/// What a credential says for a person's login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginConfig {
    /// Where the browser comes back.
    pub redirect: Redirect,
    /// Extra parameters of the authorization request.
    pub authorization_params: Vec<(String, String)>,
}

/// `redirect_url`: `http://`, an address of this machine, and a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// `127.0.0.1`, `[::1]` or `localhost`; `None` = whichever of the two addresses there is.
    pub host: Option<String>,
    /// `None` = one that the system chooses.
    pub port: Option<u16>,
    /// As registered: it may be empty.
    pub path: String,
}

impl Default for Redirect {
    fn default() -> Self {
        Self { host: None, port: None, path: "/callback".to_owned() }
    }
}

impl Redirect {
    /// The host for messages.
    #[must_use]
    pub fn host(&self) -> &str {
        self.host.as_deref().unwrap_or("127.0.0.1")
    }
}

/// Where tokens come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceConfig {
    /// A token endpoint.
    Dialect {
        /// How to speak to it.
        dialect: Arc<Dialect>,
        /// What the credential says.
        values: Values,
        /// Extra form fields.
        params: Vec<(String, String)>,
        /// How it is verified.
        tls: TlsSettings,
    },
    /// A file.
    File(PathBuf),
    /// A program.
    Exec(Program),
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// Not UTF-8 or not there.
    #[error("cannot read {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// Mistakes in it, by line.
    #[error("{} in {path}:{}", count(.problems.len()), lines(.problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// At least one.
        problems: Vec<Problem>,
    },
}

fn count(problems: usize) -> String {
    if problems == 1 { "1 problem".to_owned() } else { format!("{problems} problems") }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().fold(String::new(), |lines, problem| format!("{lines}\n  {problem}"))
}

/// Reads the configuration at `path` and everything it refers to.
///
/// # Errors
/// [`ConfigError`], with every mistake that was found.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let io = |source| ConfigError::Io { path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(io)?;
    parse(&text).map_err(|problems| ConfigError::Invalid { path: path.to_owned(), problems })
}

/// As [`load`], from text.
///
/// # Errors
/// Every mistake that was found, by line.
pub fn parse(text: &str) -> Result<Config, Vec<Problem>> {
    reader::Reader::parse(text, |root| {
        let server = server::read(root.take("server"));
        let mut warnings = Vec::new();
        let credentials = credential::read_all(&root, &mut warnings);
        let routes = route::read_all(&root, credentials.as_deref());
        root.finish();
        let server = server?;
        let keys = server.key.iter().flat_map(|key| &key.keys);
        warnings.extend(keys.filter_map(|key| readable_by_others("server.key.any_of", key)));
        Some(Config { server, credentials: credentials?, routes: routes?, warnings })
    })
}

/// What to know about a secret that stands in the environment.
fn readable_by_others(key: &str, secret: &SecretRef) -> Option<String> {
    let SecretRef::Env(variable) = secret else { return None };
    Some(format!(
        "{key}: environment variable {variable} can be read by others who run as this user; a file is \
         better"
    ))
}

/// Reads a dialect file.
///
/// # Errors
/// Every mistake that was found, by line.
pub fn parse_dialect(text: &str) -> Result<Dialect, Vec<Problem>> {
    reader::Reader::parse(text, dialect::read)
}

impl Config {
    /// Every file that this configuration refers to and that may be replaced while it runs.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let secrets = self.credentials.iter().flat_map(CredentialConfig::files);
        let mut files: Vec<PathBuf> = secrets.chain(self.shaping_files()).collect();
        files.sort();
        files.dedup();
        files
    }

    /// The credentials such that each one stands behind those that it asks with.
    #[must_use]
    pub fn in_order_of_chains(&self) -> Vec<&CredentialConfig> {
        let mut ordered: Vec<&CredentialConfig> = Vec::new();
        let mut left: Vec<&CredentialConfig> = self.credentials.iter().collect();
        // Chains are sound, so that each round finds one.
        while let Some(index) = left.iter().position(|one| {
            one.subjects().all(|subject| ordered.iter().any(|done| done.name == subject))
        }) {
            ordered.push(left.remove(index));
        }
        ordered
    }

    /// Those that routes, listeners and the way of speaking to an identity provider are made of.
    pub fn shaping_files(&self) -> impl Iterator<Item = PathBuf> {
        let tls = self.routes.iter().filter_map(|route| route.upstream.tls.as_ref());
        let listeners =
            self.server.tls.iter().flat_map(|tls| {
                [&tls.certificate, &tls.key].into_iter().chain(&tls.client_ca_file)
            });
        let dialects = self.credentials.iter().filter_map(|c| c.dialect_file.as_ref());
        let keys = self.server.key.iter().flat_map(|key| &key.keys).filter_map(SecretRef::path);
        let keys = keys.map(Path::to_owned);
        tls.flat_map(TlsSettings::files).chain(listeners).chain(dialects).cloned().chain(keys)
    }
}

impl CredentialConfig {
    /// The files that its tokens depend on, read again at each use.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = self.source_files();
        let store = self.store.iter().flat_map(StoreSettings::files);
        files.extend(store.map(Path::to_owned));
        files
    }

    fn source_files(&self) -> Vec<PathBuf> {
        match &self.source {
            SourceConfig::File(path) => vec![path.clone()],
            SourceConfig::Exec(program) => {
                let secrets = program.environment.iter().map(|(_, secret)| secret);
                secrets.filter_map(SecretRef::path).map(Path::to_owned).collect()
            }
            SourceConfig::Dialect { values, tls, .. } => {
                let secrets = values.values().filter_map(Value::secret);
                let secrets = secrets.filter_map(SecretRef::path).map(Path::to_owned);
                secrets.chain(tls.files().cloned()).collect()
            }
        }
    }

    /// The credentials whose tokens it asks with.
    pub fn subjects(&self) -> impl Iterator<Item = &str> {
        let values = match &self.source {
            SourceConfig::Dialect { values, .. } => Some(values),
            SourceConfig::File(_) | SourceConfig::Exec(_) => None,
        };
        values.into_iter().flat_map(Values::values).filter_map(|value| match value {
            Value::Credential(name) => Some(name.as_str()),
            _ => None,
        })
    }
}

/// The content of a dialect file that a credential names.
fn dialect_file(path: &Path) -> Result<Dialect, String> {
    let bytes = read_bytes(path).map_err(|error| crate::telemetry::chain(&error))?;
    let text = std::str::from_utf8(&bytes).map_err(|error| error.to_string())?;
    parse_dialect(text).map_err(|problems| {
        let lines = lines(&problems).replace('\n', "\n  ");
        format!("{} in {}:{lines}", count(problems.len()), path.display())
    })
}

//! The command line: `run`, `check`, `login`, `token`, `healthcheck`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use thiserror::Error;

use crate::config::{self, Config, ConfigError};
use crate::login::Way;
use crate::server::{self, ServerError};
use crate::telemetry::chain;

mod check;
mod healthcheck;
mod login;
mod token;

/// Bad usage or configuration (`EX_USAGE` of sysexits.h).
const USAGE: u8 = 64;
/// A fault of our own or of the machine (`EX_SOFTWARE`).
const SOFTWARE: u8 = 70;

/// A reverse-proxy auth sidecar: injects bearer tokens, keeps them fresh, replaces them when an API
/// refuses them.
#[derive(Parser)]
#[command(name = "bearerd", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon; logs go to stderr
    Run {
        /// The configuration file
        #[arg(long)]
        config: PathBuf,
    },
    /// Check a configuration and show what it means
    Check {
        /// The configuration file
        #[arg(long)]
        config: PathBuf,
        /// Also obtain each token once, and say what the identity provider said
        #[arg(long)]
        fetch: bool,
    },
    /// Have a person sign in, for a credential's first refresh token or a new one
    Login {
        /// The configuration file
        #[arg(long)]
        config: PathBuf,
        /// The credential, as in [credentials.NAME]
        credential: String,
        /// By a code that is entered on any device (RFC 8628)
        #[arg(long, conflicts_with = "code")]
        device: bool,
        /// In a browser on this machine (RFC 8252)
        #[arg(long)]
        code: bool,
        /// Only show the address
        #[arg(long)]
        no_browser: bool,
    },
    /// Print a usable access token, for scripts
    Token {
        /// The configuration file
        #[arg(long)]
        config: PathBuf,
        /// The credential, as in [credentials.NAME]
        credential: String,
    },
    /// Ask a running daemon whether it is well, for exec probes
    Healthcheck {
        /// The daemon's admin address
        #[arg(long, default_value = "127.0.0.1:9901")]
        admin: SocketAddr,
        /// Ask for readiness instead of life
        #[arg(long)]
        ready: bool,
        /// Ask again for so many seconds until the answer is yes
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        wait: u32,
    },
}

/// Does what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(told) => {
            let _ = told.print();
            return ExitCode::from(if told.use_stderr() { USAGE } else { 0 });
        }
    };
    match arguments.command {
        Command::Run { config } => run(&config),
        Command::Check { config, fetch } => check::run(&config, fetch),
        Command::Login { config, credential, device, code, no_browser } => {
            let way = if device { Some(Way::Device) } else { code.then_some(Way::Code) };
            login::run(&config, &credential, way, !no_browser)
        }
        Command::Token { config, credential } => token::run(&config, &credential),
        Command::Healthcheck { admin, ready, wait } => {
            healthcheck::run(admin, ready, Duration::from_secs(wait.into()))
        }
    }
}

fn run(path: &Path) -> ExitCode {
    crate::telemetry::init();
    match server::run(path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = if matches!(error, ServerError::Config(_)) { USAGE } else { SOFTWARE };
            complain(&error);
            ExitCode::from(code)
        }
    }
}

fn complain(error: &dyn std::error::Error) {
    let _ = writeln!(std::io::stderr(), "bearerd: {}", chain(error));
}

/// Why a command for one credential did not succeed before it began.
#[derive(Debug, Error)]
enum BeforeError {
    /// The configuration is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Nothing of that name is configured.
    #[error("there is no [credentials.{0}]; there is {1}")]
    Unknown(String, String),
}

/// The configuration at `path`, which has a credential `name`.
fn config_with(path: &Path, name: &str) -> Result<Config, BeforeError> {
    let config = config::load(path)?;
    if config.credentials.iter().any(|credential| credential.name == name) {
        return Ok(config);
    }
    let names: Vec<&str> = config.credentials.iter().map(|c| c.name.as_str()).collect();
    Err(BeforeError::Unknown(name.to_owned(), names.join(", ")))
}

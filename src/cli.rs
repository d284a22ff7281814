//! The command line: `run`, `check`, `healthcheck`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::clock::Moment;
use crate::config::{self, Config, SourceConfig};
use crate::credential::directory::Directory;
use crate::metrics::Metrics;
use crate::server::{self, ServerError};
use crate::telemetry::chain;

mod healthcheck;

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
        Command::Check { config, fetch } => check(&config, fetch),
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

fn check(path: &Path, fetch: bool) -> ExitCode {
    let config = match config::load(path) {
        Ok(config) => config,
        Err(error) => {
            complain(&error);
            return ExitCode::from(USAGE);
        }
    };
    let mut out = std::io::stdout().lock();
    let _ = write!(out, "{}", tables(&config));
    for warning in &config.warnings {
        let _ = writeln!(out, "warning: {warning}");
    }
    if fetch && !fetch_all(&config, &mut out) {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Obtains each token once; true if all came.
fn fetch_all(config: &Config, out: &mut impl Write) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (Ok(runtime), Ok(metrics)) = (runtime, Metrics::new()) else {
        return false;
    };
    let mut all = true;
    let subjects = Directory::default();
    let mut readers = Vec::new();
    for credential in config.in_order_of_chains() {
        let (refresher, reader) = server::refresher(credential, &metrics, &subjects);
        readers.push(reader);
        subjects.set(&readers);
        let said = match runtime.block_on(refresher.once()) {
            Ok(token) => {
                let left = token.expires_at().remaining(Moment::now()).as_secs();
                format!("ok, expires in {left} s")
            }
            Err(error) => {
                all = false;
                chain(&error)
            }
        };
        let _ = writeln!(out, "fetch {}: {said}", credential.name);
    }
    all
}

fn tables(config: &Config) -> String {
    let credentials = config.credentials.iter().map(|credential| {
        let source = match &credential.source {
            SourceConfig::File(path) => path.display().to_string(),
            SourceConfig::Exec(program) => program.command.first().cloned().unwrap_or_default(),
            SourceConfig::Dialect { dialect, .. } => {
                let ways: Vec<&str> = dialect.obtain.iter().map(|e| e.name.as_str()).collect();
                ways.join(" > ")
            }
        };
        let store = credential.store.as_ref().map_or("-".to_owned(), |p| p.display().to_string());
        vec![credential.name.clone(), credential.provider.clone(), source, store]
    });
    let routes = config.routes.iter().map(|route| {
        let host = route.host.as_deref().unwrap_or("*");
        let matches = format!("{host}{}", route.path_prefix);
        let methods: Vec<&str> = route.methods.iter().map(http::Method::as_str).collect();
        let methods = if methods.is_empty() { "*".to_owned() } else { methods.join(",") };
        let header = route.header.to_string();
        let (url, credential) = (route.upstream.url.clone(), route.credential.clone());
        vec![route.name.clone(), matches, methods, url, credential, header]
    });
    format!(
        "{}\n{}",
        table(&["credential", "provider", "source", "store"], credentials),
        table(&["route", "matches", "methods", "upstream", "credential", "header"], routes)
    )
}

/// Columns as wide as their widest cell.
fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let header = header.iter().map(|cell| (*cell).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(header).chain(rows).collect();
    let columns = rows[0].len();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

fn complain(error: &dyn std::error::Error) {
    let _ = writeln!(std::io::stderr(), "bearerd: {}", chain(error));
}

//! `bearerd check`: what a configuration means, and with `--fetch` whether tokens come.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use super::{USAGE, complain};
use crate::clock::Moment;
use crate::config::{self, Config, SourceConfig};
use crate::credential::directory::Directory;
use crate::metrics::Metrics;
use crate::proxy::footprint::Footprint;
use crate::server;
use crate::telemetry::chain;

/// Exit code 0 if the configuration is valid, and with `fetch` if each token came.
pub(super) fn run(path: &Path, fetch: bool) -> ExitCode {
    let config = match config::load(path) {
        Ok(config) => config,
        Err(error) => {
            complain(&error);
            return ExitCode::from(USAGE);
        }
    };
    let mut out = std::io::stdout().lock();
    let _ = write!(out, "{}\n{}", tables(&config), memory(&config));
    for warning in &config.warnings {
        let _ = writeln!(out, "warning: {warning}");
    }
    if fetch && !fetch_all(&config, path, &mut out) {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Obtains each token once; true if all came.
fn fetch_all(config: &Config, path: &Path, out: &mut impl Write) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (Ok(runtime), Ok(metrics)) = (runtime, Metrics::new()) else {
        return false;
    };
    let mut all = true;
    let subjects = Directory::default();
    let mut readers = Vec::new();
    for credential in config.in_order_of_chains() {
        let (refresher, reader) = server::refresher(credential, path, &metrics, &subjects);
        readers.push(reader);
        subjects.set(&readers);
        let said = match runtime.block_on(refresher.once()) {
            Ok(token) => {
                let left = token.expires_at().remaining(Moment::now()).as_secs();
                format!("ok, expires in {left} s")
            }
            Err(error) => {
                all = false;
                let remedy = server::remedy(credential, path).filter(|_| error.needs_operator());
                let remedy = remedy.map_or_else(String::new, |command| format!("; run {command}"));
                format!("{}{remedy}", chain(&error))
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
        let store = credential.store.as_ref().map_or("-".to_owned(), ToString::to_string);
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

/// What the limits come to, in MiB.
fn memory(config: &Config) -> String {
    let footprint = Footprint::of(config);
    let mib = |bytes: usize| bytes.div_ceil(1 << 20);
    let kib = |bytes: usize| bytes.div_ceil(1 << 10);
    format!(
        "memory under attack, at most: {} MiB = {} + {} for replays + {} connections x {} KiB\n\
         if all of those speak HTTP/2: {} MiB = {} + {} for replays + {} connections x {} KiB \
         + {} requests x {} KiB\n",
        mib(footprint.with_http1()),
        mib(footprint.base),
        mib(footprint.copies),
        footprint.connections,
        kib(footprint.http1),
        mib(footprint.with_http2()),
        mib(footprint.base),
        mib(footprint.copies),
        footprint.connections,
        kib(footprint.http2),
        footprint.requests,
        kib(footprint.request),
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

//! Logs on stderr: JSON lines where a machine reads them, text where a person does; and how an
//! error is written there.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

/// Starts logging, at the level that `RUST_LOG` names, else at `info`.
pub fn init() {
    init_at("info");
}

/// The same, else at `level`.
pub fn init_at(level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let logs = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A full disk, or a reader that has gone, must end nothing: complaining about it there would panic.
    let logs = logs.log_internal_errors(false);
    // An error means that somebody else has set logging up already, as tests do.
    let _ = if std::io::stderr().is_terminal() {
        logs.with_target(false).try_init()
    } else {
        logs.json().flatten_event(true).try_init()
    };
}

/// An error and its causes on one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}

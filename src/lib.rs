//! bearerd: a reverse-proxy auth sidecar.

pub mod admin;
pub mod cli;
pub mod clock;
pub mod config;
pub mod credential;
pub mod dial;
pub mod metrics;
pub mod process;
pub mod proxy;
pub mod refresher;
pub mod schedule;
pub mod secret;
pub mod server;
pub mod source;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod token;

/// What bearerd calls itself towards identity providers.
pub const USER_AGENT: &str = concat!("bearerd/", env!("CARGO_PKG_VERSION"));

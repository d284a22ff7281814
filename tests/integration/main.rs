//! The real `bearerd` between real clients and emulated identity providers and APIs, on loopback.
//!
//! One binary, so that it is linked once. Every test starts its own daemon and its own emulators on
//! ephemeral ports and waits for events, never for time to pass.

// Tests look at clocks, wait on them and panic by trade; figures in metrics are small.
#![allow(
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::duration_suboptimal_units,
    clippy::format_collect,
    clippy::format_push_string,
    clippy::match_bool,
    clippy::unwrap_used
)]

mod admission;
mod again;
mod answers;
mod bodies;
mod bursts;
mod by_hand;
mod canary;
mod certificates;
mod conversation;
mod drowsy;
mod duplex;
mod durability;
mod early;
mod expiry;
mod glewlwyd;
mod goodbyes;
mod headers;
mod healthcheck;
mod hostile;
mod http2;
mod judge;
mod kubernetes;
mod login;
mod malformed;
mod matrix;
mod multiplexed;
mod names;
mod neighbours;
mod nominated;
mod oidc;
mod outages;
mod pressure;
mod quirks;
mod quit;
mod refused;
mod reload;
mod replays;
mod rotation;
mod secrets;
mod settling;
mod shared;
mod shutdown;
mod signs;
mod smoke;
mod sources;
mod stage;
mod stale;
mod streams;
mod support;
mod targets;
mod tls_listener;
mod token;
mod traces;
mod trailers;
mod upgrades;
mod upstreams;
mod vendors;
mod volume;
mod waiting;
mod websockets;

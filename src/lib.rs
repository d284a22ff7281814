//! bearerd: a reverse-proxy auth sidecar.
//!
//! An application speaks plain HTTP to it on loopback; it forwards each request to the API that a
//! route names, with a bearer token that it obtained, keeps fresh, and replaces when the API
//! answers 401. The application holds no credential at all.
//!
//! Pingora starts the runtimes, HTTP/1 and the life cycle of the credential are ours, HTTP/2 is
//! hyper's and h2's.
//!
//! # Map
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`clock`] | both clocks in one reading, taken at the edges |
//! | [`secret`], [`token`] | what must not be printed; how long it may be used |
//! | [`schedule`] | when to act next: pure functions |
//! | [`credential`] | one writer, cheap readers |
//! | [`refresher`] | the loop: fetch, store, publish, sleep |
//! | [`source`] | where tokens come from; vendors as data |
//! | [`login`] | a person signs in, once |
//! | [`store`] | where a rotating refresh token lives between processes |
//! | [`dial`], [`stream`], [`tls`] | one connection to a peer, verified |
//! | [`dpop`] | proofs for tokens that are bound to a key |
//! | [`proxy`] | one request, top to bottom |
//! | [`config`] | raw TOML to valid domain types |
//! | [`token_socket`] | tokens for other programs of the same user |
//! | [`metrics`], [`admin`], [`telemetry`] | what others see of it |
//! | `traces` | spans by OTLP, with the feature `otlp` |
//! | [`server`], [`cli`], [`process`] | the composition root, the commands, the process |
//!
//! Arrows point only `server → proxy, admin, refresher, config`; `proxy → credential → token`;
//! `refresher → source, store, schedule, credential`. A test holds them.
//!
//! # Invariants
//!
//! 1. Requests never fetch a token. Exactly one writer per credential.
//! 2. No usable token, no forwarding. An expired token is never sent, nor a bare request.
//! 3. What the identity provider rotated is stored before its access token is published.
//! 4. A usable token is never dropped because a refresh failed, and the loop never ends.
//! 5. The clock is an argument. Expiry is judged by both clocks, whichever is earlier.
//! 6. Only `proxy::reject` chooses a status code, only `config` reads TOML, only `credential` names
//!    arc-swap, only `server` and `proxy::listener` name pingora.
//! 7. Every queue, body, wait, retry and label set has a bound, and the bound has a name.
//! 8. A secret cannot be printed.

pub mod admin;
pub mod cli;
pub mod clock;
pub mod config;
pub mod credential;
pub mod dial;
pub mod dpop;
pub mod login;
pub mod metrics;
pub mod process;
pub mod proxy;
pub mod refresher;
pub mod schedule;
pub mod secret;
pub mod server;
pub mod source;
pub mod store;
pub mod stream;
pub mod telemetry;
pub mod tls;
pub mod token;
pub mod token_socket;
#[cfg(feature = "otlp")]
pub mod traces;

/// What bearerd calls itself towards identity providers.
pub const USER_AGENT: &str = concat!("bearerd/", env!("CARGO_PKG_VERSION"));

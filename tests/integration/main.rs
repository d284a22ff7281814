//! The real `bearerd` between real clients and emulated identity providers and APIs, on loopback.
//!
//! One binary, so that it is linked once. Every test starts its own daemon and its own emulators on
//! ephemeral ports and waits for events, never for time to pass.

mod admission;
mod answers;
mod bodies;
mod bursts;
mod canary;
mod headers;
mod oidc;
mod outages;
mod refused;
mod reload;
mod rotation;
mod secrets;
mod shutdown;
mod smoke;
mod stage;
mod support;
mod upstreams;
mod vendors;

//! Decisions, the real program, and a cluster that asks it.

#![allow(unreachable_pub, clippy::disallowed_methods)]

mod again;
mod cluster;
mod injected;
mod program;
mod recorded;
mod refused;
mod reviews;
mod support;

//! Decisions, the real program, and a cluster that asks it.

#![allow(unreachable_pub, clippy::disallowed_methods)]

mod cluster;
mod program;
mod reviews;
mod support;

//! HTTP/1 messages, as callers send and upstreams answer them (RFC 9112): strict, since what is read
//! wrongly here would be somebody else's request, or the answer to it.

use thiserror::Error;

pub(super) mod body;
pub(super) mod fields;
pub(super) mod inbox;
pub(super) mod lines;
pub(super) mod said;
pub(super) mod send;

/// What came is not HTTP/1, or not safely so.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("malformed message: {0}")]
pub struct Malformed(pub(super) &'static str);

/// The largest head or trailers that are read.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// All lines together, in bytes.
    pub(super) bytes: usize,
    /// How many fields.
    pub(super) fields: usize,
}

//! No spans: what `spans` is in builds without the feature `otlp`, and nothing at run time.

use http::response;

use crate::config::RouteConfig;
use crate::proxy::upstream::{Failed, Outgoing};

/// The spans of one request.
pub(super) struct Spans;

#[allow(clippy::unused_self)]
impl Spans {
    /// None.
    pub(super) fn new() -> Self {
        Self
    }

    /// The request is about to be sent.
    pub(super) fn begin(&mut self, _: &mut Outgoing, _: &RouteConfig) {}

    /// The response head is there, or will not come.
    pub(super) fn end<T>(&mut self, _: &Result<(response::Parts, T), Box<Failed>>) {}
}

//! A small HTTP/1.1 server over tokio, so that tests see what was sent byte by byte and can answer
//! with anything at all, including things that are not HTTP. What the answers mean is left to the
//! providers and the API.

mod body;
mod exchange;
mod message;
mod reply;
mod server;
mod tls;
mod wire;
mod write;

pub use body::pattern;
pub use exchange::Exchange;
pub use message::Recorded;
pub(crate) use reply::Piece;
pub use reply::{Body, EventSource, Fault, Feed, Framing, JsonStyle, Reply};
pub use server::{Handler, Server, Work};
pub(crate) use server::{listen, reset_on_close};
pub use tls::{Certificate, ClientCertificate, Tls};

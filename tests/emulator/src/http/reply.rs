//! An answer: status, fields in exact casing, a body in one of the three framings, and what goes
//! wrong with it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard, broadcast, mpsc, watch};

use crate::style;

/// One answer. Built by one of the constructors, then refined; written by the server.
#[derive(Clone, Debug)]
pub struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Body,
    pub(crate) framing: Framing,
    pub(crate) trailers: Vec<(String, String)>,
    pub(crate) interim: Vec<u8>,
    pub(crate) delay: Duration,
    pub(crate) drip: Option<(usize, Duration)>,
    pub(crate) fault: Fault,
    pub(crate) close: bool,
}

/// What a reply carries.
#[derive(Clone, Debug)]
pub enum Body {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A JSON value, rendered when written, so that a script can still change it.
    Json(Value, JsonStyle),
    /// So many bytes of [`pattern`](crate::http::pattern), never held in memory.
    Pattern(u64),
    /// Whatever the test pushes, until it ends the source.
    Events(EventSource),
    /// Pieces for this answer alone, from the first one on.
    Feed(Feed),
    /// The connection changes hands after the head (101): every byte is sent back.
    Echo,
}

/// How the end of the body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// `Content-Length`.
    Length,
    /// `Transfer-Encoding: chunked`, chunks of at most so many bytes.
    Chunked(usize),
    /// The connection closes.
    Close,
}

/// What goes wrong with a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// No answer; the connection stays open until the client gives up.
    Hang,
    /// The connection is closed without a byte.
    Lost,
    /// Head and so many bytes of the body, then the connection is closed.
    Cut {
        /// Bytes of the body (not of its framing) that still leave.
        after_bytes: u64,
    },
    /// Half of the body, then the connection is closed.
    CutHalf,
    /// So many bytes of the head, then the connection is closed.
    CutHead {
        /// Bytes of the head that still leave.
        after_bytes: usize,
    },
    /// These bytes instead of an answer; then the connection is closed.
    Garbage(Vec<u8>),
    /// These bytes instead of an answer; the connection stays open.
    Raw(Vec<u8>),
    /// The connection is reset (RST).
    Reset,
}

/// How a JSON body is spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonStyle {
    /// `{"a":1,"b":2}`
    Compact,
    /// `{"a" : "x\/y", "b" : 2}`, as Tencent writes it (T-E5).
    Spaced,
}

impl Reply {
    /// A status and an empty body with `Content-Length: 0`.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Body::Bytes(Vec::new()),
            framing: Framing::Length,
            trailers: Vec::new(),
            interim: Vec::new(),
            delay: Duration::ZERO,
            drip: None,
            fault: Fault::None,
            close: false,
        }
    }

    /// A JSON body, `application/json`.
    pub fn json(status: u16, value: Value) -> Self {
        Self::status(status)
            .header("Content-Type", "application/json")
            .body(Body::Json(value, JsonStyle::Compact))
    }

    /// Any bytes under any media type.
    pub fn bytes(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::status(status).header("Content-Type", content_type).body(Body::Bytes(body.into()))
    }

    /// A page that looks like a login form or a gateway's error page.
    pub fn html(status: u16) -> Self {
        let page =
            format!("<!doctype html><html><body><h1>{status}</h1><form></form></body></html>\n");
        Self::bytes(status, "text/html; charset=utf-8", page)
    }

    /// 200 with so many bytes of the pattern.
    pub fn pattern(length: u64) -> Self {
        Self::status(200)
            .header("Content-Type", "application/octet-stream")
            .body(Body::Pattern(length))
    }

    /// 200, `text/event-stream`, chunked, fed by the test.
    pub fn events(source: &EventSource) -> Self {
        Self::status(200)
            .header("Content-Type", "text/event-stream")
            .header("Cache-Control", "no-cache")
            .body(Body::Events(source.clone()))
            .chunked(usize::MAX)
    }

    /// 101 to the protocol named, then every byte is echoed.
    pub fn upgrade(protocol: &str) -> Self {
        Self::status(101)
            .header("Connection", "Upgrade")
            .header("Upgrade", protocol)
            .body(Body::Echo)
    }

    /// No answer but what the fault leaves.
    pub fn fault(fault: Fault) -> Self {
        Self::status(200).with_fault(fault)
    }

    /// Adds a field, its name in exactly this casing. A `Content-Length` or `Transfer-Encoding` set
    /// here replaces the server's own.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Adds `Retry-After`.
    #[must_use]
    pub fn retry_after(self, value: &str) -> Self {
        self.header("Retry-After", value)
    }

    /// Replaces the body.
    #[must_use]
    pub fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    /// Sends the body in chunks of at most so many bytes.
    #[must_use]
    pub fn chunked(mut self, piece: usize) -> Self {
        self.framing = Framing::Chunked(piece.max(1));
        self
    }

    /// Ends the body by closing the connection.
    #[must_use]
    pub fn close_delimited(mut self) -> Self {
        self.framing = Framing::Close;
        self
    }

    /// Announces `Connection: close` and closes after the answer.
    #[must_use]
    pub fn close(mut self) -> Self {
        self.close = true;
        self
    }

    /// Adds a trailer field; the body is sent in chunks.
    #[must_use]
    pub fn trailer(mut self, name: &str, value: &str) -> Self {
        if !matches!(self.framing, Framing::Chunked(_)) {
            self.framing = Framing::Chunked(16 * 1024);
        }
        self.trailers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends an interim answer (1xx) first: the whole head, such as `"HTTP/1.1 103 Early
    /// Hints\r\nLink: x\r\n\r\n"`.
    #[must_use]
    pub fn interim(mut self, head: &str) -> Self {
        self.interim.extend_from_slice(head.as_bytes());
        self
    }

    /// Waits before the first byte.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Sends the whole answer in pieces of so many bytes with a pause after each.
    #[must_use]
    pub fn drip(mut self, piece: usize, pause: Duration) -> Self {
        self.drip = Some((piece.max(1), pause));
        self
    }

    /// Makes it go wrong.
    #[must_use]
    pub fn with_fault(mut self, fault: Fault) -> Self {
        self.fault = fault;
        self
    }

    /// Replaces the JSON body through `edit`; a body of another kind stays as it is.
    pub(crate) fn edit_json(mut self, edit: impl FnOnce(&mut Value)) -> Self {
        if let Body::Json(value, _) = &mut self.body {
            edit(value);
        }
        self
    }
}

impl Body {
    /// JSON becomes bytes; the other kinds stay.
    pub(super) fn rendered(self) -> Self {
        match self {
            Self::Json(value, style) => Self::Bytes(style::render(&value, style).into_bytes()),
            other => other,
        }
    }
}

/// A stream that the test feeds: every answer built from it by [`Reply::events`] gets each message
/// from its own beginning on.
#[derive(Clone, Debug)]
pub struct EventSource {
    messages: broadcast::Sender<Option<Vec<u8>>>,
    subscribers: watch::Sender<usize>,
}

impl Default for EventSource {
    fn default() -> Self {
        Self { messages: broadcast::channel(4096).0, subscribers: watch::channel(0).0 }
    }
}

impl EventSource {
    /// A source that nobody listens to yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends these bytes to every open stream, as one chunk; returns how many there are.
    pub fn send(&self, bytes: impl Into<Vec<u8>>) -> usize {
        self.messages.send(Some(bytes.into())).unwrap_or(0)
    }

    /// Ends every open stream properly.
    pub fn end(&self) {
        let _nobody_listens = self.messages.send(None);
    }

    /// How many streams are open.
    pub fn subscribers(&self) -> usize {
        *self.subscribers.borrow()
    }

    /// Waits until exactly so many streams are open; false when the deadline passes first.
    pub async fn wait_for_subscribers(&self, wanted: usize, deadline: Duration) -> bool {
        let mut subscribers = self.subscribers.subscribe();
        let reached = subscribers.wait_for(|open| *open == wanted);
        tokio::time::timeout(deadline, reached).await.is_ok()
    }

    pub(super) fn subscribe(&self) -> Subscription<'_> {
        let messages = self.messages.subscribe();
        self.subscribers.send_modify(|open| *open += 1);
        Subscription { source: self, messages }
    }
}

/// One open stream; counted as long as it lives.
pub(super) struct Subscription<'s> {
    source: &'s EventSource,
    pub(super) messages: broadcast::Receiver<Option<Vec<u8>>>,
}

impl Drop for Subscription<'_> {
    fn drop(&mut self) {
        self.source.subscribers.send_modify(|open| *open -= 1);
    }
}

/// A piece of a [`Feed`]; `None` ends it properly.
pub(crate) type Piece = Option<Vec<u8>>;

/// A stream for one answer. When its sender is gone without an end, the connection is cut.
#[derive(Clone, Debug)]
pub struct Feed(Arc<Mutex<mpsc::UnboundedReceiver<Piece>>>);

impl Feed {
    /// A feed and what fills it.
    pub(crate) fn new() -> (mpsc::UnboundedSender<Piece>, Self) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (sender, Self(Arc::new(Mutex::new(receiver))))
    }

    pub(super) async fn pieces(&self) -> MutexGuard<'_, mpsc::UnboundedReceiver<Piece>> {
        self.0.lock().await
    }
}

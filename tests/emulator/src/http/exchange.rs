//! One request being served. The handler decides when the body is read, so that it can answer
//! early, hold back a 100 (Continue), or never read at all.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::body::{self, Expected};
use super::message::Recorded;
use super::reply::Reply;
use super::wire::Wire;

/// Heads beyond this are refused.
const HEAD_LIMIT: usize = 1 << 20;
const FIELD_LIMIT: usize = 160;

/// A request whose head has arrived and whose body may still be on its way.
pub struct Exchange {
    pub(super) wire: Wire,
    request: Recorded,
    expected: Option<Expected>,
    /// Whether a client that expects it gets `100 Continue` before its body is read.
    pub(crate) sends_continue: bool,
}

impl Exchange {
    /// The request without its body.
    pub fn head(&self) -> &Recorded {
        &self.request
    }

    /// Reads the body (after `100 Continue`, if the client expects it) and gives the whole request.
    pub async fn body(&mut self) -> io::Result<Arc<Recorded>> {
        if let Some(expected) = self.expected {
            if self.sends_continue && self.expects_continue() {
                self.wire.send(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            }
            body::read(&mut self.wire, expected, &mut self.request).await?;
            self.expected = None;
        }
        Ok(Arc::new(self.request.clone()))
    }

    /// Reads nothing more and answers nothing, as long as the server lives.
    pub async fn stall(&mut self) -> io::Result<Reply> {
        std::future::pending().await
    }

    fn expects_continue(&self) -> bool {
        self.request.version == 1
            && self.request.header("expect").is_some_and(|v| v.eq_ignore_ascii_case("100-continue"))
    }

    pub(super) fn new(wire: Wire, tls: bool, sni: Option<String>, connection: u64) -> Self {
        let request = Recorded {
            method: String::new(),
            target: String::new(),
            version: 1,
            head: Vec::new(),
            raw_head: Vec::new(),
            body: Vec::new(),
            body_length: 0,
            body_sha256: String::new(),
            trailers: Vec::new(),
            tls,
            sni,
            connection,
            at: Instant::now(),
        };
        Self { wire, request, expected: None, sends_continue: true }
    }

    /// Waits for the next request's head. `Ok(false)`: the client closed between requests.
    pub(super) async fn next(&mut self) -> io::Result<bool> {
        let length = loop {
            if let Some(length) = self.parse()? {
                break length;
            }
            if self.wire.ahead().len() > HEAD_LIMIT {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "head too long"));
            }
            if self.wire.fill().await? == 0 {
                return match self.wire.ahead() {
                    [] => Ok(false),
                    _ => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        };
        self.request.raw_head = self.wire.take(length);
        self.request.at = Instant::now();
        self.request.body = Vec::new();
        self.request.body_length = 0;
        self.request.body_sha256.clear();
        self.request.trailers.clear();
        let malformed = |reason| io::Error::new(io::ErrorKind::InvalidData, reason);
        self.expected = Some(body::expected(&self.request).map_err(malformed)?);
        self.sends_continue = true;
        Ok(true)
    }

    fn parse(&mut self) -> io::Result<Option<usize>> {
        let mut fields = [httparse::EMPTY_HEADER; FIELD_LIMIT];
        let mut parsed = httparse::Request::new(&mut fields);
        let status = parsed
            .parse(self.wire.ahead())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        let httparse::Status::Complete(length) = status else {
            return Ok(None);
        };
        self.request.method = parsed.method.unwrap_or_default().to_owned();
        self.request.target = parsed.path.unwrap_or_default().to_owned();
        self.request.version = parsed.version.unwrap_or(1);
        self.request.head = parsed
            .headers
            .iter()
            .map(|field| (field.name.to_owned(), field.value.to_vec()))
            .collect();
        Ok(Some(length))
    }

    /// Whether another request may follow on the connection, judged by this one. A body that was
    /// never asked for by `100 Continue` may come or not (RFC 9110 §10.1.1): nothing after it can
    /// be read safely.
    pub(super) fn keeps_alive(&self) -> bool {
        if self.body_unread() && self.expects_continue() {
            return false;
        }
        let close = self.request.headers("connection").iter().any(|value| {
            value
                .split(|byte| *byte == b',')
                .any(|one| one.trim_ascii().eq_ignore_ascii_case(b"close"))
        });
        self.request.version == 1 && !close
    }

    /// Reads what an early answer left of the body, so that the next request can be found.
    pub(super) async fn drain_body(&mut self) -> io::Result<()> {
        match self.expected.take() {
            Some(expected) => body::read(&mut self.wire, expected, &mut self.request).await,
            None => Ok(()),
        }
    }

    pub(super) fn body_unread(&self) -> bool {
        self.expected.is_some_and(|expected| expected != Expected::Length(0))
    }
}

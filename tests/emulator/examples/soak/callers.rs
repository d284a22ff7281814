//! Callers: each on one connection, at a steady rate, with an eye on every answer.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, sleep_until, timeout};

use super::upstream::{Upstream, content, field};

/// One request in so many is given up in the middle.
const GIVEN_UP: u64 = 97;
/// One in so many has a body, one in so many a large answer.
const UPLOADS: u64 = 7;
const LARGE: u64 = 53;
/// No answer takes so long: an outage here is shorter than the time that a request may wait.
const PATIENCE: Duration = Duration::from_secs(15);

/// All callers, and what they saw.
pub struct Callers {
    proxy: SocketAddr,
    upstream: Arc<Upstream>,
    next: Cell<u64>,
    counts: RefCell<BTreeMap<String, u64>>,
    broken: RefCell<Vec<String>>,
}

enum Outcome {
    Answered,
    GaveUp,
    /// No whole answer, or one that the proxy made itself.
    Told(String),
}

impl Callers {
    /// Callers of the proxy at `proxy`.
    pub fn to(proxy: SocketAddr, upstream: &Arc<Upstream>) -> Self {
        let (next, counts, broken) = (Cell::new(1), RefCell::default(), RefCell::default());
        Self { proxy, upstream: Arc::clone(upstream), next, counts, broken }
    }

    /// Answers a second when every caller sends as soon as it has its answer.
    pub async fn measure(&self, connections: usize, time: Duration) -> f64 {
        self.keep_up(connections, f64::INFINITY, time).await;
        let answered = self.counts.take().get("200").copied().unwrap_or(0);
        answered as f64 / time.as_secs_f64()
    }

    /// Sends `rate` requests a second, spread over the connections, for `time`.
    pub async fn keep_up(&self, connections: usize, rate: f64, time: Duration) {
        let interval = Duration::from_secs_f64(connections as f64 / rate);
        let until = Instant::now() + time;
        let calling = (0..connections).map(|_| self.call(interval, until));
        futures_join(calling).await;
    }

    /// How many requests ended in which way.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.borrow().clone()
    }

    /// Answers that break a promise.
    pub fn broken(&self) -> Vec<String> {
        self.broken.borrow().clone()
    }

    async fn call(&self, interval: Duration, until: Instant) {
        let mut connection = None;
        let mut at = tokio::time::Instant::now();
        while Instant::now() < until {
            at += interval;
            sleep_until(at).await;
            let id = self.next.replace(self.next.get() + 1);
            let life = self.upstream.life();
            let outcome = timeout(PATIENCE, self.request(&mut connection, id)).await;
            let restarted = life % 2 == 1 || self.upstream.life() != life;
            let word = match outcome {
                Ok(Ok(Outcome::Answered)) => "200".to_owned(),
                Ok(Ok(Outcome::GaveUp)) => "given up by the caller".to_owned(),
                Ok(Ok(Outcome::Told(what))) if what.starts_with("401 the upstream") => {
                    connection = None;
                    if !self.upstream.has_just_taken_back() {
                        self.broken.borrow_mut().push(format!("request {id}: {what}"));
                    }
                    format!("{what}: a token taken back right after its refresh")
                }
                Ok(Ok(Outcome::Told(what))) => {
                    connection = None;
                    if !restarted {
                        self.broken.borrow_mut().push(format!("request {id}: {what}"));
                    }
                    format!("{what}, while the upstream restarted")
                }
                Ok(Err(error)) => {
                    connection = None;
                    if !restarted {
                        self.broken.borrow_mut().push(format!("request {id}: {error}"));
                    }
                    "cut off, while the upstream restarted".to_owned()
                }
                Err(_) => {
                    connection = None;
                    self.broken.borrow_mut().push(format!("request {id}: no answer"));
                    "no answer".to_owned()
                }
            };
            *self.counts.borrow_mut().entry(word).or_default() += 1;
        }
    }

    async fn request(&self, connection: &mut Option<TcpStream>, id: u64) -> io::Result<Outcome> {
        let mut stream = match connection.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.proxy).await?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        let length = if id.is_multiple_of(LARGE) { 256 << 10 } else { 200 + id as usize % 800 };
        let body = if id.is_multiple_of(UPLOADS) {
            content(id, 1 + id as usize % 20_000)
        } else {
            Vec::new()
        };
        let method = if body.is_empty() { "GET" } else { "POST" };
        let mut request = format!(
            "{method} /soak/{id} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer mine\r\n\
             x-want: {id} {length}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(&body);
        if id.is_multiple_of(GIVEN_UP) {
            // Somewhere in the request, or in the answer.
            stream.write_all(&request[..(id as usize * 31) % request.len()]).await?;
            if id.is_multiple_of(2) {
                sleep(Duration::from_millis(id % 5)).await;
            }
            return Ok(Outcome::GaveUp);
        }
        stream.write_all(&request).await?;
        let mut answer = Vec::with_capacity(2048);
        let end = loop {
            if let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let told = field(&head, "content-length").and_then(|text| text.parse::<usize>().ok());
        let told = told.ok_or_else(|| io::Error::other("an answer without a length"))?;
        while answer.len() < end + told {
            if stream.read_buf(&mut answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        if !head.starts_with("HTTP/1.1 200 ") {
            let status = head.split(' ').nth(1).unwrap_or("?");
            let reason = field(&head, "bearerd-reason").unwrap_or("the upstream's own");
            return Ok(Outcome::Told(format!("{status} {reason}")));
        }
        let own = field(&head, "x-id") == Some(&id.to_string()) && told == length;
        if !own || answer[end..] != content(id, length) {
            self.broken.borrow_mut().push(format!("request {id}: somebody else's answer"));
        }
        *connection = Some(stream);
        Ok(Outcome::Answered)
    }
}

/// Polls all of them in this task until all have ended.
async fn futures_join(futures: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut running: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        running.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if running.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

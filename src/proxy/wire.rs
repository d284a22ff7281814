//! A caller's connection as hyper sees it, and what its requests need to know of it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{StatusCode, response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::framing::Follower;
use super::hop;
use super::reject::{self, Reason};
use super::route::Routes;
use super::tunnel::Tunnel;
use super::upstream::Call;
use super::watchdog::Watchdog;

/// How long a caller that still sends is listened to after our last word.
const LINGER: Duration = Duration::from_secs(5);

/// The largest piece of a body that is taken at once, as with
/// [`MAX_READ`](super::upstream::http1::MAX_READ).
const PIECE: u64 = super::upstream::http1::MAX_READ as u64;

/// A head and a body that are together no longer than this are written as one piece: the copy costs
/// less than a vectored write does.
const GATHERED: usize = 1 << 10;

/// What a connection and the requests on it share.
pub struct Wire {
    /// The deadline of what it is at.
    pub watchdog: Watchdog,
    /// hyper has nothing in hand: all that came was whole messages, all that it said is written.
    settled: AtomicBool,
    /// A head with both framings has come; from then on no chunked request is believed.
    ambiguous: AtomicBool,
    /// A request was given to us, and its answer is not all out.
    answering: AtomicBool,
    /// There are no messages any more, but a tunnel's bytes.
    tunnelled: AtomicBool,
    /// The present request's caller understands interim responses.
    takes_early: AtomicBool,
    /// There is something in `early`.
    has_early: AtomicBool,
    early: Mutex<Vec<u8>>,
    tunnel: Mutex<Option<Box<Tunnel>>>,
    /// There is something in `upload`.
    has_upload: AtomicBool,
    upload: Mutex<Weak<Mutex<Call>>>,
}

impl Wire {
    /// A connection under `watchdog`.
    #[must_use]
    pub fn new(watchdog: Watchdog) -> Self {
        Self {
            watchdog,
            settled: AtomicBool::new(false),
            ambiguous: AtomicBool::new(false),
            answering: AtomicBool::new(false),
            tunnelled: AtomicBool::new(false),
            takes_early: AtomicBool::new(false),
            has_early: AtomicBool::new(false),
            early: Mutex::default(),
            tunnel: Mutex::default(),
            has_upload: AtomicBool::new(false),
            upload: Mutex::default(),
        }
    }

    /// True if hyper could be replaced by another one without losing anything.
    pub(super) fn is_settled(&self) -> bool {
        let idle = !self.has_early.load(Relaxed) && !self.has_upload.load(Relaxed);
        self.settled.load(Relaxed) && !self.is_ambiguous() && idle
    }

    /// True if a request that says that it is chunked may have said a length as well.
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        self.ambiguous.load(Relaxed)
    }

    /// hyper has given a request to us: until its answer is out, nothing else is said.
    pub(super) fn answer_begins(&self) {
        self.answering.store(true, Relaxed);
    }

    /// Whether interim responses may be said to the present request's caller: HTTP/1.1's only
    /// (RFC 9110 §15.2; hyper has no way to say them in HTTP/2).
    pub(super) fn take_early(&self, takes: bool) {
        self.takes_early.store(takes, Relaxed);
    }

    /// Says a 103 before anything that hyper has still to say (RFC 8297); others are of no use to
    /// who did not ask for them.
    pub(super) fn say_early(&self, mut head: response::Parts) {
        if head.status != StatusCode::EARLY_HINTS
            || !self.takes_early.load(Relaxed)
            || hop::strip_response(&mut head.headers, true).is_err()
        {
            return;
        }
        let mut early = lock(&self.early);
        early.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\n");
        reject::write_fields(&mut early, &head.headers);
        early.extend_from_slice(b"\r\n");
        self.has_early.store(true, Relaxed);
    }

    /// True until all that was given to [`Self::say_early`] has been written.
    pub(super) fn has_to_say_early(&self) -> bool {
        self.has_early.load(Relaxed)
    }

    /// Leaves `tunnel` for when hyper is done with the connection.
    pub(super) fn leave(&self, tunnel: Tunnel) {
        self.tunnelled.store(true, Relaxed);
        *lock(&self.tunnel) = Some(Box::new(tunnel));
    }

    /// Leaves a call whose request is not all out yet, although its response has begun.
    pub(super) fn leave_upload(&self, call: Weak<Mutex<Call>>) {
        *lock(&self.upload) = call;
        self.has_upload.store(true, Relaxed);
    }

    /// True if a call was left of which something is still to be sent.
    pub(super) fn is_uploading(&self) -> bool {
        self.has_upload.load(Relaxed)
    }

    /// Sends what can be sent of the request that was left; ready when there is no more to come, or
    /// it is over. Without this a caller that does not read its response would have its upload
    /// stopped, too: hyper asks for no more response then.
    pub(super) fn poll_upload(&self, cx: &mut Context<'_>) -> Poll<()> {
        let upload = lock(&self.upload).upgrade();
        let polled = upload.map_or(Poll::Ready(()), |call| lock(&call).poll_upload(cx));
        if polled.is_ready() {
            self.has_upload.store(false, Relaxed);
        }
        polled
    }

    fn is_tunnelled(&self) -> bool {
        self.tunnelled.load(Relaxed)
    }

    /// The tunnel that was left.
    pub(super) fn take_tunnel(&self) -> Option<Box<Tunnel>> {
        lock(&self.tunnel).take()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The stream beneath hyper's server.
pub(super) struct Wired<I> {
    io: I,
    follower: Follower,
    wire: Arc<Wire>,
    routes: Arc<Routes>,
    /// What is said instead of what hyper says.
    instead: Option<Instead>,
    /// Until when a caller that still sends is listened to.
    lingering: Option<Pin<Box<Sleep>>>,
    /// Everything that hyper has written is out.
    flushed: bool,
}

/// A refusal of hyper's parser, in our words.
struct Instead {
    ours: Vec<u8>,
    written: usize,
    /// How long hyper's are.
    theirs: usize,
}

impl<I> Wired<I> {
    pub(super) fn new(io: I, wire: Arc<Wire>, routes: Arc<Routes>) -> Self {
        let (instead, lingering, flushed) = (None, None, true);
        Self { io, follower: Follower::new(), wire, routes, instead, lingering, flushed }
    }

    /// The stream itself.
    pub(super) fn into_inner(self) -> I {
        self.io
    }

    fn note_settled(&self) {
        self.wire.settled.store(self.flushed && self.follower.is_between_messages(), Relaxed);
    }

    fn written(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(_)) = result {
            self.wire.watchdog.written();
        }
        result
    }

    /// RFC 9110 §15.5.9, unless the answer to the request before is still on its way out.
    fn say_late(&mut self, cx: &mut Context<'_>) -> io::Error
    where
        I: AsyncWrite + Unpin,
    {
        if !self.flushed {
            return io::ErrorKind::TimedOut.into();
        }
        self.routes.refused[Reason::HeadTimeout.index()].inc();
        // Whether it hears it is its own affair.
        let _ = Pin::new(&mut self.io).poll_write(cx, &reject::on_the_wire(Reason::HeadTimeout));
        io::ErrorKind::TimedOut.into()
    }

    /// Notes if `bytes` end with a refusal of hyper's parser.
    fn note_refusal(&mut self, bytes: &[IoSlice<'_>]) {
        let Some((reason, tail)) = bytes.last().and_then(|last| parser_refusal(last)) else {
            return;
        };
        let mut ours: Vec<u8> = bytes.iter().flat_map(|slice| slice.iter().copied()).collect();
        let theirs = ours.len();
        ours.truncate(theirs - tail);
        ours.extend_from_slice(&reject::on_the_wire(reason));
        self.routes.refused[reason.index()].inc();
        self.instead = Some(Instead { ours, written: 0, theirs });
    }
}

/// hyper answers what it cannot parse by itself, with no field but these two; every answer that
/// passes through us has a `Date`. The reason, and the length of that answer.
fn parser_refusal(bytes: &[u8]) -> Option<(Reason, usize)> {
    const FIELDS: &[u8] = b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let rest = bytes.strip_suffix(FIELDS)?;
    [
        (&b"HTTP/1.1 400 Bad Request"[..], Reason::BadRequest),
        (b"HTTP/1.1 414 URI Too Long", Reason::TooLarge),
        (b"HTTP/1.1 431 Request Header Fields Too Large", Reason::HeadTooLarge),
    ]
    .into_iter()
    .find(|(line, _)| rest.ends_with(line))
    .map(|(line, reason)| (reason, line.len() + FIELDS.len()))
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wired<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let result = Pin::new(&mut (&mut this.io).take(PIECE)).poll_read(cx, buffer);
        if this.wire.is_tunnelled() {
            if result.is_ready() {
                this.wire.watchdog.progress();
            }
            return result;
        }
        if let Poll::Ready(Ok(())) = result {
            if this.follower.sees_both(&buffer.filled()[before..]) {
                this.wire.ambiguous.store(true, Relaxed);
            }
            this.wire.watchdog.read(!this.follower.is_between_messages());
            this.note_settled();
        } else if this.wire.watchdog.head_is_late() {
            return Poll::Ready(Err(this.say_late(cx)));
        }
        result
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wired<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.flushed = false;
        this.wire.settled.store(false, Relaxed);
        if this.instead.is_none() && !this.wire.answering.load(Relaxed) {
            this.note_refusal(slices);
        }
        if let Some(instead) = &mut this.instead {
            while instead.written < instead.ours.len() {
                let rest = &instead.ours[instead.written..];
                instead.written += ready!(Pin::new(&mut this.io).poll_write(cx, rest))?;
            }
            let theirs = instead.theirs;
            this.instead = None;
            return Poll::Ready(Ok(theirs));
        }
        let io = Pin::new(&mut this.io);
        let result = match slices {
            [only] => io.poll_write(cx, only),
            [head, body] if head.len() + body.len() <= GATHERED => {
                let mut both = [0; GATHERED];
                let (first, rest) = both.split_at_mut(head.len());
                first.copy_from_slice(head);
                rest[..body.len()].copy_from_slice(body);
                io.poll_write(cx, &both[..head.len() + body.len()])
            }
            _ => io.poll_write_vectored(cx, slices),
        };
        this.written(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // hyper has written all that it had when it comes here, and no final head was given to it.
        if this.wire.has_early.load(Relaxed) {
            let mut early = lock(&this.wire.early);
            while !early.is_empty() {
                let n = ready!(Pin::new(&mut this.io).poll_write(cx, &early))?;
                early.drain(..n);
            }
            this.wire.has_early.store(false, Relaxed);
            cx.waker().wake_by_ref();
        }
        ready!(Pin::new(&mut this.io).poll_flush(cx))?;
        this.flushed = true;
        if !this.wire.watchdog.is_busy() {
            this.wire.answering.store(false, Relaxed);
        }
        this.note_settled();
        Poll::Ready(Ok(()))
    }

    /// RFC 9112 §9.6: closing on a caller that still sends would reset the connection and take our
    /// last answer away from it, so its rest is read first, and forgotten.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.wire.settled.store(false, Relaxed);
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
        }
        if this.follower.is_between_messages() || this.wire.is_tunnelled() {
            return Poll::Ready(Ok(()));
        }
        let time = this.lingering.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        let mut rest = [0; 8 << 10];
        while time.as_mut().poll(cx).is_pending() {
            let mut rest = ReadBuf::new(&mut rest);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut rest))?;
            if rest.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

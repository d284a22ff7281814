//! HTTP/1 with one caller: requests are heard one after the other, and each is answered before the
//! next one is looked at.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Response, StatusCode};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::timeout;

use super::answer::{Asked, write_head};
use crate::clock::monotonic;
use crate::proxy::handle;
use crate::proxy::http1::lines::FieldLines;
use crate::proxy::http1::send::{Framing, Sending};
use crate::proxy::lane::{Head, Heard, Lane};
use crate::proxy::listener::Drain;
use crate::proxy::reject::{self, Reason};
use crate::proxy::relay::Downstream;
use crate::proxy::route::Routes;
use crate::proxy::wire::Wire;

/// How long a caller that still sends is listened to after our last word.
const LINGER: Duration = Duration::from_secs(5);

/// A connection and what its requests are answered by.
pub(super) struct Talk {
    pub(super) lane: Lane,
    pub(super) wire: Arc<Wire>,
    pub(super) routes: watch::Receiver<Arc<Routes>>,
    /// The routes of the last request.
    pub(super) current: Arc<Routes>,
    pub(super) drain: Arc<Drain>,
}

/// What comes of waiting for a request.
enum Next {
    Request,
    Refused(Reason),
    /// The caller has left, or is to.
    End,
}

/// What comes after an answer.
enum After {
    /// Another request.
    Next,
    /// Nothing; the caller is to hear the answer to its end.
    Leave,
    /// Nothing: the caller has left, or the answer was cut short.
    Gone,
    /// What the connection was upgraded to.
    Tunnel,
}

impl Talk {
    /// Answers requests until the last one, and takes leave. True if a tunnel is next.
    pub(super) async fn run(mut self) -> bool {
        loop {
            match poll_fn(|cx| self.poll_next(cx)).await {
                Next::Request => match self.answer().await {
                    After::Next => {}
                    After::Leave => {
                        self.leave(!self.lane.is_heard()).await;
                        return false;
                    }
                    After::Gone => return false,
                    After::Tunnel => return true,
                },
                Next::Refused(reason) => {
                    self.refuse(reason).await;
                    return false;
                }
                Next::End => {
                    self.leave(false).await;
                    return false;
                }
            }
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let dog = &self.wire.watchdog;
        loop {
            match self.lane.hear() {
                Heard::Request => return Poll::Ready(Next::Request),
                Heard::Refused(reason) => return Poll::Ready(Next::Refused(reason)),
                Heard::Part if dog.head_is_late() => {
                    return Poll::Ready(Next::Refused(Reason::HeadTimeout));
                }
                Heard::Part => dog.head_comes(monotonic),
                Heard::Nothing if self.drain.has_begun() => return Poll::Ready(Next::End),
                Heard::Nothing => {}
            }
            match self.lane.poll_wait(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(Next::End),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    async fn answer(&mut self) -> After {
        // A reload reaches a connection with its next request, for one atomic load each.
        if self.routes.has_changed().unwrap_or(false) {
            self.current = Arc::clone(&self.routes.borrow_and_update());
        }
        let Some(Head { request, persistent }) = self.lane.take(&self.wire) else {
            return After::Gone;
        };
        let asked = Asked::new(request.method(), request.version(), persistent);
        let answer = handle(Arc::clone(&self.current), Arc::clone(&self.wire), request);
        let response = {
            let mut answer = pin!(answer);
            poll_fn(|cx| self.poll_answer(answer.as_mut(), cx)).await
        };
        match response {
            Some(response) => self.send(response, asked).await,
            None => After::Gone,
        }
    }

    /// What a caller that leaves asked for is given up.
    fn poll_answer<F: Future<Output = Response<Downstream>>>(
        &self,
        mut answer: Pin<&mut F>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Response<Downstream>>> {
        loop {
            // What comes before the answer is out before there is more of it.
            if ready!(self.lane.poll_say(cx)).is_err() {
                return Poll::Ready(None);
            }
            if let Poll::Ready(response) = answer.as_mut().poll(cx) {
                return Poll::Ready(Some(response));
            }
            if self.lane.has_to_say() {
                continue;
            }
            return self.lane.poll_left(cx).map(|()| None);
        }
    }

    async fn send(&self, response: Response<Downstream>, mut asked: Asked) -> After {
        let (head, mut body) = response.into_parts();
        // RFC 9110 §10.1.1: a body that nobody asked for will not come, so this is the last answer. After
        // 417 its caller is to ask again, which curl does only if it is not told so.
        let unasked = self.lane.is_held() && head.status != StatusCode::EXPECTATION_FAILED;
        asked.persistent &= !unasked && !self.drain.has_begun();
        let mut out = self.lane.take_outbox();
        let lines = body.lines().map_or(&[][..], FieldLines::as_bytes);
        let (framing, persistent) = write_head(&mut out, &head, lines, &body, asked);
        body.begin();
        let mut sending = Sending::new(body, framing, false, out);
        let sent = poll_fn(|cx| {
            loop {
                if let Poll::Ready(sent) = sending.poll(cx, &mut self.mouth()) {
                    return Poll::Ready(sent.is_ok());
                }
                // What ends an upload may end its response.
                if self.wire.is_uploading() && self.wire.poll_upload(cx).is_ready() {
                    continue;
                }
                return self.lane.poll_left(cx).map(|()| false);
            }
        });
        if !sent.await {
            if framing == Framing::Close {
                self.lane.abort();
            }
            return After::Gone;
        }
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return After::Tunnel;
        }
        self.lane.put_back(sending.take_buffer(), head.headers);
        self.wire.mover.end();
        let over = poll_fn(|cx| Poll::Ready(self.lane.is_over(cx))).await;
        if over && persistent { After::Next } else { After::Leave }
    }

    /// The last answer on a connection.
    async fn refuse(&self, reason: Reason) {
        self.current.refused[reason.index()].inc();
        self.wire.watchdog.rest(monotonic());
        // Whether it hears it is its own affair.
        if self.mouth().write_all(&reject::on_the_wire(reason)).await.is_ok() {
            self.leave(true).await;
        }
    }

    /// RFC 9112 §9.6: closing on a caller that still sends would reset the connection and take our
    /// last answer away from it, so its rest is read first, and forgotten.
    async fn leave(&self, listens: bool) {
        if self.mouth().shutdown().await.is_ok() && listens {
            let rest = poll_fn(|cx| self.lane.poll_forget(cx));
            let _ = timeout(LINGER, rest).await;
        }
    }

    fn mouth(&self) -> Mouth<'_> {
        Mouth(self)
    }
}

/// Where the caller hears us: what it takes extends the time that it has.
struct Mouth<'t>(&'t Talk);

impl Mouth<'_> {
    fn written(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(_)) = written {
            self.0.wire.watchdog.written();
        }
        written
    }
}

impl AsyncWrite for Mouth<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.written(self.0.lane.poll_write(cx, &[IoSlice::new(bytes)]))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.written(self.0.lane.poll_write(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lane.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lane.poll_shutdown(cx)
    }
}

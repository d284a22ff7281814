//! A request body that streams up while a bounded copy of it is kept.
//!
//! The stream is never held back by the copy: what does not fit ends the copy, not the stream. If
//! the upstream refuses the token before the body has all arrived, the replay sends the copy and
//! then the rest of the stream.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::hop;

/// Bytes that all copies together may hold.
pub struct Budget {
    limit: usize,
    held: AtomicUsize,
}

impl Budget {
    /// At most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, held: AtomicUsize::new(0) }
    }

    /// Bytes that copies hold now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        let held = self.held.fetch_add(bytes, Ordering::Relaxed);
        let fits = held.saturating_add(bytes) <= self.limit;
        if !fits {
            self.give_back(bytes);
        }
        fits
    }

    fn give_back(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// How far one sending is.
#[derive(Default)]
pub struct Position {
    bytes: usize,
    trailers: bool,
}

/// A request body on its way up.
pub enum Outbound<B = Incoming> {
    /// None at all: nothing to keep, nothing to allocate.
    Empty,
    /// Streamed and forgotten.
    Once {
        /// The caller's body.
        body: B,
        /// Never in a trailer.
        injected: HeaderName,
    },
    /// Streamed and kept.
    Kept {
        /// Shared with those who may send it again.
        copy: Arc<Mutex<Copy<B>>>,
        /// How far this sending is.
        position: Position,
    },
}

impl<B: Body<Data = Bytes> + Unpin> Outbound<B> {
    /// The body of a first sending, kept if it may fit into `limit`.
    #[must_use]
    pub fn new(body: B, limit: usize, budget: &Arc<Budget>, injected: &HeaderName) -> Self {
        if body.is_end_stream() {
            return Self::Empty;
        }
        let known_too_large = body.size_hint().lower() > limit as u64;
        if limit == 0 || known_too_large {
            return Self::Once { body, injected: injected.clone() };
        }
        let copy = Copy {
            body,
            trailers: None,
            ended: false,
            kept: Some(Vec::new()),
            limit,
            budget: Arc::clone(budget),
            injected: injected.clone(),
        };
        Self::Kept { copy: Arc::new(Mutex::new(copy)), position: Position::default() }
    }

    /// What another sending takes; `None` if the body cannot be sent again.
    #[must_use]
    pub fn handle(&self) -> Option<Handle<B>> {
        match self {
            Self::Empty => Some(Handle(None)),
            Self::Once { .. } => None,
            Self::Kept { copy, .. } => Some(Handle(Some(Arc::clone(copy)))),
        }
    }
}

/// The means to send a body again.
pub struct Handle<B = Incoming>(Option<Arc<Mutex<Copy<B>>>>);

impl<B: Body<Data = Bytes> + Unpin> Handle<B> {
    /// The body from its beginning; `None` if it has outgrown its copy by now.
    #[must_use]
    pub fn again(&self) -> Option<Outbound<B>> {
        let Some(copy) = &self.0 else {
            return Some(Outbound::Empty);
        };
        let whole = lock(copy).kept.is_some();
        let position = Position::default();
        whole.then(|| Outbound::Kept { copy: Arc::clone(copy), position })
    }

    /// True if all of it has left the caller, so that an earlier sending cannot take any of it.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.0.as_ref().is_none_or(|copy| {
            let copy = lock(copy);
            copy.ended || copy.body.is_end_stream()
        })
    }

    /// True if there is no body at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

/// The caller's body and what has been read of it.
pub struct Copy<B> {
    body: B,
    trailers: Option<HeaderMap>,
    ended: bool,
    /// `None` once it outgrew its bounds.
    kept: Option<Vec<u8>>,
    limit: usize,
    budget: Arc<Budget>,
    injected: HeaderName,
}

impl<B> Copy<B> {
    fn keep(&mut self, data: &Bytes) {
        let Some(kept) = &mut self.kept else { return };
        if kept.len() + data.len() <= self.limit && self.budget.take(data.len()) {
            kept.extend_from_slice(data);
        } else {
            self.forget();
        }
    }

    fn forget(&mut self) {
        if let Some(kept) = self.kept.take() {
            self.budget.give_back(kept.len());
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Copy<B> {
    fn poll_frame(
        &mut self,
        position: &mut Position,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if let Some(rest) = self.kept.as_ref().and_then(|kept| kept.get(position.bytes..))
            && !rest.is_empty()
        {
            let data = Bytes::copy_from_slice(rest);
            position.bytes += data.len();
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if self.ended {
            let trailers = self.trailers.clone().filter(|_| !position.trailers);
            position.trailers = true;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    self.keep(&data);
                    position.bytes += data.len();
                    Poll::Ready(Some(Ok(Frame::data(data))))
                }
                Err(frame) => {
                    self.ended = true;
                    let Ok(mut trailers) = frame.into_trailers() else {
                        return Poll::Ready(None);
                    };
                    hop::strip_trailers(&mut trailers, Some(&self.injected));
                    self.trailers = Some(trailers.clone());
                    position.trailers = true;
                    Poll::Ready(Some(Ok(Frame::trailers(trailers))))
                }
            },
            Some(Err(error)) => {
                // What is kept is not the whole body and never will be.
                self.forget();
                Poll::Ready(Some(Err(error)))
            }
            None => {
                self.ended = true;
                Poll::Ready(None)
            }
        }
    }

    /// All of it has been passed on by a sending that stands at `position`.
    fn is_end(&self, position: &Position) -> bool {
        let copy_sent = self.kept.as_ref().is_none_or(|kept| position.bytes >= kept.len());
        let trailers_sent = self.trailers.is_none() || position.trailers;
        copy_sent && trailers_sent && (self.ended || self.body.is_end_stream())
    }
}

impl<B> Drop for Copy<B> {
    fn drop(&mut self) {
        self.forget();
    }
}

/// Held for one step only, by one thread; a panic in a step leaves nothing half done.
fn lock<B>(copy: &Mutex<Copy<B>>) -> MutexGuard<'_, Copy<B>> {
    copy.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<B: Body<Data = Bytes> + Unpin> Body for Outbound<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Once { body, injected } => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| {
                    frame.map(|mut frame| {
                        if let Some(trailers) = frame.trailers_mut() {
                            hop::strip_trailers(trailers, Some(injected));
                        }
                        frame
                    })
                }))
            }
            Self::Kept { copy, position } => lock(copy).poll_frame(position, cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Once { body, .. } => body.is_end_stream(),
            Self::Kept { copy, position } => lock(copy).is_end(position),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Once { body, .. } => body.size_hint(),
            Self::Kept { copy, position } => {
                let copy = lock(copy);
                let pending =
                    copy.kept.as_ref().map_or(0, |kept| kept.len().saturating_sub(position.bytes))
                        as u64;
                let rest = copy.body.size_hint();
                let mut hint = SizeHint::new();
                hint.set_lower(rest.lower() + pending);
                if let Some(upper) = rest.upper() {
                    hint.set_upper(upper + pending);
                }
                hint
            }
        }
    }
}

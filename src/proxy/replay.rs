//! A request body that streams up while a bounded copy of it is kept.
//!
//! The stream is never held back by the copy: what does not fit ends the copy, not the stream. If
//! the upstream refuses the token before the body has all arrived, the replay sends the copy and
//! then the rest of the stream.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Version};
use http_body::{Body, Frame, SizeHint};
use thiserror::Error;

use super::budget::Budget;
use super::hop;
use super::inbound::{Inbound, InboundError};

/// So much of a copy is in memory a second time while it is sent again.
pub(super) const PIECE: usize = 16 << 10;

/// What was read of a body. It takes from the budget what it takes of memory: its capacity.
#[derive(Default)]
struct Kept(Vec<u8>);

impl Kept {
    /// Room for `more` bytes, if `budget` has as much; of no more than `most` bytes in all.
    fn make_room(&mut self, more: usize, most: usize, budget: &Budget) -> bool {
        let (has, least) = (self.0.capacity(), self.0.len() + more);
        if least <= has {
            return true;
        }
        // Twice as large each time, so that little is moved, where the budget has room for that.
        let sizes = [most.min(has * 2), least];
        let granted = sizes.into_iter().find(|size| *size >= least && budget.take(size - has));
        if let Some(size) = granted {
            self.0.reserve_exact(size - self.0.len());
            debug_assert_eq!(self.0.capacity(), size);
        }
        granted.is_some()
    }
}

/// Why a body did not come to its end.
#[derive(Debug, Error)]
pub enum BodyError<E = InboundError> {
    /// Its connection broke, or it is malformed.
    #[error("the body broke off")]
    Broken(#[source] E),
    /// Its stream was reset as if nothing was wrong.
    #[error("the body was cut short")]
    Cut,
}

/// What is next of a body.
type Next<B> = Option<Result<Frame<Bytes>, BodyError<<B as Body>::Error>>>;

/// A caller's body, as it may be passed on.
pub struct Source<B> {
    body: B,
    /// It says when it has ended: HTTP/2's do. In HTTP/1 what is cut short is an error.
    says_end: bool,
    /// Never in a trailer.
    injected: HeaderName,
}

impl<B: Body<Data = Bytes> + Unpin> Source<B> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Next<B>> {
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
            // RFC 9113 §8.1: only END_STREAM ends a request. hyper ends it also at a reset with
            // NO_ERROR, which is for responses.
            let cut = self.says_end && !self.body.is_end_stream();
            return Poll::Ready(cut.then_some(Err(BodyError::Cut)));
        };
        let strip = |mut frame: Frame<Bytes>| {
            if let Some(trailers) = frame.trailers_mut() {
                hop::strip_trailers(trailers, Some(&self.injected));
            }
            frame
        };
        Poll::Ready(Some(frame.map(strip).map_err(BodyError::Broken)))
    }
}

/// How far one sending is.
#[derive(Default)]
pub struct Position {
    bytes: usize,
    trailers: bool,
}

/// A request body on its way up.
pub enum Outbound<B = Inbound> {
    /// None at all: nothing to keep, nothing to allocate.
    Empty,
    /// Streamed and forgotten.
    Once(Source<B>),
    /// Streamed and kept.
    Kept {
        /// Shared with those who may send it again.
        copy: Arc<Mutex<Copy<B>>>,
        /// How far this sending is.
        position: Position,
    },
}

impl<B: Body<Data = Bytes> + Unpin> Outbound<B> {
    /// The body of a first sending, of a request that came in `version`; kept if it may fit into
    /// `limit`.
    #[must_use]
    pub fn new(
        body: B,
        version: Version,
        limit: usize,
        budget: &Arc<Budget>,
        injected: &HeaderName,
    ) -> Self {
        if body.is_end_stream() {
            return Self::Empty;
        }
        let known_too_large = body.size_hint().lower() > limit as u64;
        let says_end = version == Version::HTTP_2;
        let source = Source { body, says_end, injected: injected.clone() };
        if limit == 0 || known_too_large {
            return Self::Once(source);
        }
        let copy = Copy {
            source,
            trailers: None,
            ended: false,
            kept: Some(Kept::default()),
            limit,
            budget: Arc::clone(budget),
        };
        Self::Kept { copy: Arc::new(Mutex::new(copy)), position: Position::default() }
    }

    /// What another sending takes; `None` if the body cannot be sent again.
    #[must_use]
    pub fn handle(&self) -> Option<Handle<B>> {
        match self {
            Self::Empty => Some(Handle(None)),
            Self::Once(_) => None,
            Self::Kept { copy, .. } => Some(Handle(Some(Arc::clone(copy)))),
        }
    }
}

/// The means to send a body again.
pub struct Handle<B = Inbound>(Option<Arc<Mutex<Copy<B>>>>);

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
            copy.ended || copy.source.body.is_end_stream()
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
    source: Source<B>,
    trailers: Option<HeaderMap>,
    ended: bool,
    /// `None` once it outgrew its bounds.
    kept: Option<Kept>,
    limit: usize,
    budget: Arc<Budget>,
}

impl<B> Copy<B> {
    fn forget(&mut self) {
        if let Some(Kept(bytes)) = self.kept.take() {
            let held = bytes.capacity();
            drop(bytes);
            self.budget.give_back(held);
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Copy<B> {
    fn keep(&mut self, data: &Bytes) {
        let Some(kept) = &mut self.kept else { return };
        let left = self.limit - kept.0.len();
        // What is said to come is not believed before it comes, but there is room for no more.
        let to_come =
            self.source.body.size_hint().upper().and_then(|rest| usize::try_from(rest).ok());
        let to_come = to_come.map_or(left, |rest| left.min(rest.saturating_add(data.len())));
        let most = kept.0.len() + to_come;
        if data.len() <= left && kept.make_room(data.len(), most, &self.budget) {
            kept.0.extend_from_slice(data);
        } else {
            self.forget();
        }
    }

    /// What is next for a sending that stands at `position`. If it is the `last` that there can be,
    /// nothing is kept from now on.
    fn poll_frame(
        &mut self,
        position: &mut Position,
        last: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Next<B>> {
        if let Some(rest) = self.kept.as_ref().and_then(|kept| kept.0.get(position.bytes..))
            && !rest.is_empty()
        {
            // The budget does not know of this second copy, so it is a small one.
            let data = Bytes::copy_from_slice(&rest[..rest.len().min(PIECE)]);
            position.bytes += data.len();
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if last {
            self.forget();
        }
        if self.ended {
            let trailers = self.trailers.clone().filter(|_| !position.trailers);
            position.trailers = true;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        match ready!(self.source.poll_frame(cx)) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    self.keep(&data);
                    position.bytes += data.len();
                    Poll::Ready(Some(Ok(Frame::data(data))))
                }
                Err(frame) => {
                    self.ended = true;
                    let Ok(trailers) = frame.into_trailers() else {
                        return Poll::Ready(None);
                    };
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
        let copy_sent = self.kept.as_ref().is_none_or(|kept| position.bytes >= kept.0.len());
        let trailers_sent = self.trailers.is_none() || position.trailers;
        copy_sent && trailers_sent && (self.ended || self.source.body.is_end_stream())
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
    type Error = BodyError<B::Error>;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Next<B>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Once(source) => source.poll_frame(cx),
            Self::Kept { copy, position } => {
                let last = Arc::strong_count(copy) == 1;
                lock(copy).poll_frame(position, last, cx)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Once(source) => source.body.is_end_stream(),
            Self::Kept { copy, position } => lock(copy).is_end(position),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Once(source) => source.body.size_hint(),
            Self::Kept { copy, position } => {
                let copy = lock(copy);
                let pending = copy
                    .kept
                    .as_ref()
                    .map_or(0, |kept| kept.0.len().saturating_sub(position.bytes))
                    as u64;
                let rest = copy.source.body.size_hint();
                let mut hint = SizeHint::new();
                hint.set_lower(rest.lower() + pending);
                // RFC 9112 §7.1.2: trailers have a place in chunks only.
                let chunked = copy.trailers.is_some() && !position.trailers;
                if let Some(upper) = rest.upper().filter(|_| !chunked) {
                    hint.set_upper(upper + pending);
                }
                hint
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    const HTTP1: Version = Version::HTTP_11;

    /// Frames of these lengths, which are there at once; their sum may be known beforehand.
    struct Frames(Vec<usize>, bool);

    impl Body for Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let next = self.0.pop();
            Poll::Ready(next.map(|length| Ok(Frame::data(Bytes::from(vec![b'x'; length])))))
        }

        fn size_hint(&self) -> SizeHint {
            let sum = self.0.iter().sum::<usize>() as u64;
            if self.1 { SizeHint::with_exact(sum) } else { SizeHint::new() }
        }
    }

    fn next(body: &mut Outbound<Frames>) -> Option<usize> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match Pin::new(body).poll_frame(&mut cx) {
            Poll::Ready(frame) => frame.map(|frame| frame.unwrap().data_ref().unwrap().len()),
            Poll::Pending => panic!("all of it is there"),
        }
    }

    fn capacity(body: &Outbound<Frames>) -> usize {
        let Outbound::Kept { copy, .. } = body else { return 0 };
        lock(copy).kept.as_ref().map_or(0, |kept| kept.0.capacity())
    }

    #[test]
    fn copies_take_from_the_budget_what_they_take_of_memory() {
        let injected = HeaderName::from_static("authorization");
        for (frames, known) in [(vec![1; 3000], false), (vec![700; 20], true), (vec![9000], false)]
        {
            let budget = Arc::new(Budget::new(1 << 20));
            let sum = frames.iter().sum::<usize>();
            let mut body = Outbound::new(Frames(frames, known), HTTP1, 10_000, &budget, &injected);
            let again = body.handle();
            while next(&mut body).is_some() {
                assert_eq!(budget.held(), capacity(&body));
                assert!(budget.held() <= if known { sum } else { 10_000 });
            }
            drop((body, again));
            assert_eq!(budget.held(), 0);
        }
    }

    #[test]
    fn what_nobody_can_send_again_is_not_kept() {
        let injected = HeaderName::from_static("authorization");
        let budget = Arc::new(Budget::new(1 << 20));
        let frames = Frames(vec![700; 3], false);
        let mut first = Outbound::new(frames, HTTP1, 10_000, &budget, &injected);
        let again = first.handle().unwrap();
        assert_eq!((next(&mut first), budget.held()), (Some(700), 700));
        let mut second = again.again().unwrap();
        drop((first, again));
        // It still has to send what was kept.
        assert_eq!((next(&mut second), budget.held()), (Some(700), 700));
        assert_eq!((next(&mut second), budget.held()), (Some(700), 0));
        assert_eq!((next(&mut second), next(&mut second)), (Some(700), None));
    }

    #[test]
    fn a_budget_without_room_for_more_than_is_needed_is_used_to_its_end() {
        let injected = HeaderName::from_static("authorization");
        let budget = Arc::new(Budget::new(1000));
        let mut body =
            Outbound::new(Frames(vec![250; 5], false), HTTP1, 10_000, &budget, &injected);
        let again = body.handle().unwrap();
        let held = std::iter::from_fn(|| next(&mut body).map(|_| budget.held()));
        assert_eq!(held.collect::<Vec<_>>(), [250, 500, 1000, 1000, 0]);
        assert!(again.again().is_none(), "there is no copy any more");
    }

    #[test]
    fn what_is_sent_again_is_in_memory_twice_in_small_pieces_only() {
        let injected = HeaderName::from_static("authorization");
        let budget = Arc::new(Budget::new(1 << 20));
        let frames = Frames(vec![300_000], true);
        let mut body = Outbound::new(frames, HTTP1, 1 << 20, &budget, &injected);
        let again = body.handle().unwrap();
        assert_eq!((next(&mut body), next(&mut body)), (Some(300_000), None));
        let mut second = again.again().unwrap();
        let pieces: Vec<_> = std::iter::from_fn(|| next(&mut second)).collect();
        assert_eq!(pieces.iter().sum::<usize>(), 300_000);
        assert!(pieces.iter().all(|piece| *piece <= PIECE));
    }
}

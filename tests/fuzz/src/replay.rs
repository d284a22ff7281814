//! A request body that is sent, and sent once more, in every order of events.
//!
//! The first byte of an input bounds the copy; each further one is an event: what the caller sends
//! next, or how far a sending gets.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bearerd::proxy::budget::Budget;
use bearerd::proxy::replay::{Handle, Outbound};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use http_body::{Body, Frame, SizeHint};

/// What the caller has sent so far.
#[derive(Clone, Default)]
struct Caller(Arc<Mutex<Sent>>);

#[derive(Default)]
struct Sent {
    frames: VecDeque<Frame<Bytes>>,
    ended: bool,
}

impl Body for Caller {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut sent = self.0.lock().expect("no panic before");
        match sent.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None if sent.ended => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        let sent = self.0.lock().expect("no panic before");
        sent.ended && sent.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// How far a sending is.
struct Sending {
    body: Outbound<Caller>,
    bytes: Vec<u8>,
    trailers: usize,
    ended: bool,
}

impl Sending {
    fn new(body: Outbound<Caller>) -> Self {
        Self { body, bytes: Vec::new(), trailers: 0, ended: false }
    }

    fn step(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        match Pin::new(&mut self.body).poll_frame(&mut context) {
            Poll::Pending => assert!(!self.body.is_end_stream()),
            Poll::Ready(None) => self.ended = true,
            Poll::Ready(Some(frame)) => {
                assert!(!self.ended && self.trailers == 0, "something behind the end");
                match frame.expect("never fails").into_data() {
                    Ok(data) => self.bytes.extend_from_slice(&data),
                    Err(frame) => {
                        let trailers = frame.into_trailers().expect("data or trailers");
                        assert!(trailers.contains_key("x-sum") && trailers.len() == 1);
                        self.trailers += 1;
                    }
                }
            }
        }
        self.ended |= self.body.is_end_stream();
    }
}

struct Play {
    caller: Caller,
    budget: Arc<Budget>,
    /// Everything that the caller has sent.
    all: Vec<u8>,
    trailers: usize,
    finished: bool,
    first: Option<Sending>,
    handle: Option<Handle<Caller>>,
    second: Option<Sending>,
}

/// Each sending is the whole body from its beginning, as far as it got; no order of events makes
/// the copies hold more than their bound, and nothing of it is held at the end.
pub fn check(data: &[u8]) -> bool {
    let Some((limit, events)) = data.split_first() else { return false };
    let (limit, total) = (usize::from(*limit), 300);
    let budget = Arc::new(Budget::new(total));
    let caller = Caller::default();
    let injected = HeaderName::from_static("authorization");
    let body = Outbound::new(caller.clone(), Version::HTTP_2, limit, &budget, &injected);
    let handle = body.handle();
    assert_eq!(handle.is_none(), limit == 0, "without room nothing is kept");
    let (first, second) = (Some(Sending::new(body)), None);
    let (all, trailers, finished) = (Vec::new(), 0, false);
    let mut play = Play { caller, budget, all, trailers, finished, first, handle, second };
    for event in events.iter().take(200) {
        play.happens(*event);
        play.check(limit);
    }
    let budget = Arc::clone(&play.budget);
    let sent_again = play.second.as_ref().is_some_and(|second| second.ended);
    drop(play);
    assert_eq!(budget.held(), 0);
    sent_again
}

impl Play {
    fn happens(&mut self, event: u8) {
        match event {
            0..=0x7f if !self.finished => self.caller_sends(usize::from(event)),
            0x80 if !self.finished => self.caller_ends(true),
            0x81 if !self.finished => self.caller_ends(false),
            // There is an answer: nobody sends it again.
            0xbf => self.handle = None,
            0x82..=0xbe => {
                if let Some(first) = &mut self.first {
                    first.step();
                }
            }
            0xc0..=0xdf if self.second.is_none() => self.begin_again(),
            0xe0.. => {
                if let Some(second) = &mut self.second {
                    second.step();
                }
            }
            _ => {}
        }
    }

    fn caller_sends(&mut self, length: usize) {
        let from = self.all.len();
        self.all.extend((from..from + length).map(|position| position.to_le_bytes()[0]));
        let data = Bytes::copy_from_slice(&self.all[from..]);
        self.caller.0.lock().expect("no panic before").frames.push_back(Frame::data(data));
    }

    fn caller_ends(&mut self, with_trailers: bool) {
        let mut sent = self.caller.0.lock().expect("no panic before");
        if with_trailers {
            let names = ["x-sum", "authorization"].map(HeaderName::from_static);
            let value = HeaderValue::from_static("1");
            let trailers: HeaderMap = names.map(|name| (name, value.clone())).into_iter().collect();
            sent.frames.push_back(Frame::trailers(trailers));
            self.trailers = 1;
        }
        (sent.ended, self.finished) = (true, true);
    }

    fn begin_again(&mut self) {
        let Some(handle) = &self.handle else { return };
        if let Some(body) = handle.again() {
            // As in the proxy: the first one goes on only if there is nothing left for it to take.
            if !handle.is_read() {
                self.first = None;
            }
            self.second = Some(Sending::new(body));
        }
    }

    fn check(&self, limit: usize) {
        assert!(self.budget.held() <= limit);
        for sending in [&self.first, &self.second].into_iter().flatten() {
            assert!(self.all.starts_with(&sending.bytes), "a gap, or bytes twice");
            if sending.ended {
                assert!(self.finished && sending.bytes == self.all, "ended before its end");
                assert_eq!(sending.trailers, self.trailers);
            }
        }
    }
}

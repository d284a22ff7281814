//! The first answer to a request that is to be sent once more. It is kept, within a bound, until the
//! second sending is on its way: if that cannot be, the first answer is the answer.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::response;
use http_body::Frame;

use super::Looked;
use crate::proxy::upstream::Call;

/// So much of its body is kept while its connection is used again. What is longer stays where it is.
pub(in crate::proxy) const MAX_BYTES: usize = 16 << 10;

/// The first answer.
pub(super) struct First {
    head: response::Parts,
    /// What was read of its body.
    looked: Looked,
    /// What the rest comes from.
    call: Call,
    /// It can be passed on.
    sound: bool,
}

impl First {
    /// Reads what has arrived of the answer, of which `looked` was read already. If that is all of it,
    /// its connection can be used again; not so if the request was not `sent` to its end, since what is
    /// still to come of its body is for the second sending.
    pub(super) fn set_aside(head: response::Parts, looked: Looked, call: Call, sent: bool) -> Self {
        let mut first = Self { head, looked, call, sound: true };
        if sent {
            first.read();
        }
        first
    }

    fn read(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        let _ = self.call.poll_upload(&mut cx);
        let read = self.looked.frames.iter().filter_map(Frame::data_ref);
        let mut bytes: usize = read.map(Bytes::len).sum();
        while !self.call.is_end_stream() {
            if bytes > MAX_BYTES {
                return;
            }
            match self.call.poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    bytes += frame.data_ref().map_or(0, Bytes::len);
                    self.looked.frames.push_back(frame);
                }
                Poll::Ready(None) => break,
                Poll::Ready(Some(Err(_))) => {
                    (self.sound, self.call) = (false, Call::Over);
                    return;
                }
                Poll::Pending => return,
            }
        }
        std::mem::replace(&mut self.call, Call::Over).finish();
    }

    /// The answer after all; `None` if it was cut short.
    pub(super) fn passed_on(self) -> Option<(response::Parts, Looked, Call)> {
        self.sound.then_some((self.head, self.looked, self.call))
    }
}

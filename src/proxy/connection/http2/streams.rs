//! The tasks of HTTP/2 streams, each under a deadline of its own.
//!
//! hyper hands a task for each stream to the executor that it is given. The deadline is looked at
//! there, around all that hyper does: while a caller opens no window for its answer, hyper asks
//! nobody behind it for anything.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use hyper::rt::Executor;
use pin_project_lite::pin_project;

use super::load::Open;
use super::shares::Kept;
use crate::proxy::alarm::{Alarm, Rung};
use crate::proxy::wire::Wire;

/// A request, where its deadline is, its place among those that are open, and its share.
type Begun = (Arc<Wire>, Open, Kept);

/// Runs the tasks of one connection.
#[derive(Clone, Default)]
pub(super) struct Streams {
    /// The request whose task comes next: hyper calls the service, and then hands the task over.
    begun: Arc<Mutex<Option<Begun>>>,
}

impl Streams {
    /// A request has begun on `wire`.
    pub(super) fn begin(&self, wire: Arc<Wire>, open: Open, share: Kept) {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = Some((wire, open, share));
    }
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    #[allow(clippy::disallowed_methods)] // streams are driven by themselves
    fn execute(&self, task: F) {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner).take();
        match begun {
            Some((wire, open, share)) => {
                let alarm = Alarm::new(&wire.watchdog);
                tokio::spawn(Timed { task, alarm, wire, open, share });
            }
            None => drop(tokio::spawn(task)),
        }
    }
}

pin_project! {
    /// A stream's task in time; dropped before its end, it resets the stream.
    struct Timed<F> {
        #[pin]
        task: F,
        #[pin]
        alarm: Alarm,
        wire: Arc<Wire>,
        open: Open,
        share: Kept,
    }
}

impl<F: Future<Output = ()>> Future for Timed<F> {
    type Output = ();

    #[allow(clippy::disallowed_methods)] // a tunnel is what its request leaves behind
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        ready!(this.wire.mover.poll_turn(cx));
        loop {
            if this.task.as_mut().poll(cx).is_ready() {
                if let Some(tunnel) = this.wire.take_tunnel() {
                    let left = (this.open.clone(), this.share.held());
                    tokio::spawn(async move {
                        tunnel.run().await;
                        drop(left);
                    });
                }
                return Poll::Ready(());
            }
            // hyper asks for a response only while its caller reads it; the request goes up meanwhile.
            if this.wire.is_uploading() {
                let _ = this.wire.poll_upload(cx);
            }
            match ready!(this.alarm.as_mut().poll(cx, &this.wire.watchdog)) {
                Rung::Expired | Rung::Drowsy => {}
                Rung::Abandoned => return Poll::Ready(()),
            }
        }
    }
}

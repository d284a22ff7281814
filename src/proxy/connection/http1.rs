//! HTTP/1: the conversation with a caller, the connection's single timer, and the end at shutdown.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use pin_project_lite::pin_project;
use tokio::sync::futures::OwnedNotified;
use tokio::time::Instant;

use super::Served;
use crate::clock::monotonic;
use crate::proxy::alarm::{Alarm, Rung};
use crate::proxy::http1::Bounds;
use crate::proxy::lane::Lane;
use crate::proxy::listener::Drain;
use crate::proxy::watchdog::Watchdog;
use crate::proxy::wire::Wire;
use crate::stream::Stream;

mod answer;
mod talk;

use talk::Talk;

/// Serves HTTP/1 on `stream`, of which `prefix` was read already, since `begun`, and what it is
/// upgraded to.
pub(super) async fn serve(
    stream: Stream,
    prefix: BytesMut,
    begun: Option<Instant>,
    served: Served,
) {
    let Served { mut routes, drain } = served;
    let current = Arc::clone(&routes.borrow_and_update());
    let limits = current.limits;
    let watchdog = Watchdog::new(monotonic(), limits.idle_time, limits.head_time);
    if let Some(begun) = begun {
        watchdog.head_begins(begun);
    }
    let alarm = Alarm::new(&watchdog);
    let bounds = Bounds { bytes: limits.head_bytes, fields: limits.head_fields };
    let lane = Lane::new(stream, prefix, bounds);
    let wire = Arc::new(Wire::http1(watchdog, lane.clone()));
    let drained = Arc::clone(&drain.begun).notified_owned();
    let of_tunnel = Arc::clone(&wire);
    let talk = Talk { lane, wire: Arc::clone(&wire), routes, current, drain: Arc::clone(&drain) };
    let upgraded = Serve { talk: talk.run(), alarm, drained, watched: false, drain, wire }.await;
    if let Some(tunnel) = of_tunnel.take_tunnel().filter(|_| upgraded) {
        Box::pin(tunnel.run()).await;
    }
}

pin_project! {
    /// A conversation in time.
    struct Serve<T> {
        #[pin]
        talk: T,
        #[pin]
        alarm: Alarm,
        #[pin]
        drained: OwnedNotified,
        // True while the notification holds this task's waker.
        watched: bool,
        drain: Arc<Drain>,
        wire: Arc<Wire>,
    }
}

impl<T: Future<Output = bool>> Future for Serve<T> {
    type Output = bool;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        let mut this = self.project();
        ready!(this.wire.mover.poll_turn(cx));
        loop {
            if let Poll::Ready(upgraded) = this.talk.as_mut().poll(cx) {
                return Poll::Ready(upgraded);
            }
            if !*this.watched {
                *this.watched = true;
                if this.drained.as_mut().poll(cx).is_ready() || this.drain.has_begun() {
                    continue;
                }
            }
            match ready!(this.alarm.as_mut().poll(cx, &this.wire.watchdog)) {
                Rung::Drowsy => {
                    if let Some(lane) = this.wire.lane() {
                        lane.forget();
                    }
                }
                Rung::Expired => {}
                Rung::Abandoned => return Poll::Ready(false),
            }
        }
    }
}

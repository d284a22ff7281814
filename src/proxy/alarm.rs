//! The timer that looks at a watchdog.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::time::Sleep;

use super::watchdog::{Verdict, Watchdog};
use crate::clock::monotonic;

pin_project! {
    /// One timer, which is moved only if a deadline comes sooner than it.
    pub(super) struct Alarm {
        #[pin]
        timer: Sleep,
        // True while the timer holds the task's waker: it wakes by itself and need not be polled at
        // every step.
        set: bool,
    }
}

/// What came of time passing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rung {
    /// No request has come for a while.
    Drowsy,
    /// The watchdog's user has been told: it is to be polled once more.
    Expired,
    /// There is nobody to tell, or it has not helped.
    Abandoned,
}

impl Alarm {
    pub(super) fn new(watchdog: &Watchdog) -> Self {
        Self { timer: tokio::time::sleep_until(watchdog.deadline()), set: false }
    }

    /// Ready when `watchdog`'s deadline has passed.
    pub(super) fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>, dog: &Watchdog) -> Poll<Rung> {
        let mut this = self.project();
        let deadline = dog.deadline();
        if deadline < this.timer.deadline() {
            this.timer.as_mut().reset(deadline);
            *this.set = false;
        }
        if *this.set && !this.timer.is_elapsed() {
            return Poll::Pending;
        }
        loop {
            // A task that has used its budget up is scheduled again, but a timer that it polls then
            // does not take its waker.
            *this.set = tokio::task::coop::has_budget_remaining();
            ready!(this.timer.as_mut().poll(cx));
            *this.set = false;
            match dog.judge(monotonic()) {
                Verdict::Later(deadline) => this.timer.as_mut().reset(deadline),
                Verdict::Drowsy => {
                    this.timer.as_mut().reset(dog.deadline());
                    return Poll::Ready(Rung::Drowsy);
                }
                Verdict::Expired => {
                    this.timer.as_mut().reset(dog.deadline());
                    return Poll::Ready(Rung::Expired);
                }
                Verdict::Abandoned => return Poll::Ready(Rung::Abandoned),
            }
        }
    }
}

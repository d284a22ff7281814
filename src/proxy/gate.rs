//! A waker that remembers being woken, between an upstream connection and the task that uses it.
//!
//! One task drives two connections. Without this it would poll the upstream one whenever the
//! caller's side moves, and be woken for what it brings about itself: reading a body frees room,
//! which wakes the connection that fills it, which is about to be polled anyway.

use std::sync::atomic::{AtomicBool, Ordering::AcqRel, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};

/// The waker of one upstream connection.
pub(super) struct Gate {
    state: Arc<State>,
    waker: Waker,
}

struct State {
    /// Woken since the connection was last polled.
    woken: AtomicBool,
    /// The user's own doing wakes nobody: it polls next.
    muted: AtomicBool,
    task: Mutex<Waker>,
}

impl Gate {
    /// Open, and nobody to wake.
    pub(super) fn new() -> Self {
        let state = Arc::new(State {
            woken: AtomicBool::new(true),
            muted: AtomicBool::new(false),
            task: Mutex::new(Waker::noop().clone()),
        });
        Self { waker: Waker::from(Arc::clone(&state)), state }
    }

    /// Whether the connection was woken, or `touched`, since it was last polled.
    pub(super) fn is_woken(&self) -> bool {
        self.state.woken.load(Acquire)
    }

    /// The connection is to be polled although nothing woke it: something was handed to it.
    pub(super) fn touch(&self) {
        self.state.woken.store(true, Release);
    }

    /// From now on `task` is woken. If the connection is to be polled: a context for that.
    pub(super) fn enter(&self, task: &Waker) -> Option<Context<'_>> {
        self.set_task(task);
        // Read first: usually nothing happened, and a plain load is cheaper.
        let woken = self.is_woken() && self.state.woken.swap(false, AcqRel);
        woken.then(|| Context::from_waker(&self.waker))
    }

    /// From now on nobody is woken.
    pub(super) fn leave(&self) {
        self.set_task(Waker::noop());
    }

    /// Does `act`, which may wake the connection, without waking the task.
    pub(super) fn quietly<T>(&self, act: impl FnOnce() -> T) -> T {
        self.state.muted.store(true, Release);
        let result = act();
        self.state.muted.store(false, Release);
        result
    }

    fn set_task(&self, task: &Waker) {
        let mut current = self.state.task.lock().unwrap_or_else(PoisonError::into_inner);
        if !current.will_wake(task) {
            current.clone_from(task);
        }
    }
}

impl Wake for State {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Release);
        if !self.muted.load(Acquire) {
            self.task.lock().unwrap_or_else(PoisonError::into_inner).wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, AcqRel);
        }
    }

    #[test]
    fn a_wake_is_remembered_and_passed_on_unless_it_is_ones_own() {
        let count = Arc::new(Count::default());
        let task = Waker::from(Arc::clone(&count));
        let gate = Gate::new();
        let inner = gate.enter(&task).expect("open at first").waker().clone();
        assert!(gate.enter(&task).is_none(), "nothing happened since");
        inner.wake_by_ref();
        assert_eq!(count.0.load(Acquire), 1);
        assert!(gate.enter(&task).is_some());
        gate.quietly(|| inner.wake_by_ref());
        assert_eq!(count.0.load(Acquire), 1, "not woken for its own doing");
        assert!(gate.enter(&task).is_some(), "but it knows");
        gate.leave();
        inner.wake_by_ref();
        assert_eq!(count.0.load(Acquire), 1, "nobody is there");
        assert!(gate.is_woken());
    }
}

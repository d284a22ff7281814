//! Connections that move much take turns where there are many of them, so that a small request is not
//! behind all of them.
//!
//! A worker runs its tasks in the order in which they became ready. With a thousand uploads that always
//! have something to read, whoever comes next would wait for a piece of each: tens of milliseconds, in
//! both directions. So where there are many of them in a thread, they wait here instead of among the
//! ready tasks, in the order in which they came, and are called one by one: between two calls the
//! worker looks for what has arrived meanwhile. In its turn each moves one piece. It is the same work in
//! the same time.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// What a request and its answer may move before that counts as much, in bytes.
const FREE: usize = 16 << 10;
/// So many that move much hold nobody up for long: they take no turns.
const FEW: usize = 16;

thread_local! {
    static TURNS: RefCell<Turns> = const { RefCell::new(Turns::new()) };
}

/// The turns of one thread.
struct Turns {
    /// Connections that move much.
    moving: usize,
    /// In the order in which they came.
    waiting: VecDeque<Arc<Turn>>,
    /// [`call`], while nobody waits.
    caller: Option<Waker>,
}

#[derive(Default)]
struct Turn {
    waits: AtomicBool,
    called: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Turns {
    const fn new() -> Self {
        Self { moving: 0, waiting: VecDeque::new(), caller: None }
    }

    /// Who has waited longest, of those who still do.
    fn next(&mut self) -> Option<Arc<Turn>> {
        std::iter::from_fn(|| self.waiting.pop_front()).find(|turn| Arc::strong_count(turn) > 1)
    }
}

impl Turn {
    /// Waits to be called.
    fn wait(self: &Arc<Self>, turns: &mut Turns, cx: &mut Context<'_>) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        if !self.waits.swap(true, Relaxed) {
            turns.waiting.push_back(Arc::clone(self));
            turns.caller.take().into_iter().for_each(Waker::wake);
        }
    }

    fn call(&self) {
        self.waits.store(false, Relaxed);
        self.called.store(true, Relaxed);
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        waker.into_iter().for_each(Waker::wake);
    }
}

/// Calls whoever waits in this thread, for ever.
pub(super) async fn call() {
    loop {
        poll_fn(|cx| {
            TURNS.with_borrow_mut(|turns| {
                if turns.waiting.is_empty() {
                    turns.caller = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(())
            })
        })
        .await;
        TURNS.with_borrow_mut(Turns::next).iter().for_each(|turn| turn.call());
        // What yields goes on when the worker has looked for what arrived meanwhile.
        tokio::task::yield_now().await;
    }
}

/// What a connection moves for the request that it is at, if any.
#[derive(Default)]
pub(super) struct Mover {
    /// In bytes.
    moved: AtomicUsize,
    /// It has had its piece of the present turn.
    had: AtomicBool,
    /// Set while it moves much.
    turn: Mutex<Option<Arc<Turn>>>,
    /// The same, for all who would not wait for a lock.
    much: AtomicBool,
}

impl Mover {
    /// `bytes` were moved.
    pub(super) fn moved(&self, bytes: usize) {
        let moved = self.moved.load(Relaxed).saturating_add(bytes);
        self.moved.store(moved, Relaxed);
        self.had.store(true, Relaxed);
        if moved > FREE && !self.much.swap(true, Relaxed) {
            *self.turn() = Some(Arc::default());
            TURNS.with_borrow_mut(|turns| turns.moving += 1);
        }
    }

    fn turn(&self) -> MutexGuard<'_, Option<Arc<Turn>>> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The request is over: it moves nothing any more.
    pub(super) fn end(&self) {
        self.moved.store(0, Relaxed);
        // Not swapped: that would cost every request what only some have to do.
        if self.much.load(Relaxed) {
            self.much.store(false, Relaxed);
            *self.turn() = None;
            // A thread that ends may have no turns any more.
            let _ = TURNS.try_with(|turns| {
                let mut turns = turns.borrow_mut();
                turns.moving = turns.moving.saturating_sub(1);
            });
        }
    }

    /// Ready when the connection's task may go on.
    pub(super) fn poll_turn(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.much.load(Relaxed) {
            return Poll::Ready(());
        }
        let turn = self.turn();
        let Some(turn) = &*turn else { return Poll::Ready(()) };
        TURNS.with_borrow_mut(|turns| {
            let may_go_on = turns.moving <= FEW || turn.called.swap(false, Relaxed);
            if may_go_on {
                self.had.store(false, Relaxed);
                return Poll::Ready(());
            }
            turn.wait(turns, cx);
            Poll::Pending
        })
    }

    /// Ready while the connection may move something in its turn. If it may not, it comes again.
    pub(super) fn poll_piece(&self, cx: &mut Context<'_>) -> Poll<()> {
        let over = self.much.load(Relaxed)
            && self.had.load(Relaxed)
            && TURNS.with_borrow(|turns| turns.moving > FEW);
        if over {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

impl Drop for Mover {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that moves much.
    fn mover() -> Mover {
        let mover = Mover::default();
        mover.moved(FREE + 1);
        mover
    }

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    #[test]
    fn a_few_take_no_turns_nor_does_who_moves_little() {
        let few: Vec<_> = (0..FEW).map(|_| mover()).collect();
        assert!(few[0].poll_turn(&mut cx()).is_ready() && few[0].poll_piece(&mut cx()).is_ready());
        let _another = mover();
        assert!(few[0].poll_turn(&mut cx()).is_pending());
        let little = Mover::default();
        little.moved(FREE);
        assert!(little.poll_turn(&mut cx()).is_ready() && little.poll_piece(&mut cx()).is_ready());
    }

    #[test]
    fn in_its_turn_each_moves_one_piece() {
        let crowd: Vec<_> = (0..=FEW).map(|_| mover()).collect();
        let mover = &crowd[0];
        assert!(mover.poll_turn(&mut cx()).is_pending());
        TURNS.with_borrow_mut(Turns::next).iter().for_each(|turn| turn.call());
        assert!(mover.poll_turn(&mut cx()).is_ready() && mover.poll_piece(&mut cx()).is_ready());
        mover.moved(1);
        assert!(mover.poll_piece(&mut cx()).is_pending());
        assert!(mover.poll_turn(&mut cx()).is_pending(), "the next turn is another one");
        mover.end();
        assert!(mover.poll_turn(&mut cx()).is_ready(), "that was another request's");
    }

    #[test]
    fn who_has_left_is_not_waited_for() {
        let mut crowd: Vec<_> = (0..=FEW + 2).map(|_| mover()).collect();
        let (left, next) = (crowd.remove(0), crowd.remove(0));
        assert!(left.poll_turn(&mut cx()).is_pending() && next.poll_turn(&mut cx()).is_pending());
        drop(left);
        let called = TURNS.with_borrow_mut(Turns::next).unwrap();
        assert!(Arc::ptr_eq(&called, next.turn().as_ref().unwrap()));
        assert!(TURNS.with_borrow_mut(Turns::next).is_none());
    }

    #[tokio::test]
    #[allow(clippy::disallowed_methods)] // they are tasks of one thread
    async fn of_many_none_moves_twice_before_all_have_moved() {
        let (movers, told) = (FEW + 4, Arc::new(Mutex::new(Vec::new())));
        let crowd: Vec<_> = (0..movers).map(|_| mover()).collect();
        let start = |(name, mover): (usize, Mover)| {
            let told = Arc::clone(&told);
            tokio::spawn(async move {
                for _ in 0..3 {
                    poll_fn(|cx| mover.poll_turn(cx)).await;
                    told.lock().unwrap().push(name);
                }
            })
        };
        let moving: Vec<_> = crowd.into_iter().enumerate().map(start).collect();
        let calling = tokio::spawn(call());
        for one in moving {
            one.await.unwrap();
        }
        calling.abort();
        let (told, once): (_, Vec<_>) = (told.lock().unwrap(), (0..movers).collect());
        assert_eq!(told.len(), 3 * movers);
        assert_eq!((&told[..movers], &told[movers..2 * movers]), (&once[..], &once[..]));
    }
}

//! The workers of a process, and which of them serves a new connection. The one that happens to wake
//! first accepts all that have come; if it served them all, the others would have nothing to do.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Handle;

/// All workers that have begun.
#[derive(Default)]
pub struct Crew(Mutex<Vec<Member>>);

/// One worker.
#[derive(Clone)]
pub(super) struct Member {
    runtime: Handle,
    connections: Arc<AtomicUsize>,
}

impl Crew {
    /// The worker whose runtime this is called in joins.
    pub(super) fn join(&self) -> Member {
        let member = Member { runtime: Handle::current(), connections: Arc::default() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(member.clone());
        member
    }

    /// Who serves the fewest connections: `this`, unless another one has fewer.
    pub(super) fn least(&self, this: &Member) -> Member {
        let members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let least = members.iter().min_by_key(|member| member.connections.load(Relaxed));
        least.filter(|least| least.load() < this.load()).unwrap_or(this).clone()
    }
}

impl Member {
    fn load(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Counts one connection more, as long as that lives.
    pub(super) fn begin(&self) -> Serving {
        self.connections.fetch_add(1, Relaxed);
        Serving(Arc::clone(&self.connections))
    }

    /// True if both are the same worker.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.connections, &other.connections)
    }

    /// Runs `serving` in this worker's thread.
    pub(super) fn run(&self, serving: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(serving);
    }
}

/// One connection that a worker serves.
pub(super) struct Serving(Arc<AtomicUsize>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// A stream that can go from one worker's runtime to another's.
pub(super) trait Moves: Sized {
    /// On its way.
    type Moved: Send + 'static;

    /// Leaves the runtime that it is in.
    fn leave(self) -> io::Result<Self::Moved>;

    /// Arrives in the runtime that this is called in.
    fn arrive(moved: Self::Moved) -> io::Result<Self>;
}

impl Moves for TcpStream {
    type Moved = std::net::TcpStream;

    fn leave(self) -> io::Result<Self::Moved> {
        self.into_std()
    }

    fn arrive(moved: Self::Moved) -> io::Result<Self> {
        Self::from_std(moved)
    }
}

impl Moves for UnixStream {
    type Moved = std::os::unix::net::UnixStream;

    fn leave(self) -> io::Result<Self::Moved> {
        self.into_std()
    }

    fn arrive(moved: Self::Moved) -> io::Result<Self> {
        Self::from_std(moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_serves_the_fewest_is_next_and_a_tie_moves_nothing() {
        let crew = Crew::default();
        let (first, second) = (crew.join(), crew.join());
        assert!(crew.least(&second).is(&second), "nobody serves any");
        let serving = first.begin();
        assert!(crew.least(&first).is(&second));
        assert!(crew.least(&second).is(&second));
        let _other = second.begin();
        assert!(crew.least(&first).is(&first), "both serve one");
        drop(serving);
        assert!(crew.least(&second).is(&first), "it has ended");
    }
}

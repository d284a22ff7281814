//! The addresses of a peer's name. Nothing is kept: whoever asks is told what the resolver says from
//! then on. But those who ask while it is being asked share its answer, or a burst of connections
//! would be a burst of lookups, and each takes a thread.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::Mutex;

/// What the resolver said.
type Answer = Result<Vec<SocketAddr>, Arc<io::Error>>;

/// One peer's lookups.
pub(super) struct Names {
    /// Held by whoever asks the resolver.
    last: Mutex<Answer>,
    /// Answers so far.
    answers: AtomicU64,
}

impl Names {
    pub(super) fn new() -> Self {
        Self { last: Mutex::new(Ok(Vec::new())), answers: AtomicU64::new(0) }
    }

    /// What `resolver` says, or has said to another since this was called.
    pub(super) async fn look_up(
        &self,
        resolver: impl Future<Output = io::Result<Vec<SocketAddr>>>,
    ) -> io::Result<Vec<SocketAddr>> {
        let before = self.answers.load(Relaxed);
        // Who gives up while asking leaves that to the next in this queue.
        let mut last = self.last.lock().await;
        if self.answers.load(Relaxed) == before {
            *last = resolver.await.map_err(Arc::new);
            self.answers.fetch_add(1, Relaxed);
        }
        last.clone().map_err(|error| io::Error::new(error.kind(), error))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::task::JoinSet;
    use tokio::time::{sleep, timeout};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Takes a second; the port tells which answer it is, and the third is an error.
    async fn resolver(asked: &AtomicU64) -> io::Result<Vec<SocketAddr>> {
        let number = asked.fetch_add(1, Relaxed) + 1;
        sleep(SECOND).await;
        match u16::try_from(number) {
            Ok(3) | Err(_) => Err(io::Error::other("no such name")),
            Ok(port) => Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_during_a_lookup_shares_it_and_who_asks_later_does_not() {
        let (names, asked) = (Arc::new(Names::new()), Arc::new(AtomicU64::new(0)));
        for round in 1..=4 {
            let mut waiting = JoinSet::new();
            for place in 0..512 {
                let (names, asked) = (Arc::clone(&names), Arc::clone(&asked));
                waiting.spawn(async move {
                    // Some come in the middle of it.
                    sleep(SECOND * (place % 2) / 2).await;
                    names.look_up(resolver(&asked)).await
                });
            }
            for told in waiting.join_all().await {
                match told {
                    Ok(found) => assert_eq!(found[0].port(), round),
                    Err(error) => {
                        assert_eq!((round, error.to_string()), (3, "no such name".into()));
                    }
                }
            }
            assert_eq!(asked.load(Relaxed), u64::from(round));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_while_asking_is_taken_over_from() {
        let (names, asked) = (Names::new(), AtomicU64::new(0));
        let ask = || names.look_up(resolver(&asked));
        let (first, second) = tokio::join!(timeout(SECOND / 2, ask()), ask());
        assert!(first.is_err());
        assert_eq!(second.unwrap()[0].port(), 2);
    }
}

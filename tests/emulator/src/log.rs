//! What arrived: the requests themselves, and counts that a test can wait for.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use crate::http::Recorded;
use crate::locked;

/// Requests in order of arrival.
#[derive(Debug)]
pub(crate) struct Log {
    requests: Mutex<Vec<Arc<Recorded>>>,
    recording: AtomicBool,
}

impl Default for Log {
    fn default() -> Self {
        Self { requests: Mutex::default(), recording: AtomicBool::new(true) }
    }
}

impl Log {
    pub(crate) fn record(&self, request: &Arc<Recorded>) {
        if self.recording.load(Relaxed) {
            locked(&self.requests).push(Arc::clone(request));
        }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Recorded>> {
        locked(&self.requests).clone()
    }

    pub(crate) fn clear(&self) {
        locked(&self.requests).clear();
    }

    pub(crate) fn set_recording(&self, recording: bool) {
        self.recording.store(recording, Relaxed);
    }
}

/// A count that can be awaited.
#[derive(Debug)]
pub(crate) struct Count(watch::Sender<u64>);

impl Default for Count {
    fn default() -> Self {
        Self(watch::channel(0).0)
    }
}

impl Count {
    pub(crate) fn add(&self) {
        self.0.send_modify(|count| *count += 1);
    }

    pub(crate) fn now(&self) -> u64 {
        *self.0.borrow()
    }

    /// Waits for at least so many; the error says how many there were when the deadline passed.
    pub(crate) async fn wait_for(&self, wanted: u64, deadline: Duration) -> Result<u64, String> {
        let mut count = self.0.subscribe();
        let reached = count.wait_for(|now| *now >= wanted);
        match tokio::time::timeout(deadline, reached).await {
            Ok(now) => Ok(now.map(|now| *now).unwrap_or_default()),
            Err(_) => Err(format!("{} of {wanted} within {deadline:?}", self.now())),
        }
    }
}

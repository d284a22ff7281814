//! A register in this process, for tests of those who use one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::sync::watch;

use super::{Content, Held, Register, RegisterError, Swapped, Version};

/// Clones are the same register, each with a view of its own of what changed.
#[derive(Clone, Debug)]
pub struct Memory {
    held: watch::Sender<(u64, Option<Content>)>,
    seen: watch::Receiver<(u64, Option<Content>)>,
    /// Nothing can be reached.
    pub down: Arc<AtomicBool>,
    /// Writes happen, and their answers get lost.
    pub deaf: Arc<AtomicBool>,
    /// Writes do not happen, and their answers get lost.
    pub void: Arc<AtomicBool>,
}

impl PartialEq for Memory {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.down, &other.down)
    }
}

impl Eq for Memory {}

impl Default for Memory {
    /// An empty one.
    fn default() -> Self {
        let (held, seen) = watch::channel((0, None));
        Self { held, seen, down: Arc::default(), deaf: Arc::default(), void: Arc::default() }
    }
}

impl Memory {
    /// What is held, as after a failover to a copy of that moment.
    #[must_use]
    pub fn held(&self) -> Option<Content> {
        self.held.borrow().1.clone()
    }

    /// Goes back to that.
    pub fn go_back(&self, to: Option<Content>) {
        self.held.send_modify(|(version, content)| (*version, *content) = (*version + 1, to));
    }

    fn reach(&self) -> Result<(), RegisterError> {
        if self.down.load(Relaxed) {
            let source = std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into();
            return Err(RegisterError::Unreachable { place: "memory".to_owned(), source });
        }
        Ok(())
    }
}

impl Register for Memory {
    async fn read(&mut self) -> Result<Held, RegisterError> {
        self.reach()?;
        let (version, content) = self.held.borrow().clone();
        Ok(Held { version: Version(version.to_string()), content })
    }

    async fn swap(
        &mut self,
        expected: &Version,
        content: &Content,
    ) -> Result<Swapped, RegisterError> {
        self.reach()?;
        let mut swapped = Swapped::Conflict;
        self.held.send_if_modified(|(version, held)| {
            let same = expected.0 == version.to_string() && !self.void.load(Relaxed);
            if same {
                (*version, *held) = (*version + 1, Some(content.clone()));
                swapped = Swapped::Done(Version(version.to_string()));
            }
            same
        });
        if self.deaf.load(Relaxed) || self.void.load(Relaxed) {
            let source = std::io::Error::from(std::io::ErrorKind::TimedOut).into();
            let error = RegisterError::Unreachable { place: "memory".to_owned(), source };
            return Ok(Swapped::Unknown(error));
        }
        Ok(swapped)
    }

    async fn changed(&mut self) {
        if self.seen.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn listens(&self) -> bool {
        true
    }
}

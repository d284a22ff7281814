//! Notices when files change, as editors, Kubernetes and configuration management change them.
//!
//! Events only say "look": a Kubernetes volume swaps its `..data` symlink and touches nothing else,
//! and some file systems report nothing at all. So the directories are watched, any event leads to
//! a look, a timer does too, and only content counts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::secret::{Fingerprint, read_bytes};

/// How often is looked without any event.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Files that are replaced together are looked at together.
const SETTLE: Duration = Duration::from_millis(100);

/// Files and what they held when last looked at.
pub(super) struct Files {
    seen: BTreeMap<PathBuf, Option<Fingerprint>>,
    directories: BTreeSet<PathBuf>,
    watcher: Option<RecommendedWatcher>,
    event: Arc<Notify>,
}

impl Files {
    /// Watches `paths` from now on.
    #[must_use]
    pub(super) fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let event = Arc::new(Notify::new());
        let wake = Arc::clone(&event);
        // Without a watcher (out of inotify instances, say) the timer does.
        let watcher = notify::recommended_watcher(move |_| wake.notify_one()).ok();
        let mut files =
            Self { seen: BTreeMap::new(), directories: BTreeSet::new(), watcher, event };
        files.watch(paths);
        files
    }

    /// Watches `paths` instead; what stays is not looked at anew.
    pub(super) fn watch(&mut self, paths: impl IntoIterator<Item = PathBuf>) {
        let mut seen = BTreeMap::new();
        for path in paths {
            let print = self.seen.get(&path).copied().unwrap_or_else(|| fingerprint(&path));
            self.watch_directory(&path);
            seen.insert(path, print);
        }
        self.seen = seen;
    }

    fn watch_directory(&mut self, path: &Path) {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = parent.unwrap_or(Path::new(".")).to_owned();
        if let Some(watcher) = &mut self.watcher
            && self.directories.insert(directory.clone())
        {
            let _ = watcher.watch(&directory, RecursiveMode::NonRecursive);
        }
    }

    /// Waits until content has changed, and names the files.
    pub(super) async fn changed(&mut self) -> Vec<PathBuf> {
        loop {
            let _ = timeout(LOOK_EVERY, self.event.notified()).await;
            sleep(SETTLE).await;
            let changed = self.look();
            if !changed.is_empty() {
                return changed;
            }
        }
    }

    fn look(&mut self) -> Vec<PathBuf> {
        let mut changed = Vec::new();
        for (path, seen) in &mut self.seen {
            let now = fingerprint(path);
            if now != *seen {
                *seen = now;
                changed.push(path.clone());
            }
        }
        changed
    }
}

fn fingerprint(path: &Path) -> Option<Fingerprint> {
    // What cannot be read is reported when it is used.
    read_bytes(path).ok().map(|content| Fingerprint::of(&content))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, content: &str) {
        std::fs::write(path, content).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn without_any_event_the_timer_looks() {
        let home = tempfile::tempdir().unwrap();
        let (one, two) = (home.path().join("one"), home.path().join("two"));
        write(&one, "1");
        let mut files = Files::new([one.clone(), two.clone()]);
        files.watcher = None;
        files.event = Arc::new(Notify::new());
        for (path, content) in [(&two, "appears"), (&one, "changes")] {
            write(path, content);
            let changed = timeout(LOOK_EVERY + 2 * SETTLE, files.changed()).await;
            assert_eq!(changed.unwrap(), std::slice::from_ref(path));
        }
        std::fs::remove_file(&one).unwrap();
        assert_eq!(files.changed().await, [one]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_changed_before_others_were_watched_as_well_is_a_change() {
        let home = tempfile::tempdir().unwrap();
        let (config, secret) = (home.path().join("config"), home.path().join("secret"));
        write(&config, "as it was read");
        let mut files = Files::new([config.clone()]);
        write(&config, "as it is now");
        write(&secret, "1");
        files.watch([config.clone(), secret]);
        assert_eq!(files.changed().await, [config]);
    }

    #[tokio::test(start_paused = true)]
    async fn only_content_counts() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("one");
        write(&path, "1");
        let mut files = Files::new([path.clone()]);
        files.event.notify_one();
        // Another file of the same content in its place.
        write(&home.path().join("new"), "1");
        std::fs::rename(home.path().join("new"), &path).unwrap();
        assert!(timeout(LOOK_EVERY * 5, files.changed()).await.is_err());
    }
}

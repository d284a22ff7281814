//! Disks that are full, read-only, forbidden or broken: serving goes on, nothing is lost that the
//! disk took, and everything heals without help.

use super::*;

const EIO: i32 = 5;
const EACCES: i32 = 13;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

/// Every call of a write that can fail, and how.
const FAULTS: [(&str, i32); 9] = [
    ("created", ENOSPC),
    ("created", EROFS),
    ("created", EACCES),
    ("written", ENOSPC),
    ("written", EIO),
    ("synced", EIO),
    ("renamed", EIO),
    ("renamed", EROFS),
    ("kept", EIO),
];

/// Runs `test` for each case at the same time: most of it is waiting for the next attempt.
fn each<T: Copy + Send + Sync>(cases: &[T], test: impl AsyncFn(T) + Sync) {
    std::thread::scope(|threads| {
        for case in cases {
            threads.spawn(|| tokio::runtime::Runtime::new().unwrap().block_on(test(*case)));
        }
    });
}

async fn unsynced(daemon: &Daemon) -> bool {
    daemon.metric("bearerd_store_unsynced", &["credential=\"c\""]).await > 0.5
}

/// A daemon whose disk has just refused a new refresh token.
async fn in_trouble(bed: &Bed, point: &str, error: i32) -> Daemon {
    let daemon = bed.started().await;
    bed.plan(&format!("{point} {error}"));
    bed.refresh(&daemon).await;
    assert_eq!(daemon.get("/on").await.status, 200, "{point} {error}");
    assert!(unsynced(&daemon).await, "{point} {error}");
    let failed = daemon.metric("bearerd_store_writes_total", &["outcome=\"failed\""]).await;
    assert!(failed >= 1.0);
    let line = daemon.wait_for_log("the new refresh token is in memory only");
    assert!(line.contains(&format!("os error {error}")) && line.contains("state"), "{line}");
    daemon
}

/// The next process goes on with what the store holds.
async fn goes_on(bed: &Bed) {
    let daemon = bed.started().await;
    assert_eq!(daemon.get("/on").await.status, 200);
    bed.refresh(&daemon).await;
    assert!(daemon.stop().success());
    assert!(bed.holds_newest() && !bed.pending().exists());
    bed.unharmed();
}

#[test]
fn a_write_that_fails_is_made_up_for_when_the_disk_is_well_again() {
    each(&FAULTS, async |(point, error)| {
        let bed = Bed::new();
        let daemon = in_trouble(&bed, point, error).await;
        bed.plan("");
        eventually("the store caught up", async || !unsynced(&daemon).await).await;
        daemon.kill();
        assert!(bed.holds_newest(), "{point} {error}");
        goes_on(&bed).await;
    });
}

#[test]
fn a_stop_waits_until_the_disk_is_well_again() {
    each(&FAULTS, async |(point, error)| {
        let bed = Bed::new();
        let mut daemon = in_trouble(&bed, point, error).await;
        let failures = daemon.logs().matches("in memory only").count();
        daemon.signal("TERM");
        daemon.wait_for_log("stopping");
        bed.plan("");
        assert!(daemon.exit().success(), "{point} {error}, after {failures} failures");
        assert!(bed.holds_newest() && !bed.pending().exists(), "{point} {error}");
        goes_on(&bed).await;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_disk_took_before_it_failed_outlives_a_kill() {
    // The write was whole: whether it is on the disk, or in its place, is not known.
    for (point, error) in [("synced", EIO), ("renamed", EROFS), ("kept", EIO)] {
        let bed = Bed::new();
        in_trouble(&bed, point, error).await.kill();
        bed.plan("");
        assert!(bed.holds_newest(), "{point}");
        goes_on(&bed).await;
    }
}

#[test]
fn a_store_that_cannot_be_read_or_locked_is_waited_for_and_nothing_is_sent() {
    let faults = [("read", EIO), ("read", EACCES), ("locked", EACCES), ("locked", EROFS)];
    each(&faults, async |(point, error)| {
        let bed = Bed::new();
        assert!(bed.started().await.stop().success());
        bed.plan(&format!("{point} {error}"));
        let daemon = bed.start();
        let line = daemon.wait_for_log("token store not available");
        assert!(line.contains("store.json") && line.contains("os error"), "{line}");
        assert_eq!(bed.idp.token_requests(), 1, "the bootstrap token was sent again");
        bed.plan("");
        daemon.ready().await;
        assert!(daemon.stop().success());
        goes_on(&bed).await;
    });
}

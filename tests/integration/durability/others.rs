//! Files that are not bearerd's any more, and clocks that jump.

use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::json;

use super::*;
use crate::support::{read, request};

type Change = fn(&Bed);

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_others_may_read_or_replaced_is_refused_and_left_alone() {
    let bed = Bed::new();
    assert!(bed.started().await.stop().success());
    let store = bed.store();
    let changes: [(Change, &str); 4] = [
        (|bed| set_mode(bed, 0o644), "run chmod 600"),
        (|bed| bed.plan("owner 12345"), "belongs to user 12345"),
        (
            |bed| {
                std::fs::rename(bed.store(), bed.home.path("aside")).unwrap();
                symlink(bed.home.path("aside"), bed.store()).unwrap();
            },
            "cannot read",
        ),
        (
            |bed| {
                std::fs::remove_file(bed.store()).unwrap();
                std::fs::create_dir(bed.store()).unwrap();
                set_mode(bed, 0o700);
            },
            "is not a regular file",
        ),
    ];
    for (change, problem) in changes {
        let content = std::fs::read(&store).unwrap();
        change(&bed);
        let daemon = bed.start();
        let line = daemon.wait_for_log("token store not available");
        assert!(line.contains("store.json") && line.contains(problem), "{line}");
        assert_eq!(daemon.admin("/readyz").await.status, 503);
        assert_eq!(bed.idp.token_requests(), 1, "{problem}: the bootstrap token was sent again");
        // A person mends it while the daemon waits.
        bed.plan("");
        let _ = std::fs::remove_dir(&store);
        let _ = std::fs::remove_file(&store);
        std::fs::write(bed.home.path("mended"), content).unwrap();
        std::fs::rename(bed.home.path("mended"), &store).unwrap();
        set_mode(&bed, 0o600);
        daemon.ready().await;
        assert!(daemon.stop().success());
    }
    let daemon = bed.started().await;
    bed.refresh(&daemon).await;
    bed.unharmed();
}

fn set_mode(bed: &Bed, mode: u32) {
    std::fs::set_permissions(bed.store(), std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_takes_nothing_more_ends_nothing() {
    let bed = Bed::new();
    let daemon = bed.started().await;
    daemon.give_up_reading().await;
    bed.refresh(&daemon).await;
    daemon.signal("HUP");
    eventually("reloaded", async || {
        daemon.metric("bearerd_config_reloads_total", &["\"ok\""]).await > 0.5
    })
    .await;
    bed.refresh(&daemon).await;
    assert!(daemon.stop().success());
    assert!(bed.holds_newest());
    bed.unharmed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_clock_that_jumps_costs_at_most_a_refresh() {
    const DAY: i64 = 86_400;
    let bed = Bed::new();
    for step in [-DAY, DAY, -3600, 3600, -40 * 365 * DAY, 40 * 365 * DAY] {
        let daemon = bed.started().await;
        let before = bed.idp.token_requests();
        bed.plan(&format!("clock {step}"));
        // While it runs, and over a restart.
        assert_eq!(daemon.get("/stepped").await.status, 200, "{step}");
        assert!(daemon.stop().success());
        let daemon = bed.started().await;
        assert_eq!(daemon.get("/restarted").await.status, 200, "{step}");
        bed.refresh(&daemon).await;
        bed.plan("");
        assert_eq!(daemon.get("/back").await.status, 200, "{step}");
        assert!(daemon.stop().success());
        let daemon = bed.started().await;
        assert_eq!(daemon.get("/restarted").await.status, 200, "{step}");
        assert!(daemon.stop().success());
        let requests = bed.idp.token_requests() - before;
        assert!((1..=3).contains(&requests), "{step}: {requests} token requests");
        assert!(bed.holds_newest());
        bed.unharmed();
    }
}

/// While a machine sleeps its monotonic clock stands still. What it held before may be dead when it
/// wakes, and a request that came meanwhile must not carry it.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_slept_sends_no_token_of_before() {
    const NIGHT: u64 = 8 * 3600;
    let bed = Bed::new();
    bed.idp.set_expires_in(json!(3600));
    let daemon = bed.started().await;
    assert_eq!(daemon.get("/evening").await.status, 200);
    let carried = || bed.api.last_request().and_then(|request| request.header("authorization"));
    let (evening, refreshes) = (carried(), bed.idp.token_requests());
    daemon.signal("STOP");
    let asleep = tokio::spawn(request_of_the_night(daemon.proxy));
    eventually("the request has come", async || waits_unread(daemon.proxy)).await;
    bed.plan(&format!("clock {NIGHT}"));
    daemon.signal("CONT");
    assert_eq!(asleep.await.unwrap(), 200);
    assert!(carried().is_some() && carried() != evening, "a token of before was sent");
    assert_eq!(bed.idp.token_requests(), refreshes + 1);
    assert_eq!(daemon.get("/morning").await.status, 200);
    assert_eq!(bed.idp.token_requests(), refreshes + 1, "once is enough");
    assert!(bed.holds_newest());
    bed.unharmed();
}

async fn request_of_the_night(proxy: SocketAddr) -> u16 {
    request(proxy, "GET", "/night", &[], b"").await.status
}

/// Whether something lies at `address` that nobody has accepted or read.
fn waits_unread(address: SocketAddr) -> bool {
    let port = format!(":{:04X}", address.port());
    read("/proc/net/tcp").lines().skip(1).any(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let unread = columns[4].split(':').nth(1).is_some_and(|n| n.bytes().any(|d| d != b'0'));
        columns[1].ends_with(&port) && unread
    })
}

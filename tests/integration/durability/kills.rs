//! `kill -9`, at every point of a refresh and at random moments.
//!
//! The only loss that is allowed is a kill between the provider's commit and the end of our write:
//! nobody else knows the new refresh token then. `make torture` makes many more rounds.

use std::time::Instant;

use super::*;
use crate::support::{DEADLINE, request};

/// The points of a refresh, in order, and whether a kill there may lose the refresh token.
const POINTS: [(&str, bool); 7] = [
    ("sending", false),
    ("answered", true),
    ("created", true),
    ("written", false),
    ("synced", false),
    ("renamed", false),
    ("kept", false),
];

/// Rounds of a kind, more of them for `make torture`.
fn rounds(usual: u32) -> u32 {
    let times = std::env::var("BEARERD_TORTURE").ok().and_then(|times| times.parse().ok());
    usual * times.unwrap_or(1)
}

/// When a process is killed during a refresh.
#[derive(Clone, Copy)]
enum Kill {
    /// Right after this point was passed, and before the next thing is done.
    At(&'static str),
    /// So long after the request that causes the refresh.
    After(Duration),
}

/// What one kill left behind.
struct Aftermath {
    /// The provider had replaced the refresh token.
    committed: bool,
    /// Its successor is gone.
    lost: bool,
    /// What was passed before the end.
    trace: Vec<(String, u64)>,
}

impl Aftermath {
    fn passed(&self, point: &str) -> bool {
        self.trace.iter().any(|(passed, _)| passed == point)
    }
}

/// Starts a process, which must get on without help, lets it refresh, and kills it.
async fn round(bed: &Bed, kill: Kill) -> Aftermath {
    let mut daemon = bed.started().await;
    assert_eq!(daemon.get("/on").await.status, 200);
    bed.unharmed();
    bed.trace();
    let before = bed.idp.rotations();
    bed.api.script([Step::Status(401)]);
    if let Kill::At(point) = kill {
        bed.plan(&format!("{point} kill"));
    }
    let proxy = daemon.proxy;
    let nudge = tokio::task::JoinSet::from_iter([async move {
        let mut client = emulator::client::Client::connect(proxy).await?;
        client.request("GET", "/nudge", &[], b"").await
    }]);
    if let Kill::After(time) = kill {
        let at = Instant::now() + time;
        // To the microsecond, which no timer is.
        while Instant::now() < at {
            tokio::task::yield_now().await;
        }
        daemon.kill();
    } else {
        assert!(!daemon.exit().success());
    }
    nudge.join_all().await;
    settled(bed).await;
    bed.plan("");
    bed.api.clear_script();
    let committed = bed.idp.rotations() > before;
    Aftermath { committed, lost: !bed.holds_newest(), trace: bed.trace() }
}

/// Waits until the provider has done what the killed process still asked it for: connections are
/// accepted in order, so those that came before this one have been.
async fn settled(bed: &Bed) {
    let provider = bed.idp.server();
    request(provider.address(), "GET", "/settled", &[], b"").await;
    assert!(provider.wait_for_open_connections(0, DEADLINE).await);
}

/// One row of the table of results.
fn row(what: &str, rounds: u32, committed: u32, lost: u32) {
    println!("| {what} | {rounds} | {committed} | {lost} |");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_point_but_between_commit_and_write_loses_nothing() {
    let bed = Bed::new();
    for (point, may_lose) in POINTS {
        let (mut committed, mut lost) = (0, 0);
        for _ in 0..rounds(8) {
            let after = round(&bed, Kill::At(point)).await;
            assert!(after.passed(point), "never got to {point}");
            assert_eq!(after.committed, point != "sending", "{point}");
            assert_eq!(after.lost, may_lose, "killed at {point}: {:?}", after.trace);
            committed += u32::from(after.committed);
            lost += u32::from(after.lost);
            if after.lost {
                bed.sign_in();
            }
        }
        row(&format!("kill at `{point}`"), rounds(8), committed, lost);
    }
    let daemon = bed.started().await;
    bed.refresh(&daemon).await;
    assert!(daemon.stop().success());
    assert!(bed.holds_newest() && !bed.pending().exists());
    bed.unharmed();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_wrote_is_on_disk_before_the_next_one_uses_it() {
    let bed = Bed::new();
    assert!(!round(&bed, Kill::At("written")).await.lost);
    let daemon = bed.started().await;
    let trace = bed.trace();
    let points: Vec<_> = trace.iter().map(|(point, _)| point.as_str()).collect();
    assert_eq!(points, ["synced", "renamed", "kept"]);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_a_random_moment_loses_at_most_what_was_not_written_yet() {
    let bed = Bed::new();
    let longest = refresh_time(&bed).await;
    let (mut committed, mut lost) = (0, 0);
    for _ in 0..rounds(150) {
        let after = round(&bed, Kill::After(longest.mul_f64(fastrand::f64()))).await;
        committed += u32::from(after.committed);
        if after.lost {
            assert!(after.committed && !after.passed("written"), "{:?}", after.trace);
            lost += 1;
            bed.sign_in();
        }
    }
    row("kill at random", rounds(150), committed, lost);
    assert!(committed > 0, "no kill came after a commit");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_grace_window_no_kill_loses_anything() {
    let bed = Bed::new();
    bed.idp.set_grace(Duration::from_secs(60));
    let longest = refresh_time(&bed).await;
    let points = POINTS.map(|(point, _)| Kill::At(point)).into_iter();
    let random = (0..rounds(50)).map(|_| Kill::After(longest.mul_f64(fastrand::f64())));
    let (mut all, mut committed) = (0, 0);
    for kill in points.chain(random) {
        // What is lost here the next process gets back, without help.
        committed += u32::from(round(&bed, kill).await.committed);
        all += 1;
    }
    round(&bed, Kill::At("kept")).await;
    assert!(bed.holds_newest());
    bed.unharmed();
    row("kill anywhere, provider with a grace window", all, committed, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_window_in_which_a_kill_loses_is_measured() {
    let bed = Bed::new();
    let mut windows = Vec::new();
    assert!(bed.started().await.stop().success());
    for _ in 0..rounds(10) {
        let daemon = bed.started().await;
        bed.trace();
        bed.refresh(&daemon).await;
        assert!(daemon.stop().success());
        let trace = bed.trace();
        let at = |point: &str| trace.iter().find(|(p, _)| p == point).expect("passed").1;
        let order: Vec<&str> = trace.iter().map(|(point, _)| point.as_str()).collect();
        assert_eq!(order, POINTS.map(|(point, _)| point), "the order of a refresh");
        windows.push(["written", "synced", "kept"].map(|point| at(point) - at("answered")));
    }
    for (index, until) in ["written", "on disk (fsync)", "in place, durably"].iter().enumerate() {
        let mut times: Vec<u64> = windows.iter().map(|window| window[index] / 1000).collect();
        times.sort_unstable();
        let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
        println!("from the answer's last byte until {until}: {median} µs, at most {most} µs");
    }
}

/// How long a refresh takes here, from the request that causes it to the end, and some more.
async fn refresh_time(bed: &Bed) -> Duration {
    let daemon = bed.started().await;
    let began = Instant::now();
    bed.refresh(&daemon).await;
    let took = began.elapsed();
    daemon.kill();
    took.mul_f64(1.5)
}

//! Rotation when something goes wrong: the disk, the network, the process.

use emulator::Step;

use super::{Family, status};
use crate::support::{DEADLINE, Daemon, eventually, read};

#[tokio::test(flavor = "multi_thread")]
async fn without_a_writable_store_serving_goes_on_and_the_store_catches_up() {
    let family = Family::new();
    let daemon = family.started().await;
    let unsynced = async || daemon.metric("bearerd_store_unsynced", &["credential=\"c\""]).await;
    assert!(unsynced().await < 0.5);
    let (state, away) = (family.home.path("state"), family.home.path("away"));
    std::fs::rename(&state, &away).unwrap();
    family.refresh(&daemon).await;
    assert!(unsynced().await > 0.5);
    let line = daemon.wait_for_log("the new refresh token is in memory only");
    assert!(line.contains("cannot create") && line.contains("store.json.new"), "{line}");
    let failed = ["outcome=\"failed\""];
    assert!(daemon.metric("bearerd_store_writes_total", &failed).await >= 1.0);
    // Once more, from memory: what was replaced is never sent again.
    // A 401 right after a refresh causes none, so it takes some.
    eventually("a third token", async || {
        family.api.script([Step::Status(401)]);
        daemon.get("/nudge").await;
        family.idp.rotations() == 3
    })
    .await;
    family.api.clear_script();
    std::fs::rename(&away, &state).unwrap();
    eventually("the store caught up", async || unsynced().await < 0.5).await;
    assert_eq!(Some(family.stored()), family.idp.current_refresh_token());
    assert_eq!(family.sent().len(), 3);
    family.finish(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_a_store_that_lags_behind() {
    let family = Family::new();
    let mut daemon = family.started().await;
    let (state, away) = (family.home.path("state"), family.home.path("away"));
    std::fs::rename(&state, &away).unwrap();
    family.refresh(&daemon).await;
    daemon.signal("TERM");
    daemon.wait_for_log("stopping");
    std::fs::rename(&away, &state).unwrap();
    assert!(daemon.exit().success());
    assert_eq!(Some(family.stored()), family.idp.current_refresh_token());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_during_a_stop_holds_the_exit() {
    let family = Family::new();
    let mut daemon = family.started().await;
    family.idp.script([Step::SlowAnswer(std::time::Duration::from_millis(700))]);
    family.api.script([Step::Status(401)]);
    let nudge = daemon.get("/nudge");
    let (state, away) = (family.home.path("state"), family.home.path("away"));
    let stop = async {
        family.idp.wait_for_token_requests(2, DEADLINE).await.expect("in time");
        daemon.signal("TERM");
        daemon.wait_for_log("stopping");
        std::fs::rename(&state, &away).unwrap();
    };
    tokio::join!(nudge, stop);
    // The answer is there, and nowhere to put it.
    daemon.wait_for_log("the new refresh token is in memory only");
    std::fs::rename(&away, &state).unwrap();
    assert!(daemon.exit().success());
    assert_eq!(family.idp.rotations(), 2);
    assert_eq!(Some(family.stored()), family.idp.current_refresh_token());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_never_comes_back_does_not_hold_the_exit_beyond_the_grace() {
    let family = Family::new();
    let mut daemon = Daemon::start_with(&family.home, &family.config(1));
    daemon.ready().await;
    std::fs::rename(family.home.path("state"), family.home.path("away")).unwrap();
    family.refresh(&daemon).await;
    daemon.signal("TERM");
    let began = std::time::Instant::now();
    assert!(daemon.exit().success());
    let took = began.elapsed();
    assert!((0.5..5.0).contains(&took.as_secs_f64()), "{took:?}");
    daemon.wait_for_log("could not be stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_store_is_an_error_that_names_it_and_no_return_to_the_bootstrap_token() {
    let family = Family::new();
    let daemon = family.started().await;
    assert!(daemon.stop().success());
    let good = read(family.store());
    let other = good.replacen("refresh_token\": \"", "refresh_token\": \"x", 1);
    let newer = good.replacen("\"format\": 1", "\"format\": 2", 1);
    assert!(other != good && newer != good);
    for (content, problem) in [
        (&good[..good.len() / 2], "is torn"),
        ("", "is torn"),
        (&other, "has a checksum that does not match"),
        (&newer, "has a format that this version does not know"),
    ] {
        std::fs::write(family.store(), content).unwrap();
        let daemon = family.start();
        let line = daemon.wait_for_log("token store not available");
        let place = family.store().display().to_string();
        assert!(line.contains(&place) && line.contains(problem), "{line}");
        eventually("the same in the status", async || {
            let told = status(&daemon).await["last"]["detail"].as_str().unwrap_or("").to_owned();
            told.contains(&place) && told.contains(problem)
        })
        .await;
        assert_eq!(status(&daemon).await["last"]["needs_operator"], true);
        assert!(daemon.metric("bearerd_needs_operator", &[]).await > 0.5);
        assert_eq!(daemon.get("/early").await.status, 503);
        assert_eq!(family.idp.token_requests(), 1, "the bootstrap token was sent again");
        assert!(daemon.stop().success());
        assert_eq!(read(family.store()), content, "left as it was, for a person to look at");
    }
    // A person restores it while the daemon waits.
    let daemon = family.start();
    std::fs::write(family.store(), &good).unwrap();
    daemon.ready().await;
    family.refresh(&daemon).await;
    assert_eq!(family.sent().len(), 2);
    family.finish(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_lost_answer_the_held_token_is_served_and_the_spent_one_is_not_sent_again() {
    let family = Family::new();
    let daemon = family.started().await;
    family.idp.script([Step::LostAnswer]);
    family.api.script([Step::Status(401)]);
    let answer = daemon.get("/nudge").await;
    assert_eq!(answer.status, 401, "nothing better is to be had");
    eventually("the failure", async || status(&daemon).await["activity"] == "backing_off").await;
    for _ in 0..20 {
        assert_eq!(daemon.get("/held").await.status, 200);
    }
    // Neither a refusal nor anything else sends it again.
    family.api.script([Step::Status(401)]);
    assert_eq!(daemon.get("/nudge").await.status, 401);
    assert_eq!((family.idp.token_requests(), family.sent().len()), (2, 2));
    assert!(family.idp.family_alive());
    assert!(daemon.stop().success());
    assert_eq!(family.idp.token_requests(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_under_way_at_a_stop_is_finished_and_stored() {
    let family = Family::new();
    let mut daemon = family.started().await;
    family.idp.script([Step::SlowAnswer(std::time::Duration::from_millis(700))]);
    family.api.script([Step::Status(401)]);
    let nudge = daemon.get("/nudge");
    let stop = async {
        family.idp.wait_for_token_requests(2, DEADLINE).await.expect("in time");
        daemon.signal("TERM");
    };
    let (answer, ()) = tokio::join!(nudge, stop);
    assert_eq!(answer.status, 200, "replayed with the new token");
    assert!(daemon.exit().success());
    assert_eq!(family.idp.rotations(), 2);
    assert_eq!(Some(family.stored()), family.idp.current_refresh_token());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_right_after_a_publication_loses_nothing() {
    let family = Family::new();
    for round in 1..=4 {
        let daemon = family.started().await;
        if round > 1 {
            // The request that was replayed is the first sight of the new token.
            family.refresh(&daemon).await;
        }
        daemon.kill();
        assert_eq!(Some(family.stored()), family.idp.current_refresh_token());
    }
    let daemon = family.started().await;
    assert_eq!(daemon.get("/alive").await.status, 200);
    assert_eq!(family.sent().len(), 4, "each start went on with the stored token");
    family.finish(daemon);
}

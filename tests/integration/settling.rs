//! A token refused right after its refresh may be too new for the upstream: one more try after a
//! short pause, and no second refresh.

use std::time::{Duration, Instant};

use emulator::{Reply, Step};
use serde_json::json;

use crate::bodies::unauthorized;
use crate::stage::{Stage, together};
use crate::support::{DEADLINE, Daemon, eventually, request};

/// The least that a pause takes.
const PAUSE: Duration = Duration::from_millis(200);

/// Has the token replaced by a 401.
async fn replaced(stage: &Stage, daemon: &Daemon) {
    let before = stage.idp.token_requests();
    stage.api.script([Step::from(unauthorized())]);
    assert_eq!(daemon.get("/replaced").await.status, 200);
    assert_eq!(stage.idp.token_requests(), before + 1);
}

/// How long after one another the newest two requests came.
fn apart(stage: &Stage) -> Duration {
    let requests = stage.api.requests();
    let [.., before, last] = requests.as_slice() else { panic!("fewer than two") };
    last.at - before.at
}

fn newest_token(stage: &Stage) -> Option<String> {
    stage.api.last_request().expect("a request").header("authorization")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_401_right_after_a_refresh_costs_a_pause_and_one_replay() {
    for (second, status) in [(Step::Normal, 200), (Step::from(unauthorized()), 401)] {
        let stage = Stage::new();
        let daemon = stage.ready("").await;
        replaced(&stage, &daemon).await;
        let token = newest_token(&stage);
        stage.api.script([Step::from(unauthorized()), second]);
        assert_eq!(daemon.get("/").await.status, status);
        assert_eq!(stage.api.request_count(), 4, "one replay each");
        assert_eq!(newest_token(&stage), token);
        assert!(apart(&stage) >= PAUSE, "{:?}", apart(&stage));
        assert_eq!(stage.idp.token_requests(), 2, "a second refresh");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_401_later_on_causes_a_refresh() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    replaced(&stage, &daemon).await;
    // The behaviour is about time: longer than a token counts as new.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    replaced(&stage, &daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_new_from_its_publication_on_however_long_its_fetch_took() {
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    stage.idp.script([Step::SlowAnswer(Duration::from_millis(1500))]);
    replaced(&stage, &daemon).await;
    stage.api.script([Step::from(unauthorized())]);
    assert_eq!(daemon.get("/").await.status, 200);
    assert!(apart(&stage) >= PAUSE, "{:?}", apart(&stage));
    assert_eq!(stage.idp.token_requests(), 2, "a second refresh");
}

/// A token that lives for a second is replaced a second after its fetch began; if that took half a
/// second, the next one is there while this one is still new.
#[tokio::test(flavor = "multi_thread")]
async fn a_newer_token_that_is_there_already_is_sent_without_a_pause() {
    let end = Instant::now() + DEADLINE;
    loop {
        let stage = Stage::new();
        stage.idp.set_expires_in(json!(1));
        let slow = Step::SlowAnswer(Duration::from_millis(500));
        stage.idp.script([Step::Normal, slow]);
        let daemon = stage.ready("").await;
        eventually("the second token", async || generation(&daemon).await == 2).await;
        let proxy = daemon.proxy;
        // Held upstream until the third token is there, about half a second later.
        let refused = Reply::status(401).delay(Duration::from_millis(700));
        stage.api.script([Step::from(refused)]);
        let statuses =
            together(1, move |_| async move { request(proxy, "GET", "/", &[], b"").await.status });
        assert_eq!(statuses.await, [200]);
        let refused_to_replay = apart(&stage).saturating_sub(Duration::from_millis(700));
        let renewed = stage.api.requests()[0].header("authorization") != newest_token(&stage);
        if renewed && refused_to_replay < PAUSE {
            return;
        }
        assert!(Instant::now() < end, "it always takes a pause: {refused_to_replay:?}");
    }
}

async fn generation(daemon: &Daemon) -> u64 {
    daemon.metric("bearerd_token_generation", &[]).await as u64
}

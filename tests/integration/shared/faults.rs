//! What goes wrong: the store away, emptied, or silent at the worst moment; a replica killed or
//! stopped in the middle of a refresh.

use emulator::Step;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn without_the_store_the_token_goes_on_and_nobody_refreshes_on_his_own() {
    let mut bed = Bed::new();
    bed.idp.set_lifetime(Duration::from_secs(8));
    let replicas = bed.replicas(3).await;
    bed.redis.kill();
    let fetched = bed.idp.token_requests();
    let served_until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < served_until {
        for replica in &replicas {
            assert_eq!(replica.get("/").await.status, 200);
        }
    }
    for replica in &replicas {
        eventually("told", async || {
            credential(replica).await["last"].to_string().contains("cannot be reached")
        })
        .await;
    }
    assert_eq!(bed.idp.token_requests(), fetched, "somebody refreshed on his own");
    bed.redis.resume();
    for replica in &replicas {
        eventually("served", async || replica.get("/").await.status == 200).await;
        replica.wait_for_log("token store available again");
    }
    assert!(bed.holds_newest());
    bed.unharmed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_comes_later_than_the_replicas_is_waited_for() {
    let mut bed = Bed::new();
    bed.redis.kill();
    let replicas = [bed.start(), bed.start()];
    for replica in &replicas {
        replica.wait_for_log("token store not available");
    }
    assert_eq!(bed.idp.token_requests(), 0);
    bed.redis.resume();
    for replica in &replicas {
        replica.ready().await;
    }
    assert_eq!(bed.idp.token_requests(), 1);
    bed.all_serve(&replicas).await;
    bed.unharmed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_lost_everything_is_an_alarm_and_no_old_token_is_sent() {
    let bed = Bed::new();
    let replicas = bed.replicas(3).await;
    bed.api.script([Step::Status(401)]);
    assert_eq!(replicas[0].get("/nudge").await.status, 200);
    for replica in &replicas {
        eventually("adopted", async || credential(replica).await["generation"] == 2).await;
    }
    let fetched = bed.idp.token_requests();
    bed.redis.ask(&["FLUSHALL"]);
    // One that never knew what was there, and would begin with the spent token.
    let newcomer = bed.start();
    for replica in replicas.iter().chain([&newcomer]) {
        eventually("alarm", async || needs_operator(replica).await).await;
        assert!(replica.metric("bearerd_needs_operator", &[]).await > 0.0);
        let told = "which refresh token is the newest is not";
        eventually(told, async || replica.logs().contains(told)).await;
    }
    assert_eq!(bed.idp.token_requests(), fetched, "an old token was sent");
    for replica in &replicas {
        assert_eq!(replica.get("/").await.status, 200, "the usable token goes on");
    }
    bed.sign_in();
    newcomer.ready().await;
    assert!(bed.holds_newest());
    bed.all_serve(std::slice::from_ref(&newcomer)).await;
    for replica in &replicas {
        eventually("well", async || !needs_operator(replica).await).await;
    }
    bed.all_serve(&replicas).await;
    assert_eq!(bed.idp.token_requests(), fetched + 1);
    bed.unharmed();
}

#[tokio::test(flavor = "multi_thread")]
async fn new_tokens_that_cannot_be_written_are_used_kept_and_written_later() {
    let bed = Bed::with(Redis::start(), "");
    let replicas = bed.replicas(2).await;
    bed.idp.script([Step::SlowAnswer(Duration::from_secs(1))]);
    bed.api.script([Step::Status(401)]);
    let asked = bed.idp.token_requests();
    let proxy = replicas[0].proxy;
    let nudge = tokio::spawn(async move {
        crate::support::request(proxy, "GET", "/nudge", &[], b"").await.status
    });
    bed.idp.wait_for_token_requests(asked + 1, DEADLINE).await.unwrap();
    // Between the intent and the answer.
    bed.redis.signal("STOP");
    assert_eq!(nudge.await.unwrap(), 200, "the winner serves on");
    eventually("unsynced", async || replicas[0].metric("bearerd_store_unsynced", &[]).await > 0.0)
        .await;
    bed.redis.signal("CONT");
    eventually("synced", async || replicas[0].metric("bearerd_store_unsynced", &[]).await == 0.0)
        .await;
    assert!(bed.holds_newest());
    eventually("adopted", async || credential(&replicas[1]).await["generation"] == 2).await;
    bed.all_serve(&replicas).await;
    assert_eq!(bed.idp.token_requests(), asked + 1);
    bed.unharmed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_until_the_new_tokens_are_written() {
    let bed = Bed::with(Redis::start(), "");
    let mut replicas = bed.replicas(1).await;
    bed.idp.script([Step::SlowAnswer(Duration::from_secs(1))]);
    bed.api.script([Step::Status(401)]);
    let asked = bed.idp.token_requests();
    let proxy = replicas[0].proxy;
    let nudge = tokio::spawn(async move {
        crate::support::request(proxy, "GET", "/nudge", &[], b"").await.status
    });
    bed.idp.wait_for_token_requests(asked + 1, DEADLINE).await.unwrap();
    bed.redis.signal("STOP");
    assert_eq!(nudge.await.unwrap(), 200);
    replicas[0].signal("TERM");
    replicas[0].wait_for_log("stopping");
    bed.redis.signal("CONT");
    assert!(replicas[0].exit().success());
    assert!(bed.holds_newest());
    bed.unharmed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_told_once_for_all_and_costs_one_request() {
    let bed = Bed::new();
    let replicas = bed.replicas(3).await;
    bed.idp.revoke_families();
    let asked = bed.idp.token_requests();
    let answers = crate::stage::together(30, |index| {
        let address = replicas[index % 3].proxy;
        async move { crate::support::request(address, "GET", "/", &[], b"").await.status }
    });
    assert!(answers.await.iter().all(|status| *status != 200));
    for replica in &replicas {
        eventually("told", async || needs_operator(replica).await).await;
    }
    assert_eq!(bed.idp.token_requests(), asked + 1);
    assert_eq!(bed.redis.document()["dead"], "refused");
}

/// The holder is gone or stopped after the provider has committed, and somebody else goes on when the
/// token is nearly used up.
async fn somebody_else_goes_on(bed: &Bed, signal: &str) -> (Vec<Daemon>, Duration) {
    bed.idp.set_lifetime(Duration::from_secs(6));
    bed.idp.set_grace(Duration::from_secs(120));
    let replicas = bed.replicas(3).await;
    bed.idp.script([Step::SlowAnswer(Duration::from_secs(1))]);
    bed.api.script([Step::Status(401)]);
    let asked = bed.idp.token_requests();
    let proxy = replicas[0].proxy;
    let nudge = tokio::task::JoinSet::from_iter([async move {
        let mut client = emulator::client::Client::connect(proxy).await?;
        client.request("GET", "/nudge", &[], b"").await
    }]);
    bed.idp.wait_for_token_requests(asked + 1, DEADLINE).await.unwrap();
    replicas[0].signal(signal);
    let began = Instant::now();
    for replica in &replicas[1..] {
        eventually("went on", async || {
            assert_eq!(replica.get("/").await.status, 200);
            credential(replica).await["generation"].as_u64() > Some(1)
        })
        .await;
    }
    drop(nudge);
    (replicas, began.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_holder_costs_its_deadline_where_the_provider_has_a_grace_window() {
    let bed = Bed::new();
    let (replicas, took) = somebody_else_goes_on(&bed, "KILL").await;
    println!("with a deadline of 3 s the others had a new token after {took:?}");
    assert!(bed.holds_newest());
    bed.all_serve(&replicas[1..]).await;
    bed.unharmed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_was_stopped_beyond_its_deadline_overwrites_nothing() {
    let bed = Bed::new();
    let (replicas, _) = somebody_else_goes_on(&bed, "STOP").await;
    let document = bed.redis.document();
    replicas[0].signal("CONT");
    // Until then what it held before is still good.
    let adopted = async || credential(&replicas[0]).await["generation"].as_u64() >= Some(2);
    eventually("adopted", adopted).await;
    let after = bed.redis.document();
    assert!(after["generation"].as_u64() >= document["generation"].as_u64());
    assert!(bed.holds_newest());
    bed.all_serve(&replicas).await;
    bed.unharmed();
}

//! What goes well: N replicas cost one refresh, and each has its tokens at once.

use super::*;
use crate::stage::together;
use crate::support::{bearerd, request};

#[tokio::test(flavor = "multi_thread")]
async fn five_replicas_cost_one_refresh_and_all_have_its_token() {
    let bed = Bed::new();
    let replicas = bed.replicas(5).await;
    assert_eq!((bed.idp.rotations(), bed.idp.token_requests()), (1, 1));
    bed.all_serve(&replicas).await;
    // One refuses; the others hear of what that brings without a request of their own.
    bed.api.script([emulator::Step::Status(401)]);
    assert_eq!(replicas[2].get("/nudge").await.status, 200);
    for replica in &replicas {
        eventually("adopted", async || credential(replica).await["generation"] == 2).await;
    }
    bed.all_serve(&replicas).await;
    assert_eq!((bed.idp.rotations(), bed.idp.token_requests()), (2, 2));
    assert!(bed.holds_newest());
    let mut adopted = 0.0;
    for replica in &replicas {
        adopted += replica.metric("bearerd_tokens_adopted_total", &[]).await;
    }
    assert!((adopted - 8.0).abs() < f64::EPSILON, "{adopted}");
    // One that comes later costs nothing.
    let late = bed.replicas(1).await;
    bed.all_serve(&late).await;
    assert_eq!(bed.idp.token_requests(), 2);
    bed.unharmed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_refusals_at_five_replicas_cost_one_refresh() {
    let bed = Bed::new();
    let replicas = bed.replicas(5).await;
    for round in 1..=3 {
        bed.tokens.revoke_all();
        let addresses: Vec<SocketAddr> = replicas.iter().map(|replica| replica.proxy).collect();
        let answers = together(1_000, |index| {
            let address = addresses[index % addresses.len()];
            async move { request(address, "GET", "/", &[], b"").await.status }
        });
        let answers = answers.await;
        assert!(answers.iter().all(|status| *status == 200), "round {round}: {answers:?}");
        assert_eq!(bed.idp.token_requests(), 1 + round);
        // The storm guard's memory of one round is not the next one's.
        tokio::time::sleep(Duration::from_secs(11)).await;
    }
    bed.unharmed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_takes_its_turn_and_the_replicas_go_on_with_what_it_brought() {
    let bed = Bed::new();
    let replicas = bed.replicas(2).await;
    let config = bed.home.path("bearerd.toml").display().to_string();
    let (code, said, error) = bearerd(&["check", "--config", &config, "--fetch"]);
    assert_eq!(code, 0, "{said} {error}");
    assert!(said.contains("fetch c: ok"), "{said}");
    assert!(said.contains("bearerd:c"), "the store is not told: {said}");
    assert_eq!(bed.idp.token_requests(), 2);
    for replica in &replicas {
        eventually("adopted", async || credential(replica).await["generation"] == 2).await;
    }
    bed.all_serve(&replicas).await;
    bed.unharmed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_that_an_operator_puts_in_place_wins_once_for_all() {
    let bed = Bed::new();
    let replicas = bed.replicas(3).await;
    let former = bed.idp.current_refresh_token();
    bed.sign_in();
    bed.api.script([emulator::Step::Status(401)]);
    assert_eq!(replicas[0].get("/nudge").await.status, 200);
    assert_ne!(bed.idp.current_refresh_token(), former);
    assert!(bed.holds_newest());
    for replica in &replicas {
        eventually("adopted", async || credential(replica).await["generation"] == 2).await;
    }
    // Another refresh is the new chain's, whoever makes it.
    for replica in &replicas {
        bed.api.script([emulator::Step::Status(401)]);
        assert_eq!(replica.get("/nudge").await.status, 200);
        assert!(bed.holds_newest());
        tokio::time::sleep(Duration::from_millis(1100)).await;
    }
    bed.all_serve(&replicas).await;
    bed.unharmed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_goes_on_with_the_tokens_that_are_shared() {
    let bed = Bed::new();
    let replica = bed.start();
    replica.ready().await;
    let changed = bed.config().replace("deadline_seconds = 3", "deadline_seconds = 4");
    bed.home.write("bearerd.toml", &changed);
    replica.signal("HUP");
    eventually("reloaded", async || {
        replica.metric("bearerd_config_reloads_total", &["outcome=\"ok\""]).await > 0.0
    })
    .await;
    replica.ready().await;
    bed.all_serve(std::slice::from_ref(&replica)).await;
    assert_eq!(bed.idp.token_requests(), 1);
    assert!(replica.stop().success());
    bed.unharmed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_in_a_file_moves_to_the_store_at_a_reload() {
    let bed = Bed::new();
    let shared = bed.config();
    let file = format!("file:{}", bed.home.path("store.json").display());
    let options = format!("store_options = {{ {} }}\n", bed.options);
    let alone = bed.config_at(&file).replace(&options, "");
    let replica = Daemon::start_with(&bed.home, &alone);
    replica.ready().await;
    bed.api.script([emulator::Step::Status(401)]);
    assert_eq!(replica.get("/nudge").await.status, 200);
    assert_eq!(bed.idp.rotations(), 2);
    bed.home.write("bearerd.toml", &shared);
    replica.signal("HUP");
    bed.api.script([]);
    eventually("moved", async || {
        bed.api.script([emulator::Step::Status(401)]);
        let _ = replica.get("/nudge").await;
        bed.api.clear_script();
        bed.holds_newest()
    })
    .await;
    let other = bed.replicas(1).await;
    bed.all_serve(&other).await;
    bed.unharmed();
}

//! A person's login where several processes share the refresh token: all of them go on with it.

use super::*;
use crate::login::{Browser, Login, signed_in_for};
use crate::stage::Stage;
use crate::support::bearerd;

/// Replicas at one Redis server whose first refresh token is dead.
async fn dead(redis: &Redis) -> (Stage, Vec<Daemon>) {
    let stage = Stage::new();
    let first = stage.home.write("first", &stage.idp.issue_refresh_token("client"));
    stage.idp.revoke_families();
    let config = signed_in_for(&stage, &format!("refresh_token = {{ file = \"{first}\" }}\n"));
    let (before, after) = config.split_once("store = \"").expect("a store");
    let (_, after) = after.split_once('"').expect("its end");
    let config = format!("{before}store = \"{}\"{after}", redis.url());
    let replicas: Vec<Daemon> = (0..3).map(|_| Daemon::start_with(&stage.home, &config)).collect();
    for replica in &replicas {
        eventually("a person is needed", async || {
            let last = replica.status().await["credentials"][0]["last"].clone();
            last["needs_operator"] == true
                && last["remedy"].as_str().is_some_and(|it| it.starts_with("bearerd login"))
        })
        .await;
    }
    (stage, replicas)
}

fn sign_in(stage: &Stage) -> Login {
    Login::start(&stage.home, &["--code"])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_reaches_all_who_share_the_store() {
    let redis = Redis::start();
    let (stage, replicas) = dead(&redis).await;
    let (fetches, attempts) = (stage.idp.token_requests(), stage.idp.audit_failures());
    let login = sign_in(&stage);
    assert_eq!(Browser::default().open(&login.url()).await.status, 200);
    let (code, out, errors) = login.end();
    assert_eq!(code, 0, "{errors}");
    assert!(out.ends_with(": all who share it go on with it.\n"), "{out}");
    for replica in &replicas {
        replica.ready().await;
        assert_eq!(replica.get("/").await.status, 200);
        assert_eq!(replica.metric("bearerd_needs_operator", &[]).await as u64, 0);
    }
    assert_eq!(stage.idp.token_requests(), fetches + 1, "the code, and nothing else");
    assert_eq!(stage.idp.audit_failures(), attempts, "the dead one was sent again");
    // From now on its refresh token is the one that they use, each generation once.
    let before = stage.idp.rotations();
    stage.tokens.revoke_all();
    eventually("a refresh", async || replicas[0].get("/").await.status == 200).await;
    for replica in &replicas {
        eventually("the newest", async || replica.get("/").await.status == 200).await;
    }
    assert_eq!(stage.idp.rotations(), before + 1);
    assert_eq!(stage.idp.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_signs_in_for_a_store_that_cannot_be_reached() {
    let mut redis = Redis::start();
    let (stage, replicas) = dead(&redis).await;
    redis.kill();
    let config = stage.home.path("bearerd.toml").display().to_string();
    let asked = stage.idp.requests().len();
    let (code, out, errors) = bearerd(&["login", "--config", &config, "c", "--code"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(errors.contains("the store is not fit for a login: redis://"), "{errors}");
    assert_eq!(stage.idp.requests().len(), asked, "a person was sent to sign in");
    drop(replicas);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_gets_the_token_that_the_others_have_and_costs_no_refresh() {
    let bed = Bed::new();
    let replicas = bed.replicas(1).await;
    let fetched = bed.idp.token_requests();
    let config = bed.home.path("bearerd.toml").display().to_string();
    for _ in 0..3 {
        let (code, out, errors) = bearerd(&["token", "--config", &config, "c"]);
        assert_eq!((code, Some(out.trim())), (0, bed.tokens.latest().as_deref()), "{errors}");
    }
    assert_eq!(bed.idp.token_requests(), fetched);
    assert_eq!(replicas[0].get("/").await.status, 200);
}

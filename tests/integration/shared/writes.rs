//! A server that can be read and takes no writes, one that lost the last of them, and one whose
//! connection is given up again and again.

use std::time::Duration;

use bearerd::store::shared::Register;
use bearerd::store::shared::redis::{Place, Redis as Store};
use tokio::time::timeout;

use super::*;
use crate::login::{Browser, Login, signed_in_for};
use crate::stage::Stage;
use crate::support::bearerd;

/// What makes a server refuse every write, what mends it, and what is said.
type Refusal = (&'static [&'static str], &'static [&'static str], &'static str);

const REFUSALS: [Refusal; 5] = [
    (
        &["CONFIG", "SET", "maxmemory", "1"],
        &["CONFIG", "SET", "maxmemory", "0"],
        "does not take writes (OOM): its memory is full",
    ),
    (
        &["CONFIG", "SET", "min-replicas-to-write", "1"],
        &["CONFIG", "SET", "min-replicas-to-write", "0"],
        "does not take writes (NOREPLICAS)",
    ),
    (
        &["REPLICAOF", "127.0.0.1", "1"],
        &["REPLICAOF", "NO", "ONE"],
        "does not take writes (READONLY): it is a copy",
    ),
    (
        &["ACL", "SETUSER", "default", "-hset"],
        &["ACL", "SETUSER", "default", "+hset"],
        "refuses us (NOPERM): check the user",
    ),
    (
        &["ACL", "SETUSER", "default", "-eval"],
        &["ACL", "SETUSER", "default", "+eval"],
        "refuses us (NOPERM): check the user",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_writes_is_told_as_such_and_nothing_is_sent() {
    let bed = Bed::new();
    for (breaks, mends, said) in REFUSALS {
        // Another one: to one whose fresh tokens are refused again and again it is a storm.
        let replica = bed.start();
        replica.ready().await;
        let fetched = bed.idp.token_requests();
        assert_eq!(bed.redis.ask(breaks), "+OK\r\n", "{breaks:?}");
        bed.tokens.revoke_all();
        let proxy = replica.proxy;
        let nudge = tokio::spawn(async move {
            crate::support::request(proxy, "GET", "/nudge", &[], b"").await.status
        });
        eventually(said, async || {
            let last = credential(&replica).await["last"].clone();
            last["needs_operator"] == true && last.to_string().contains(said)
        })
        .await;
        assert_eq!(bed.idp.token_requests(), fetched, "{said}: sent without an intent");
        assert_eq!(bed.redis.ask(mends), "+OK\r\n", "{mends:?}");
        nudge.await.unwrap();
        eventually("mended", async || replica.get("/").await.status == 200).await;
        assert_eq!(bed.idp.token_requests(), fetched + 1);
        assert!(bed.holds_newest() && !needs_operator(&replica).await);
        bed.unharmed();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_lagged_behind_is_an_alarm_and_no_old_token_is_sent() {
    let bed = Bed::new();
    let replicas = bed.replicas(3).await;
    let document = bed.redis.held();
    let version = bed.redis.ask(&["HGET", "bearerd:c", "version"]);
    let version = version.split("\r\n").nth(1).unwrap();
    for _ in 0..2 {
        let before = bed.idp.rotations();
        eventually("a refresh", async || {
            bed.api.script([emulator::Step::Status(401)]);
            replicas[0].get("/nudge").await.status == 200 && bed.idp.rotations() > before
        })
        .await;
        bed.api.clear_script();
    }
    eventually("adopted", async || credential(&replicas[2]).await["generation"] == 3).await;
    let fetched = bed.idp.token_requests();
    bed.redis.ask(&["HSET", "bearerd:c", "version", version, "document", &document]);
    // One that never knew what was lost.
    let newcomer = bed.start();
    for replica in replicas.iter().chain([&newcomer]) {
        eventually("alarm", async || needs_operator(replica).await).await;
        assert!(replica.metric("bearerd_needs_operator", &[]).await > 0.0);
        let told = "which refresh token is the newest is not";
        eventually(told, async || replica.logs().contains(told)).await;
    }
    assert_eq!(bed.redis.document()["dead"], "lost");
    // Not even where it is refused.
    bed.tokens.revoke_all();
    for replica in &replicas {
        assert_ne!(replica.get("/refused").await.status, 200);
    }
    assert_eq!(bed.idp.token_requests(), fetched, "an old token was sent");
    assert!(bed.idp.family_alive());
    bed.sign_in();
    for replica in replicas.iter().chain([&newcomer]) {
        eventually("well", async || replica.get("/").await.status == 200).await;
    }
    assert_eq!(bed.idp.token_requests(), fetched + 1);
    assert!(bed.holds_newest());
    bed.unharmed();
}

/// Someone who signs in, at that store.
fn signing_in(stage: &Stage, redis: &Redis, client: &str) {
    let client = format!("client_id = \"{client}\"\nclient_auth = \"none\"\n");
    let config = signed_in_for(stage, &client);
    let (before, after) = config.split_once("store = \"").expect("a store");
    let (_, after) = after.split_once('"').expect("its end");
    let config = format!("{before}store = \"{}\"{after}", redis.url());
    stage.home.write("bearerd.toml", &config);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_signs_in_for_a_store_that_takes_no_writes_or_has_anothers_tokens() {
    let (redis, stage) = (Redis::start(), Stage::new());
    for client in ["one", "another"] {
        stage.idp.add_client(client, None);
    }
    signing_in(&stage, &redis, "one");
    let login = Login::start(&stage.home, &["--code"]);
    assert_eq!(Browser::default().open(&login.url()).await.status, 200);
    assert_eq!(login.end().0, 0);
    let held = redis.document()["record"].clone();
    let config = stage.home.path("bearerd.toml").display().to_string();
    let refused = |said: &str| {
        let asked = stage.idp.requests().len();
        let (code, out, errors) = bearerd(&["login", "--config", &config, "c", "--code"]);
        assert_eq!((code, out.as_str()), (1, ""), "{errors}");
        assert!(errors.contains("the store is not fit for a login: redis://"), "{errors}");
        assert!(errors.contains(said), "{errors}");
        assert_eq!(stage.idp.requests().len(), asked, "a person was sent to sign in");
        assert_eq!(redis.document()["record"], held);
    };
    for (breaks, mends, said) in REFUSALS {
        redis.ask(breaks);
        refused(said);
        redis.ask(mends);
    }
    signing_in(&stage, &redis, "another");
    refused("holds the tokens of another account");
    // Where there is nothing there is nothing to lose.
    redis.ask(&["DEL", "bearerd:c"]);
    let login = Login::start(&stage.home, &["--code"]);
    assert_eq!(Browser::default().open(&login.url()).await.status, 200);
    let (code, _, errors) = login.end();
    assert_eq!(code, 0, "{errors}");
    assert_ne!(redis.document()["record"], held);
}

#[tokio::test]
async fn listening_gets_on_however_often_it_is_given_up() {
    let mut redis = Redis::start();
    let place = |redis: &Redis| Place {
        host: "127.0.0.1".to_owned(),
        port: redis.port,
        database: 0,
        key: "k".to_owned(),
        username: None,
        password: None,
        tls: None,
    };
    let mut store = Store::new(place(&redis));
    let mut other = Store::new(place(&redis));
    hears(&mut store).await;
    // Again after the server was away, without a command of its own.
    redis.kill();
    redis.resume();
    hears(&mut store).await;
    let expected = other.read().await.unwrap().version;
    other.swap(&expected, &b"x".to_vec().into()).await.unwrap();
    hears(&mut store).await;
    assert_eq!(store.read().await.unwrap().content.unwrap().as_slice(), b"x");
}

/// It listens, or has heard something, though whoever waits for that never waits for long.
async fn hears(store: &mut Store) {
    let listening =
        async { while timeout(Duration::from_millis(1), store.changed()).await.is_err() {} };
    timeout(DEADLINE, listening).await.expect("in time");
}

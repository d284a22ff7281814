//! One key of a Secret as a register: who is first writes, who is late is told, and what cannot be
//! known is said to be unknown.

use std::time::Duration;

use bearerd::store::shared::{Register, RegisterError, Swapped};
use bearerd::telemetry::chain;
use emulator::kubernetes::{Verb, etcd_timeout, timeout, too_many_requests};
use emulator::{Reply, Step};
use serde_json::json;

use super::{NAMESPACE, SECRET, SOON, Stage, content, secret, version, write};
use crate::support::eventually;

/// What a person has to mend, in words.
fn unusable(error: &RegisterError) -> String {
    match error {
        RegisterError::Unusable { .. } => error.to_string(),
        RegisterError::Unreachable { .. } => panic!("{}", chain(error)),
    }
}

fn unreachable(error: &RegisterError) -> String {
    match error {
        RegisterError::Unreachable { .. } => chain(error),
        RegisterError::Unusable { .. } => panic!("{error}"),
    }
}

#[tokio::test]
async fn who_is_first_writes_and_everything_else_in_the_secret_stays() {
    let stage = Stage::new();
    let (mut one, mut other) = (stage.store(), stage.store());
    let before = stage.object();
    let first = one.read().await.unwrap();
    assert!(first.content.is_none());
    let seen_by_other = version(&mut other).await;
    assert_eq!(first.version, seen_by_other);

    let second = write(&mut one, "one").await;
    let late = other.swap(&seen_by_other, &content("other")).await.unwrap();
    assert!(matches!(late, Swapped::Conflict), "{late:?}");
    let held = other.read().await.unwrap();
    assert_eq!((held.version, held.content.unwrap().as_slice()), (second, b"one".as_slice()));
    write(&mut other, "two").await;
    write(&mut other, "three").await;
    assert_eq!(stage.held().as_deref(), Some("three"));

    let mut after = stage.object();
    assert_eq!(after["data"]["other"], before["data"]["other"]);
    after["data"].as_object_mut().unwrap().remove("bearerd");
    for field in ["managedFields", "resourceVersion"] {
        after["metadata"][field] = before["metadata"][field].clone();
    }
    assert_eq!(after, before);
    stage.finish();
}

#[tokio::test]
async fn a_change_by_somebody_else_is_a_conflict_and_is_kept() {
    let stage = Stage::new();
    let mut store = stage.store();
    let seen = version(&mut store).await;
    stage.cluster.change_secret(NAMESPACE, SECRET, |secret| {
        secret["metadata"]["labels"]["team"] = "b".into();
        secret["data"]["more"] = "bW9yZQ==".into();
    });
    let swapped = store.swap(&seen, &content("x")).await.unwrap();
    assert!(matches!(swapped, Swapped::Conflict), "{swapped:?}");
    write(&mut store, "x").await;
    let object = stage.object();
    assert_eq!(object["metadata"]["labels"]["team"], "b");
    assert_eq!((&object["data"]["more"], stage.held().as_deref()), (&json!("bW9yZQ=="), Some("x")));
    stage.finish();
}

#[tokio::test]
async fn a_secret_that_was_made_anew_is_not_written_over() {
    let stage = Stage::new();
    let mut store = stage.store();
    let seen = version(&mut store).await;
    assert!(stage.cluster.delete_secret(NAMESPACE, SECRET));
    let gone = store.swap(&seen, &content("x")).await.unwrap_err();
    assert!(unusable(&gone).contains("is not there"), "{gone}");
    stage.cluster.create(secret());
    let swapped = store.swap(&seen, &content("x")).await.unwrap();
    assert!(matches!(swapped, Swapped::Conflict), "{swapped:?}");
    assert_eq!(stage.held(), None);
    stage.finish();
}

#[tokio::test]
async fn a_write_whose_answer_did_not_come_is_unknown_and_reading_tells() {
    let stage = Stage::new();
    let mut store = stage.store();
    let written = [
        Step::LostAnswer,
        Step::Cut,
        Step::instead(etcd_timeout()),
        Step::instead(timeout()),
        Step::instead(Reply::html(502)),
        Step::instead(Reply::bytes(200, "application/json", "{}")),
    ];
    for (index, step) in written.into_iter().enumerate() {
        let (seen, text) = (version(&mut store).await, format!("write {index}"));
        stage.cluster.script(Verb::Update, [step.clone()]);
        let swapped = store.swap(&seen, &content(&text)).await.unwrap();
        assert!(matches!(swapped, Swapped::Unknown(_)), "{step:?}: {swapped:?}");
        assert_eq!(stage.held(), Some(text.clone()));
        assert_eq!(store.read().await.unwrap().content.unwrap().as_slice(), text.as_bytes());
    }
    let not_written =
        [Step::Close, Step::Reset, Step::Garbage, Step::Status(503), Step::from(etcd_timeout())];
    for step in not_written {
        let (seen, before) = (version(&mut store).await, stage.held());
        stage.cluster.script(Verb::Update, [step.clone()]);
        let swapped = store.swap(&seen, &content("lost")).await.unwrap();
        assert!(matches!(swapped, Swapped::Unknown(_)), "{step:?}: {swapped:?}");
        assert_eq!(stage.held(), before);
    }
    stage.finish();
}

#[tokio::test]
async fn what_was_turned_away_was_not_written() {
    let stage = Stage::new();
    let mut store = stage.store();
    write(&mut store, "before").await;
    let seen = version(&mut store).await;
    for reply in [too_many_requests("0"), Reply::status(429), Reply::status(408)] {
        stage.cluster.script(Verb::Update, [Step::from(reply)]);
        let error = store.swap(&seen, &content("x")).await.unwrap_err();
        assert!(unreachable(&error).contains("the API server answered 4"), "{}", chain(&error));
    }
    stage.cluster.set_down(true);
    let error = store.swap(&seen, &content("x")).await.unwrap_err();
    assert!(unreachable(&error).contains("TLS handshake failed"), "{}", chain(&error));
    stage.cluster.set_down(false);
    assert_eq!(stage.held().as_deref(), Some("before"));
    let swapped = store.swap(&seen, &content("x")).await.unwrap();
    assert!(matches!(swapped, Swapped::Done(_)), "{swapped:?}");
    stage.finish();
}

#[tokio::test]
async fn who_is_asked_to_wait_does_not_ask() {
    let stage = Stage::new();
    let mut store = stage.store();
    stage.cluster.script(Verb::Get, [Step::from(too_many_requests("3600"))]);
    assert!(unreachable(&store.read().await.err().unwrap()).contains("429"));
    let error = store.read().await.err().unwrap();
    assert!(unreachable(&error).contains("asked us to wait"), "{}", chain(&error));
    assert_eq!(stage.cluster.calls(Verb::Get), 1);
    // Not for as long as it said, since a new refresh token may be in memory only.
    let store = tokio::sync::Mutex::new(store);
    eventually("another call", async || store.lock().await.read().await.is_ok()).await;
    stage.cluster.script(Verb::Get, [Step::from(too_many_requests("1"))]);
    let mut store = store.into_inner();
    assert!(store.read().await.is_err());
    store.read().await.expect("a short wait is waited out");
    assert_eq!(stage.cluster.calls(Verb::Get), 4);
}

#[tokio::test]
async fn what_a_person_has_to_mend_is_said() {
    let stage = Stage::new();
    let mut store = stage.store();
    stage.cluster.delete_secret(NAMESPACE, SECRET);
    let error = unusable(&store.read().await.err().unwrap());
    let command = "kubectl --namespace shop create secret generic orders-tokens";
    assert_eq!(error, format!("kubernetes:shop/orders-tokens is not there; create it: {command}"));

    for (change, wanted) in [
        (json!({ "immutable": true }), "is immutable"),
        (json!({ "data": { "bearerd": "!" } }), "that bearerd did not write"),
    ] {
        let mut object = secret();
        object.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        if wanted == "is immutable" {
            stage.cluster.create(object);
        } else {
            object["metadata"]["resourceVersion"] = "1".into();
            stage.cluster.script(Verb::Get, [Step::Json(200, object)]);
        }
        let error = unusable(&store.read().await.err().unwrap());
        assert!(error.contains(wanted), "{error}");
    }
    stage.cluster.script(Verb::Get, [Step::Html(200)]);
    let error = unusable(&store.read().await.err().unwrap());
    assert!(error.contains("between us and the API server"), "{error}");

    let others = stage.cluster.issue_token(NAMESPACE, "others");
    stage.cluster.mount(&stage.home.path("account"), NAMESPACE, &others).unwrap();
    let error = unusable(&store.read().await.err().unwrap());
    assert!(error.contains("allow it get, update and watch"), "{error}");
    assert!(!error.contains(&others));
}

#[tokio::test]
async fn the_role_may_allow_reading_alone() {
    let stage = Stage::new();
    let token = stage.cluster.allow(NAMESPACE, "readers", SECRET, &["get"]);
    stage.cluster.mount(&stage.home.path("account"), NAMESPACE, &token).unwrap();
    let mut store = stage.store();
    let seen = version(&mut store).await;
    let error = store.swap(&seen, &content("x")).await.unwrap_err();
    assert!(unusable(&error).contains("is not allowed"), "{error}");
}

#[tokio::test]
async fn the_token_is_read_again_for_each_call_and_once_more_when_it_is_refused() {
    let mut stage = Stage::new();
    let mut store = stage.store();
    write(&mut store, "one").await;
    stage.rotate();
    let seen = write(&mut store, "two").await;

    // Replaced between our look and the server's.
    let account = stage.home.path("account");
    let (old, new) = (stage.token.clone(), stage.cluster.issue_token(NAMESPACE, "orders"));
    stage.cluster.script(Verb::Update, [Step::Delay(Duration::from_millis(300))]);
    let text = content("three");
    let swapping = store.swap(&seen, &text);
    let rotating = async {
        stage.cluster.wait_for_calls(Verb::Update, 3, SOON).await.unwrap();
        stage.cluster.mount(&account, NAMESPACE, &new).unwrap();
    };
    // The token is judged when the request arrives, so it must be refused before that.
    stage.cluster.revoke_token(&old);
    let (swapped, ()) = tokio::join!(swapping, rotating);
    assert!(matches!(swapped, Ok(Swapped::Done(_))), "{swapped:?}");
    assert_eq!(stage.held().as_deref(), Some("three"));

    stage.cluster.revoke_token(&new);
    let error = store.read().await.err().unwrap();
    assert!(unusable(&error).contains("does not know the service account's token"), "{error}");
    stage.finish();
}

#[tokio::test]
async fn a_token_is_shown_to_nobody_but_the_clusters_own_server() {
    let stage = Stage::new();
    let mut store = stage.store();
    let impostor = emulator::Kubernetes::start();
    std::fs::write(stage.home.path("account").join("ca.crt"), impostor.authority()).unwrap();
    let error = store.read().await.err().unwrap();
    assert!(unreachable(&error).contains("TLS handshake failed"), "{}", chain(&error));
    assert_eq!(stage.cluster.requests().len(), 0);
    for missing in ["ca.crt", "token"] {
        stage.cluster.mount(&stage.home.path("account"), NAMESPACE, &stage.token).unwrap();
        std::fs::remove_file(stage.home.path("account").join(missing)).unwrap();
        let error = store.read().await.err().unwrap();
        assert!(unreachable(&error).contains(missing), "{}", chain(&error));
    }
    let mut nowhere = stage.place();
    nowhere.server = None;
    let error = bearerd::store::shared::kubernetes::Kubernetes::new(nowhere).read().await;
    assert!(unusable(&error.err().unwrap()).contains("KUBERNETES_SERVICE_HOST"));
}

#[tokio::test]
async fn answers_are_bounded_in_size_and_time() {
    let stage = Stage::new();
    let mut store = stage.store();
    let seen = version(&mut store).await;
    stage.cluster.script(Verb::Get, [Step::from(Reply::pattern(64 << 20))]);
    assert!(unreachable(&store.read().await.err().unwrap()).contains("larger than 3 MiB"));
    stage.cluster.script(Verb::Get, [Step::Hang]);
    assert!(unreachable(&store.read().await.err().unwrap()).contains("no answer in time"));
    stage.cluster.script(Verb::Update, [Step::Stall]);
    let swapped = store.swap(&seen, &content("x")).await.unwrap();
    assert!(matches!(swapped, Swapped::Unknown(_)), "{swapped:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_at_once_lose_nothing() {
    let stage = Stage::new();
    write(&mut stage.store(), "0").await;
    let adding = |_| {
        let mut store = stage.store();
        async move {
            let mut conflicts = 0;
            for _ in 0..5 {
                loop {
                    let held = store.read().await.unwrap();
                    let text = String::from_utf8(held.content.unwrap().to_vec()).unwrap();
                    let next = (text.parse::<u64>().unwrap() + 1).to_string();
                    match store.swap(&held.version, &content(&next)).await.unwrap() {
                        Swapped::Done(_) => break,
                        Swapped::Conflict => conflicts += 1,
                        Swapped::Unknown(error) => panic!("{}", chain(&error)),
                    }
                }
            }
            conflicts
        }
    };
    let conflicts = crate::stage::together(8, adding).await;
    assert_eq!(stage.held().as_deref(), Some("40"));
    assert!(conflicts.iter().sum::<u32>() > 0, "they never met");
    stage.finish();
}

//! What others write is heard of, over cuts and expiries, and what we write ourselves is no news.

use std::time::Duration;

use bearerd::store::shared::Register;
use emulator::kubernetes::{Verb, too_many_requests};
use emulator::{Reply, Step};

use super::{NAMESPACE, SECRET, SOON, Stage, Store, write};

/// A store that watches, and knows how it is now.
async fn watching(stage: &Stage) -> Store {
    let mut store = stage.store();
    // That it has begun is news of its own: nobody knows what was before.
    hears(&mut store).await;
    store.read().await.expect("the Secret");
    store
}

async fn hears(store: &mut Store) {
    tokio::time::timeout(SOON, store.changed()).await.expect("news in time");
}

#[tokio::test]
async fn what_others_write_is_news_and_what_is_known_is_none() {
    let stage = Stage::new();
    let mut store = watching(&stage).await;
    write(&mut store, "mine").await;
    write(&mut stage.store(), "theirs").await;
    hears(&mut store).await;
    assert_eq!(store.read().await.unwrap().content.unwrap().as_slice(), b"theirs");
    // It may be told late what it has read meanwhile, but not for ever.
    write(&mut stage.store(), "again").await;
    store.read().await.unwrap();
    stage.cluster.bookmark();
    let mut told = 0;
    while tokio::time::timeout(Duration::from_millis(300), store.changed()).await.is_ok() {
        told += 1;
        assert!(told < 5, "there were no more changes than these");
    }
    assert_eq!((stage.cluster.calls(Verb::Watch), stage.cluster.calls(Verb::List)), (1, 0));
    stage.finish();
}

#[tokio::test]
async fn a_watch_that_is_cut_or_ends_goes_on_where_it_was() {
    let stage = Stage::new();
    let mut store = watching(&stage).await;
    write(&mut stage.store(), "first").await;
    hears(&mut store).await;
    store.read().await.unwrap();
    for (index, interrupt) in
        [emulator::Kubernetes::cut_watches, emulator::Kubernetes::end_watches].iter().enumerate()
    {
        interrupt(&stage.cluster);
        // Written while nobody watches.
        write(&mut stage.store(), &format!("meanwhile {index}")).await;
        hears(&mut store).await;
        store.read().await.unwrap();
    }
    let watches: Vec<String> = stage.cluster.requests().iter().map(|r| r.target.clone()).collect();
    let watches: Vec<&String> = watches.iter().filter(|target| target.contains("watch")).collect();
    assert!(!watches[0].contains("resourceVersion"), "{watches:?}");
    assert!(watches[1..].iter().all(|target| target.contains("resourceVersion=")), "{watches:?}");
    stage.finish();
}

#[tokio::test]
async fn an_expired_version_begins_anew_with_how_it_is_now() {
    let stage = Stage::new();
    let mut store = watching(&stage).await;
    write(&mut stage.store(), "first").await;
    hears(&mut store).await;
    store.read().await.unwrap();

    // Expired while it was cut: 410 at the next beginning.
    stage.cluster.cut_watches();
    write(&mut stage.store(), "forgotten").await;
    stage.cluster.compact();
    hears(&mut store).await;
    assert_eq!(store.read().await.unwrap().content.unwrap().as_slice(), b"forgotten");

    // Expired while it was open.
    stage.cluster.expire_watches();
    write(&mut stage.store(), "after").await;
    hears(&mut store).await;
    assert_eq!(store.read().await.unwrap().content.unwrap().as_slice(), b"after");

    // As a status, in another way of saying it.
    let gone = serde_json::json!({ "kind": "Status", "apiVersion": "v1", "metadata": {},
        "status": "Failure", "reason": "Expired", "code": 410, "message": "too old" });
    stage.cluster.script(Verb::Watch, [Step::Json(410, gone)]);
    stage.cluster.cut_watches();
    write(&mut stage.store(), "at last").await;
    hears(&mut store).await;
    let last = stage.cluster.requests();
    let last = last.iter().rfind(|request| request.target.contains("watch")).unwrap();
    assert!(!last.target.contains("resourceVersion"), "{}", last.target);
    stage.finish();
}

#[tokio::test]
async fn a_watch_is_begun_again_until_it_is_possible() {
    let stage = Stage::new();
    let mut store = watching(&stage).await;
    let in_the_way = [
        [Step::from(too_many_requests("1")), Step::Status(500)],
        [Step::Close, Step::from(Reply::bytes(200, "application/json", "not an event\n"))],
    ];
    // The pauses grow from one failure to the next.
    for (round, steps) in in_the_way.into_iter().enumerate() {
        stage.cluster.script(Verb::Watch, steps);
        stage.cluster.cut_watches();
        write(&mut stage.store(), &format!("theirs, {round}")).await;
        hears(&mut store).await;
        assert_eq!(stage.cluster.steps_left(Verb::Watch), 0);
    }
    stage.finish();
}

#[tokio::test]
async fn a_secret_that_goes_away_is_news() {
    let stage = Stage::new();
    let mut store = watching(&stage).await;
    stage.cluster.delete_secret(NAMESPACE, SECRET);
    hears(&mut store).await;
    assert!(store.read().await.is_err());
    stage.cluster.create(super::secret());
    hears(&mut store).await;
    assert!(store.read().await.unwrap().content.is_none());
}

#[tokio::test]
async fn a_call_that_is_given_up_costs_nothing() {
    let stage = Stage::new();
    let mut store = watching(&stage).await;
    for round in 0..50 {
        let given_up = Duration::from_micros(round * 40);
        let _heard = tokio::time::timeout(given_up, store.changed()).await;
        let _read = tokio::time::timeout(given_up, store.read()).await;
    }
    write(&mut stage.store(), "theirs").await;
    hears(&mut store).await;
    assert_eq!(store.read().await.unwrap().content.unwrap().as_slice(), b"theirs");
    assert_eq!(stage.cluster.calls(Verb::Watch), 1);
}

#[tokio::test]
async fn listening_gets_on_however_often_it_is_given_up() {
    let stage = Stage::new();
    let mut store = stage.store();
    store.read().await.unwrap();
    let listening = async {
        loop {
            let given_up = Duration::from_millis(1);
            if tokio::time::timeout(given_up, store.changed()).await.is_ok() {
                return;
            }
        }
    };
    tokio::time::timeout(SOON, listening).await.expect("a watch in time");
    assert_eq!(stage.cluster.calls(Verb::Watch), 1);
}

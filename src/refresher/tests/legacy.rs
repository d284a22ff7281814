//! What a refresher goes on with after a reload.

use super::*;
use crate::secret::SecretRef;
use crate::store::{Identity, Store, file::FileStore};

fn identity(account: &str, request: &str) -> Identity {
    Identity { account: account.to_owned(), request: request.to_owned() }
}

fn first(text: &str) -> Rotation {
    let bootstrap = SecretRef::Value(Secret::new(text.to_owned()));
    Rotation::new(Some(bootstrap), None).of(identity("a", "r"))
}

fn setting(rotation: Rotation) -> Setting {
    Setting { rotation, traits: rotating(), ..Setting::default() }
}

/// A successor with the same refresh token, to see when it sends it, and whether in doubt.
async fn sendings(bench: &Bench, until: f64) -> Vec<(f64, bool)> {
    sleep(seconds(until)).await;
    let times = bench.times();
    let doubts = bench.script().fetches.iter().map(|fetch| fetch.in_doubt).collect::<Vec<_>>();
    times.into_iter().map(f64::round).zip(doubts).collect()
}

/// A token for 100 s, and at 75 s a refresh whose answer is lost; 76 s have gone by.
async fn in_doubt() -> Legacy {
    let answers = vec![Answer::Token(seconds(100.0)), lost()];
    let bench = Bench::run(Setting { answers, ..setting(first("first")) });
    sleep(seconds(76.0)).await;
    assert_eq!(bench.fetches(), 2);
    bench.give_way().await
}

#[tokio::test(start_paused = true)]
async fn a_doubt_and_the_token_at_hand_outlive_a_reload() {
    // Even if other tokens are wanted now: nothing else can be had without risk.
    for request in ["r", "another"] {
        let rotation = first("first").of(identity("a", request));
        let bench = Bench::run_after(setting(rotation), Some(in_doubt().await));
        sleep(SECOND).await;
        assert!(bench.bearer().is_some(), "{request}");
        bench.credential.nudge(1); // not by a 401 either
        // At 95 s of the token's life.
        assert_eq!(sendings(&bench, 30.0).await, [(19.0, true)], "{request}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_doubt_outlives_a_second_reload_and_one_that_finds_its_store_taken() {
    let bench = Bench::run_after(setting(first("first")), Some(in_doubt().await));
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.json");
    let mut holder = Rotation::new(None, Some(Store::File(FileStore::new(path.clone()))));
    holder.open().unwrap();
    let bootstrap = SecretRef::Value(Secret::new("first".to_owned()));
    let stored = Rotation::new(Some(bootstrap), Some(Store::File(FileStore::new(path))));
    let stored = stored.of(identity("a", "r"));
    let bench = Bench::run_after(setting(stored), Some(bench.give_way().await));
    sleep(SECOND).await;
    assert_eq!(bench.fetches(), 0);
    let bench = Bench::run_after(setting(first("first")), Some(bench.give_way().await));
    assert_eq!(sendings(&bench, 30.0).await, [(18.0, true)]);
}

#[tokio::test(start_paused = true)]
async fn a_pause_after_two_lost_answers_outlives_a_reload() {
    let bench = Bench::run(Setting { always: lost, ..setting(first("first")) });
    sleep(seconds(10.0)).await;
    assert_eq!(bench.fetches(), 2);
    let successor = Setting { always: lost, ..setting(first("first")) };
    let bench = Bench::run_after(successor, Some(bench.give_way().await));
    sleep(seconds(200.0)).await;
    assert!(matches!(bench.activity(), Activity::Refused(_)));
    assert_eq!(bench.fetches(), 0);
}

#[tokio::test(start_paused = true)]
async fn another_way_in_that_a_reload_brings_is_taken_at_once_if_no_token_is_at_hand() {
    for (lives, expected) in [(100.0, vec![(19.0, true)]), (0.0, vec![(0.0, true)])] {
        let mut legacy = in_doubt().await;
        if lives == 0.0 {
            legacy.past.token = None;
        }
        let traits = Traits { fallback: true, ..rotating() };
        let successor = Setting { traits, ..setting(first("first")) };
        let bench = Bench::run_after(successor, Some(legacy));
        assert_eq!(sendings(&bench, 30.0).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn another_refresh_token_that_a_reload_brings_is_sent_at_once_and_without_doubt() {
    let bench = Bench::run_after(
        setting(first("second").of(identity("a", "another"))),
        Some(in_doubt().await),
    );
    assert_eq!(sendings(&bench, 30.0).await, [(0.0, false)]);
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_to_another_account() {
    let rotated = Answer::Rotated(seconds(100.0), "second");
    let bench = Bench::run(Setting { answers: vec![rotated], ..setting(first("first")) });
    sleep(SECOND).await;
    let other = Rotation::new(None, None).of(identity("b", "r"));
    let bench = Bench::run_after(setting(other), Some(bench.give_way().await));
    sleep(SECOND).await;
    let fetch = bench.script().fetches[0].clone();
    assert_eq!((fetch.refresh_token, bench.generation()), (None, 1));
}

#[tokio::test(start_paused = true)]
async fn a_token_at_hand_goes_on_unless_another_is_asked_for() {
    for (request, fetches) in [("r", 0), ("another", 1)] {
        let bench = Bench::run(setting(first("first")));
        sleep(SECOND).await;
        let rotation = first("first").of(identity("a", request));
        let bench = Bench::run_after(setting(rotation), Some(bench.give_way().await));
        sleep(SECOND).await;
        assert_eq!((bench.fetches(), bench.generation()), (fetches, 1), "{request}");
        assert!(bench.bearer().is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_identity_provider_asked_for_holds_after_a_reload_and_other_waits_end() {
    let busy = |after: Option<f64>| {
        let retry_after = after.map(seconds);
        Answer::Fails(FetchError {
            retry_after,
            ..FetchError::new(Class::Transient, Reason::RateLimited)
        })
    };
    for (after, expected) in [(Some(60.0), (59.0, false)), (None, (0.0, false))] {
        let failures = (0..4).map(|_| busy(after)).collect();
        let bench = Bench::run(Setting { answers: failures, ..setting(first("first")) });
        sleep(SECOND).await;
        let bench = Bench::run_after(setting(first("first")), Some(bench.give_way().await));
        assert_eq!(sendings(&bench, 70.0).await, [expected]);
    }
}

#[tokio::test(start_paused = true)]
async fn failures_and_refused_tokens_in_a_row_are_counted_on_after_a_reload() {
    let bench = Bench::run(Setting { always: outage, ..setting(first("first")) });
    sleep(seconds(40.0)).await;
    let successor = Setting { always: outage, ..setting(first("first")) };
    let bench = Bench::run_after(successor, Some(bench.give_way().await));
    assert_eq!(sendings(&bench, 29.0).await.len(), 1, "not from one second on");
    // Refreshes by 401s after 0, 1, 3 and 7 s; the next one may come after 15 s.
    let bench = Bench::run(setting(first("first")));
    let refuse_for = async |bench: &Bench, time: f64| {
        let end = Moment::now().mono + seconds(time);
        while Moment::now().mono < end {
            bench.credential.nudge(bench.generation());
            sleep(seconds(0.05)).await;
        }
    };
    refuse_for(&bench, 8.0).await;
    assert_eq!(bench.fetches(), 5, "{:?}", bench.times());
    let bench = Bench::run_after(setting(first("first")), Some(bench.give_way().await));
    refuse_for(&bench, 6.0).await;
    assert_eq!(bench.fetches(), 0, "the token at hand goes on");
    refuse_for(&bench, 3.0).await;
    assert_eq!(bench.fetches(), 1);
}

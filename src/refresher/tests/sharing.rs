//! Refreshers that share a refresh token through a register.

use std::sync::atomic::Ordering::Relaxed;

use super::*;
use crate::secret::SecretRef;
use crate::store::Identity;
use crate::store::shared::memory::Memory as Register;
use crate::store::shared::{Agreement, DEADLINE, Party, Place, Settings};

/// That is configured with the refresh token `first`.
fn rotation() -> Rotation {
    let bootstrap = SecretRef::Value(Secret::new("first".to_owned()));
    let identity = Identity { account: "a".to_owned(), request: "r".to_owned() };
    Rotation::new(Some(bootstrap), None).of(identity)
}

/// A replica at `register`.
pub(super) fn setting(register: &Register, traits: Traits) -> Setting {
    let Traits { rotation_grace: grace, rotation_expected: rotates, fallback, .. } = traits;
    let party = Party { grace, rotates, fallback, account: Some("a".to_owned()) };
    let place = Place::Memory(register.clone());
    let settings = Settings { place, encryption_key: None, deadline: DEADLINE };
    Setting {
        rotation: rotation().shared(),
        sharing: Some(Sharing::by(Agreement::new(&settings, party))),
        traits,
        always: || Answer::Rotated(seconds(100.0), "next"),
        ..Setting::default()
    }
}

fn replicas(register: &Register, count: usize) -> Vec<Bench> {
    (0..count).map(|_| Bench::run(setting(register, rotating()))).collect()
}

fn fetches(benches: &[Bench]) -> usize {
    benches.iter().map(Bench::fetches).sum()
}

async fn wait_seconds(seconds_: f64) {
    tokio::time::sleep(seconds(seconds_)).await;
}

#[tokio::test(start_paused = true)]
async fn one_fetches_and_all_have_its_token() {
    let register = Register::default();
    let benches = replicas(&register, 4);
    wait_seconds(5.0).await;
    assert_eq!(fetches(&benches), 1);
    assert!(benches.iter().all(|bench| bench.bearer().is_some() && bench.generation() == 1));
    for bench in &benches {
        bench.credential.nudge(1);
    }
    wait_seconds(1.0).await;
    assert_eq!(fetches(&benches), 2);
    assert!(benches.iter().all(|bench| bench.generation() == 2));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_keeps_everybody_from_fetching_and_nobody_from_serving() {
    let register = Register::default();
    let benches = replicas(&register, 3);
    wait_seconds(5.0).await;
    register.down.store(true, Relaxed);
    wait_seconds(80.0).await;
    assert_eq!(fetches(&benches), 1);
    assert!(benches.iter().all(|bench| bench.bearer().is_some()));
    assert!(benches.iter().any(|bench| matches!(bench.activity(), Activity::BackingOff(_))));
    wait_seconds(30.0).await;
    assert!(benches.iter().all(|bench| bench.bearer().is_none()), "an expired token");
    register.down.store(false, Relaxed);
    wait_seconds(5.0).await;
    assert_eq!(fetches(&benches), 2);
    assert!(benches.iter().all(|bench| bench.bearer().is_some()));
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_answer_is_lost_is_read_back_and_not_made_twice() {
    let register = Register::default();
    register.deaf.store(true, Relaxed);
    let benches = replicas(&register, 3);
    wait_seconds(60.0).await;
    assert_eq!(fetches(&benches), 1);
    assert!(benches.iter().all(|bench| bench.generation() == 1));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_asked_for_once_and_told_to_all() {
    let register = Register::default();
    let benches = replicas(&register, 3);
    wait_seconds(5.0).await;
    for bench in &benches {
        bench.script().always = Box::new(refusal);
    }
    wait_seconds(1000.0).await;
    assert_eq!(fetches(&benches), 2);
    for bench in &benches {
        assert!(bench.credential.outlook().last.unwrap().needs_operator);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_over_for_all_and_all_wait_although_it_is_the_other_way_in_that_failed()
{
    let register = Register::default();
    let traits = Traits { fallback: true, ..rotating() };
    let benches: Vec<_> = (0..3).map(|_| Bench::run(setting(&register, traits.clone()))).collect();
    wait_seconds(5.0).await;
    let gave_up = || {
        Answer::Fails(FetchError {
            gave_up: true,
            ..FetchError::new(Class::Terminal, Reason::BadClient)
        })
    };
    for bench in &benches {
        bench.script().always = Box::new(gave_up);
    }
    wait_seconds(150.0).await;
    assert_eq!(fetches(&benches), 2, "a pause is everybody's");
    wait_seconds(1000.0).await;
    let mut sent: Vec<_> =
        benches.iter().flat_map(|bench| bench.script().fetches.clone()).collect();
    sent.sort_by_key(|fetch| fetch.at);
    assert!(sent.len() >= 4, "{sent:?}");
    let sent: Vec<_> = sent[..4].iter().map(|fetch| fetch.refresh_token.as_deref()).collect();
    assert_eq!(sent, [Some("first"), Some("next"), None, None]);
}

#[tokio::test(start_paused = true)]
async fn what_one_must_wait_for_all_wait_for() {
    let register = Register::default();
    let benches = replicas(&register, 4);
    wait_seconds(5.0).await;
    for bench in &benches {
        bench.script().always = Box::new(outage);
    }
    wait_seconds(600.0).await;
    // One alone makes about so many.
    assert!((5..40).contains(&fetches(&benches)), "{}", fetches(&benches));
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_in_doubt_for_all_until_the_token_is_nearly_used_up() {
    let register = Register::default();
    let benches = replicas(&register, 3);
    wait_seconds(5.0).await;
    for bench in &benches {
        bench.script().answers = vec![lost()].into();
    }
    wait_seconds(85.0).await;
    assert_eq!(fetches(&benches), 2, "sent again while the token was good");
    assert!(benches.iter().all(|bench| bench.bearer().is_some()));
    for bench in &benches {
        bench.script().answers.clear();
    }
    wait_seconds(15.0).await;
    assert_eq!(fetches(&benches), 3);
    assert!(benches.iter().all(|bench| bench.bearer().is_some()));
    let script: Vec<_> = benches.iter().flat_map(|b| b.script().fetches.clone()).collect();
    assert_eq!(script.iter().filter(|fetch| fetch.in_doubt).count(), 1);
}

/// What all of them say last, once they say it.
fn all_say(benches: &[Bench], what: &str, needs_operator: bool) {
    for bench in benches {
        let last = bench.credential.outlook().last.unwrap();
        assert_eq!(last.needs_operator, needs_operator);
        assert!(last.detail.as_ref().is_some_and(|detail| detail.contains(what)), "{last:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_loses_every_write_is_told_as_such_and_nothing_is_sent() {
    let register = Register::default();
    register.void.store(true, Relaxed);
    let benches = replicas(&register, 2);
    wait_seconds(10.0).await;
    assert_eq!(fetches(&benches), 0);
    all_say(&benches, "store: memory cannot be reached: timed out", false);
    register.void.store(false, Relaxed);
    wait_seconds(5.0).await;
    assert_eq!(fetches(&benches), 1);
    assert!(benches.iter().all(|bench| bench.bearer().is_some()));
}

#[tokio::test(start_paused = true)]
async fn a_register_that_went_back_is_an_alarm_and_no_old_token_is_sent() {
    for lags in [false, true] {
        let register = Register::default();
        let mut benches = replicas(&register, 3);
        wait_seconds(5.0).await;
        let copy = register.held().filter(|_| lags);
        benches[0].credential.nudge(1);
        wait_seconds(5.0).await;
        assert_eq!(fetches(&benches), 2);
        register.go_back(copy);
        // One that never knew what was there.
        benches.extend(replicas(&register, 1));
        wait_seconds(200.0).await;
        assert_eq!(fetches(&benches), 2, "an old token was sent");
        all_say(&benches, "went back", true);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_file_kept_is_in_a_new_store_before_anybody_sends_what_it_began_with() {
    let register = Register::default();
    let always = || Answer::Rotated(seconds(100.0), "next");
    let alone = Setting { rotation: rotation(), traits: rotating(), always, ..Setting::default() };
    let former = Bench::run(alone);
    wait_seconds(1.0).await;
    let legacy = former.give_way().await;
    // A newcomer that is faster, and has nothing but that.
    let newcomer = Bench::run(setting(&register, rotating()));
    wait_seconds(0.5).await;
    let mover = Bench::run_after(setting(&register, rotating()), Some(legacy));
    wait_seconds(1.0).await;
    assert!(newcomer.bearer().is_some(), "the token at hand moves too");
    wait_seconds(300.0).await;
    let sent = [&newcomer, &mover].map(|bench| bench.script().fetches.clone()).concat();
    assert!(sent.len() > 2 && mover.bearer().is_some() && newcomer.bearer().is_some());
    for fetch in sent {
        assert_eq!(fetch.refresh_token.as_deref(), Some("next"), "{fetch:?}");
    }
}

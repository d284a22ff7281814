//! Stopping, and a rotating refresh token whose answer was lost.

use super::*;
use crate::secret::SecretRef;
use crate::store::{Store, file::FileStore};

fn soon() -> Ending {
    Ending::Process(Moment::now().plus(seconds(30.0)))
}

fn first(text: &str) -> Rotation {
    Rotation::new(Some(SecretRef::Value(Secret::new(text.to_owned()))), None)
}

#[tokio::test(start_paused = true)]
async fn shutdown_during_a_fetch_is_prompt() {
    let bench = Bench::run(Setting { takes: seconds(10.0), ..Setting::default() });
    sleep(SECOND).await;
    assert_eq!(bench.fetches(), 1);
    let asked = Moment::now().mono;
    bench.stop.send_replace(Some(soon()));
    bench.task.await.unwrap();
    assert!(asked.elapsed() < seconds(0.1), "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn shutdown_while_asleep_or_in_a_pause_is_prompt() {
    for answer in [Answer::Token(seconds(3600.0)), refusal(), outage()] {
        let bench = Bench::run(Setting { answers: vec![answer], ..Setting::default() });
        sleep(seconds(0.5)).await;
        let asked = Moment::now().mono;
        bench.stop.send_replace(Some(soon()));
        bench.task.await.unwrap();
        assert!(asked.elapsed() < seconds(0.1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_rotating_fetch_is_finished_at_shutdown() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.json");
    let store = Some(Store::File(FileStore::new(path.clone())));
    let bootstrap = SecretRef::Value(Secret::new("first".to_owned()));
    let bench = Bench::run(Setting {
        answers: vec![Answer::Rotated(seconds(100.0), "second")],
        takes: seconds(5.0),
        traits: rotating(),
        rotation: Rotation::new(Some(bootstrap), store),
        ..Setting::default()
    });
    sleep(SECOND).await;
    bench.stop.send_replace(Some(soon()));
    bench.task.await.unwrap();
    assert_eq!(bench.began.elapsed().as_secs(), 5);
    assert!(std::fs::read_to_string(path).unwrap().contains("\"second\""));
}

#[tokio::test(start_paused = true)]
async fn the_token_is_revoked_at_the_end_only_if_asked_for_and_held() {
    let token = || Answer::Token(seconds(100.0));
    let reload = Ending::Removed(Moment::now().plus(seconds(30.0)));
    for (wanted, answer, ending, revoked) in [
        (true, token(), soon(), 1),
        (false, token(), soon(), 0),
        (true, refusal(), soon(), 0),
        (true, token(), reload, 0),
        (true, token(), Ending::Succeeded, 0),
    ] {
        let answers = vec![answer];
        let setting = Setting { answers, revoke_on_shutdown: wanted, ..Setting::default() };
        let bench = Bench::run(setting);
        sleep(SECOND).await;
        bench.stop.send_replace(Some(ending));
        let script = Arc::clone(&bench.script);
        bench.task.await.unwrap();
        assert_eq!(script.lock().unwrap().revoked, revoked);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_followed_up_when_the_token_is_nearly_spent() {
    let bench = Bench::run(Setting {
        answers: vec![Answer::Token(seconds(100.0)), lost()],
        traits: rotating(),
        rotation: first("first"),
        ..Setting::default()
    });
    sleep(seconds(80.0)).await;
    bench.credential.nudge(1); // not by a 401 either
    sleep(seconds(14.0)).await;
    assert_eq!(bench.fetches(), 2);
    assert!(bench.bearer().is_some());
    sleep(seconds(4.0)).await;
    let times: Vec<f64> = bench.times().iter().map(|at| at.round()).collect();
    assert!(times == [0.0, 75.0, 95.0], "{times:?}");
    let fetches = bench.script().fetches.clone();
    assert_eq!(fetches.iter().map(|f| f.in_doubt).collect::<Vec<_>>(), [false, false, true]);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_in_doubt_is_sent_once_more_and_then_no_more() {
    let bench = Bench::run(Setting {
        always: lost,
        traits: rotating(),
        rotation: first("first"),
        ..Setting::default()
    });
    sleep(seconds(200.0)).await;
    assert_eq!(bench.fetches(), 2, "{:?}", bench.times());
    assert!(matches!(bench.activity(), Activity::Refused(_)));
}

#[tokio::test(start_paused = true)]
async fn inside_a_known_grace_window_it_is_sent_again_soon() {
    let grace = Some(seconds(30.0));
    let bench = Bench::run(Setting {
        answers: vec![Answer::Token(seconds(100.0)), lost()],
        traits: Traits { rotation_grace: grace, ..rotating() },
        rotation: first("first"),
        ..Setting::default()
    });
    sleep(seconds(78.0)).await;
    assert_eq!((bench.fetches(), bench.generation()), (3, 2), "{:?}", bench.times());
}

#[tokio::test(start_paused = true)]
async fn inside_a_grace_window_it_is_sent_again_once_and_then_it_is_in_doubt() {
    for (fallback, doubts) in
        [(false, vec![false, false, false, true]), (true, vec![false, false, false, true, true])]
    {
        let grace = Some(seconds(30.0));
        let mut answers = vec![Answer::Token(seconds(100.0)), lost(), lost(), lost()];
        answers.extend(fallback.then(|| Answer::Token(seconds(1000.0))));
        let bench = Bench::run(Setting {
            answers,
            traits: Traits { rotation_grace: grace, fallback, ..rotating() },
            rotation: first("first"),
            ..Setting::default()
        });
        sleep(seconds(90.0)).await;
        assert_eq!(bench.fetches(), 3, "{:?}", bench.times());
        sleep(seconds(60.0)).await;
        let fetches = bench.script().fetches.clone();
        assert_eq!(fetches.iter().map(|f| f.in_doubt).collect::<Vec<_>>(), doubts);
        assert!(bench.times()[3] > 94.0, "nearly spent first: {:?}", bench.times());
    }
}

#[tokio::test(start_paused = true)]
async fn a_grace_window_that_passed_unused_leaves_it_in_doubt() {
    let mut late = FetchError::new(Class::Transient, Reason::Network);
    late.retry_after = Some(seconds(40.0));
    let bench = Bench::run(Setting {
        answers: vec![lost(), Answer::Fails(late)],
        traits: Traits { rotation_grace: Some(seconds(30.0)), ..rotating() },
        rotation: first("first"),
        ..Setting::default()
    });
    sleep(seconds(60.0)).await;
    let fetches = bench.script().fetches.clone();
    assert_eq!(fetches.iter().map(|f| f.in_doubt).collect::<Vec<_>>(), [false, false, true]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_lags_behind_is_tried_every_two_seconds() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state/store.json");
    std::fs::create_dir(home.path().join("state")).unwrap();
    let bootstrap = SecretRef::Value(Secret::new("first".to_owned()));
    let bench = Bench::run(Setting {
        answers: vec![Answer::Rotated(seconds(3600.0), "second")],
        takes: SECOND,
        traits: rotating(),
        rotation: Rotation::new(Some(bootstrap), Some(Store::File(FileStore::new(path.clone())))),
        ..Setting::default()
    });
    sleep(SECOND / 2).await;
    std::fs::rename(home.path().join("state"), home.path().join("away")).unwrap();
    sleep(SECOND).await;
    std::fs::rename(home.path().join("away"), home.path().join("state")).unwrap();
    assert!(!path.exists());
    sleep(SECOND * 2).await;
    assert!(path.exists(), "{:?}", bench.began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_that_came_with_an_unusable_answer_is_the_one_to_send() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.json");
    let bootstrap = SecretRef::Value(Secret::new("first".to_owned()));
    let rotated = Some(Box::new(Secret::new("second".to_owned())));
    let unusable = FetchError { rotated, ..FetchError::new(Class::Transient, Reason::Unusable) };
    let bench = Bench::run(Setting {
        answers: vec![Answer::Fails(unusable)],
        traits: rotating(),
        rotation: Rotation::new(Some(bootstrap), Some(Store::File(FileStore::new(path.clone())))),
        ..Setting::default()
    });
    sleep(seconds(0.5)).await;
    assert!(std::fs::read_to_string(path).unwrap().contains("\"second\""), "stored at once");
    sleep(seconds(2.0)).await;
    let sent: Vec<_> = bench.script().fetches.iter().map(|f| f.refresh_token.clone()).collect();
    assert_eq!(sent, [Some("first".to_owned()), Some("second".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn another_refresh_token_than_the_lost_one_is_not_in_doubt() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("refresh-token");
    std::fs::write(&path, "first").unwrap();
    let bench = Bench::run(Setting {
        answers: vec![lost(), lost()],
        traits: rotating(),
        rotation: Rotation::new(Some(SecretRef::File(path.clone())), None),
        ..Setting::default()
    });
    sleep(seconds(10.0)).await;
    assert_eq!(bench.fetches(), 2);
    std::fs::write(&path, "second").unwrap();
    bench.replace_inputs();
    sleep(LOOK_EVERY + SECOND).await;
    let last = bench.script().fetches.last().unwrap().clone();
    assert_eq!((last.refresh_token.as_deref(), last.in_doubt), (Some("second"), false));
}

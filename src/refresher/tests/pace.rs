//! How often a token is fetched when nothing goes wrong.

use super::*;

fn life(life: f64) -> Vec<Answer> {
    (0..1000).map(|_| Answer::Token(seconds(life))).collect()
}

#[tokio::test(start_paused = true)]
async fn ten_second_lifetime_does_not_spin() {
    let bench = Bench::run(Setting { answers: life(10.0), ..Setting::default() });
    sleep(SECOND).await;
    for _ in 0..990 {
        assert!(bench.bearer().is_some(), "never without a token");
        sleep(seconds(0.1)).await;
    }
    let times = bench.times();
    assert_eq!(times.len(), 14, "{times:?}");
    for pair in times.windows(2) {
        assert!((7.0..8.1).contains(&(pair[1] - pair[0])), "{times:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_second_lifetime_does_not_spin() {
    let bench = Bench::run(Setting { answers: life(1.0), traits: watched(), ..Setting::default() });
    sleep(seconds(60.5)).await;
    assert!((58..=61).contains(&bench.fetches()), "{:?}", bench.times());
    assert!(bench.looks() < 61 * 8, "{} rounds", bench.looks());
}

#[tokio::test(start_paused = true)]
async fn a_lifetime_below_the_interval_does_not_spin_however_many_requests_wait() {
    let bench = Bench::run(Setting { answers: life(0.05), ..Setting::default() });
    let mut served = 0;
    while bench.began.elapsed() < seconds(60.0) {
        served += u32::from(bench.waits(seconds(5.0)).await.is_ok());
        sleep(seconds(0.06)).await;
    }
    let times = bench.times();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 1.0), "{times:?}");
    assert!(served >= 50, "requests wait, and are served: {served}");
}

#[tokio::test(start_paused = true)]
async fn a_token_of_24_hours_is_fetched_once_a_day_and_the_loop_sleeps_in_between() {
    let bench =
        Bench::run(Setting { answers: life(86_400.0), traits: watched(), ..Setting::default() });
    sleep(Duration::from_hours(48)).await;
    // At 0 h, 18 h and 36 h.
    assert_eq!(bench.fetches(), 3, "{:?}", bench.times());
    let most = 2 * 86_400 / usize::try_from(LOOK_EVERY.as_secs()).unwrap() + 20;
    assert!(bench.looks() <= most, "{} rounds", bench.looks());
}

#[tokio::test(start_paused = true)]
async fn slow_fetches_start_early_enough() {
    let bench =
        Bench::run(Setting { answers: life(100.0), takes: seconds(20.0), ..Setting::default() });
    sleep(seconds(21.0)).await;
    for _ in 0..400 {
        assert!(bench.bearer().is_some(), "at {:?}", bench.began.elapsed());
        sleep(SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_token_answered_early_does_not_spin() {
    let until = Moment::now().mono + seconds(100.0);
    let answers = (0..1000).map(|_| Answer::Same(until)).collect();
    let bench = Bench::run(Setting { answers, traits: watched(), ..Setting::default() });
    sleep(seconds(99.0)).await;
    assert!((2..=6).contains(&bench.fetches()), "{:?}", bench.times());
    assert!(bench.bearer().is_some());
    sleep(seconds(3.0)).await;
    let held = bench.bearer().expect("a new token once the old one has ended");
    assert_ne!(held.value, "Bearer same");
    assert!(bench.fetches() <= 8, "{:?}", bench.times());
}

#[tokio::test(start_paused = true)]
async fn idle_credential_lapses_and_is_woken() {
    let bench = Bench::run(Setting {
        answers: life(100.0),
        idle_after: Some(seconds(60.0)),
        traits: watched(),
        ..Setting::default()
    });
    sleep(seconds(70.0)).await;
    assert!(bench.bearer().is_some(), "this is a use");
    // Used 5 s before its time: kept fresh once, and then left alone.
    sleep(seconds(1000.0)).await;
    assert_eq!(bench.fetches(), 2, "{:?}", bench.times());
    assert!(bench.looks() < 300, "{} rounds in 1000 s", bench.looks());
    let asked = Moment::now().mono;
    let held = bench.waits(seconds(5.0)).await.expect("woken");
    assert_eq!((held.generation, bench.fetches()), (3, 3));
    assert!(asked.elapsed() < seconds(0.1), "at once: {:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_replaced_secret_or_certificate_wakes_no_credential_that_has_lapsed() {
    let bench = Bench::run(Setting {
        answers: life(100.0),
        idle_after: Some(seconds(60.0)),
        ..Setting::default()
    });
    bench.script().certificate = Some(1);
    sleep(seconds(200.0)).await;
    bench.replace_inputs();
    bench.script().certificate = Some(2);
    bench.credential.look_again();
    sleep(seconds(1000.0)).await;
    assert_eq!(bench.fetches(), 1, "{:?}", bench.times());
    bench.waits(seconds(5.0)).await.expect("woken");
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_stepped_forward_ends_the_token_and_brings_the_next_one() {
    // By the monotonic clock 100 s are left, by the wall clock it ended 100 s ago.
    let answers = vec![Answer::Stepped(seconds(100.0), seconds(200.0))];
    let bench = Bench::run(Setting { answers, ..Setting::default() });
    let held = bench.waits(seconds(5.0)).await.expect("the next one");
    assert_eq!((held.generation, &held.value.to_str().unwrap()), (2, &"Bearer token-2"));
    sleep(seconds(100.0)).await;
    assert_eq!(bench.fetches(), 2, "once, {:?}", bench.times());
}

#[tokio::test(start_paused = true)]
async fn a_thousand_cold_requests_cause_one_fetch() {
    let bench = Bench::run(Setting { takes: SECOND, ..Setting::default() });
    let deadline = Moment::now().mono + seconds(5.0);
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let credential = bench.credential.clone();
        #[allow(clippy::disallowed_methods)]
        waiting.spawn(async move { credential.newer_than(0, deadline, &Scheme::Bearer).await });
    }
    let served = waiting.join_all().await;
    assert!(served.iter().all(Result::is_ok));
    assert_eq!(bench.fetches(), 1);
}

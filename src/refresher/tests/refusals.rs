//! What a failure, a refusal or a 401 leads to.

use super::*;

#[tokio::test(start_paused = true)]
async fn failed_refresh_keeps_the_usable_token() {
    let answers = vec![Answer::Token(seconds(100.0))];
    let bench = Bench::run(Setting { answers, always: outage, ..Setting::default() });
    sleep(seconds(99.0)).await;
    assert!(bench.fetches() > 2, "the refresh was tried");
    assert_eq!(bench.bearer().expect("the held one").generation, 1);
    assert_eq!(bench.credential.outlook().last.unwrap().outcome, "transient");
    sleep(SECOND).await;
    assert!(bench.bearer().is_none(), "to its end and no further");
}

#[tokio::test(start_paused = true)]
async fn failures_back_off_and_never_give_up() {
    let bench = Bench::run(Setting { always: outage, ..Setting::default() });
    sleep(Duration::from_hours(1)).await;
    // With entropy 0.5: half of 1, 2, 4, … 60 s, and at least the interval.
    let times = bench.times();
    let gaps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]).round()).collect();
    assert_eq!(gaps[..7], [1.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0]);
    assert!((115..=130).contains(&times.len()), "{}", times.len());
}

#[tokio::test(start_paused = true)]
async fn burst_of_401s_causes_one_refresh() {
    let bench = Bench::run(Setting { takes: seconds(0.2), ..Setting::default() });
    sleep(SECOND).await;
    for _ in 0..1000 {
        bench.credential.nudge(1);
    }
    sleep(seconds(0.1)).await;
    (0..1000).for_each(|_| bench.credential.nudge(1)); // while it is under way
    sleep(seconds(0.2)).await;
    assert_eq!((bench.fetches(), bench.generation()), (2, 2));
    (0..1000).for_each(|_| bench.credential.nudge(1)); // stragglers
    sleep(seconds(60.0)).await;
    assert_eq!(bench.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn fresh_tokens_that_are_all_refused_cost_ever_fewer_refreshes() {
    let bench = Bench::run(Setting::default());
    sleep(SECOND).await;
    while bench.began.elapsed() < seconds(600.0) {
        bench.credential.nudge(bench.generation());
        sleep(seconds(0.05)).await;
    }
    // One for the start, then after 0, 1, 3, 7, 15, 31, 63, 127, 255 and 511 s.
    assert_eq!(bench.fetches(), 11, "{:?}", bench.times());
    let asked = Moment::now().mono;
    let deadline = asked + seconds(5.0);
    let generation = bench.generation();
    let replaced = bench.credential.replacement(generation, deadline, &Scheme::Bearer).await;
    assert!(replaced.is_err() && asked.elapsed() < seconds(0.1), "waiting would not help");
}

#[tokio::test(start_paused = true)]
async fn a_401_while_the_provider_fails_does_not_spin() {
    let answers = vec![
        Answer::Token(seconds(3600.0)),
        Answer::Fails(FetchError {
            retry_after: Some(seconds(600.0)),
            ..FetchError::new(Class::Transient, Reason::RateLimited)
        }),
    ];
    let bench = Bench::run(Setting { answers, traits: watched(), ..Setting::default() });
    sleep(SECOND).await;
    bench.credential.nudge(1);
    sleep(seconds(500.0)).await;
    assert_eq!(bench.fetches(), 2, "not around the backoff");
    assert!(bench.looks() < 150, "{} rounds in 500 s", bench.looks());
}

#[tokio::test(start_paused = true)]
async fn terminal_error_pauses_and_a_changed_secret_ends_the_pause() {
    let bench = Bench::run(Setting { answers: vec![refusal()], ..Setting::default() });
    sleep(seconds(200.0)).await;
    assert_eq!(bench.fetches(), 1);
    assert!(matches!(bench.activity(), Activity::Refused(_)));
    bench.replace_inputs();
    sleep(LOOK_EVERY + SECOND).await;
    assert_eq!(bench.fetches(), 2);
    assert!(bench.bearer().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_is_replaced_all_the_time_is_tried_once_an_interval() {
    for always in [refusal as fn() -> Answer, outage] {
        let bench = Bench::run(Setting { always, ..Setting::default() });
        for _ in 0..100 {
            sleep(SECOND / 10).await;
            bench.replace_inputs();
            bench.credential.look_again();
        }
        assert!((9..=11).contains(&bench.fetches()), "{:?}", bench.times());
    }
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_was_replaced_while_the_former_one_was_refused_is_tried() {
    let answers = vec![refusal()];
    let bench = Bench::run(Setting { answers, takes: SECOND, ..Setting::default() });
    sleep(SECOND / 2).await;
    bench.replace_inputs();
    sleep(LOOK_EVERY + 2 * SECOND).await;
    assert_eq!((bench.fetches(), bench.generation()), (2, 1), "{:?}", bench.times());
}

#[tokio::test(start_paused = true)]
async fn terminal_error_is_asked_about_again_after_minutes_and_not_by_requests() {
    let bench = Bench::run(Setting { always: refusal, ..Setting::default() });
    sleep(SECOND).await;
    for _ in 0..290 {
        let asked = Moment::now().mono;
        let refused = bench.waits(seconds(5.0)).await.err().expect("no token");
        assert!(asked.elapsed() < seconds(0.1), "at once");
        assert!(refused.retry_after > SECOND / 2);
        sleep(SECOND).await;
    }
    assert_eq!(bench.fetches(), 1);
    sleep(seconds(20.0)).await;
    assert_eq!(bench.fetches(), 2, "300 s with entropy 0.5: {:?}", bench.times());
}

#[tokio::test(start_paused = true)]
async fn terminal_error_keeps_the_usable_token() {
    let answers = vec![Answer::Token(seconds(100.0))];
    let bench = Bench::run(Setting { answers, always: refusal, ..Setting::default() });
    sleep(seconds(99.0)).await;
    assert_eq!((bench.fetches(), bench.bearer().map(|held| held.generation)), (2, Some(1)));
    sleep(seconds(2.0)).await;
    assert!(bench.bearer().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_one_time_code_is_not_sent_again_until_it_changed() {
    let traits = Traits { one_time: true, ..Traits::default() };
    let bench = Bench::run(Setting { answers: vec![refusal()], traits, ..Setting::default() });
    sleep(seconds(3600.0)).await;
    assert_eq!(bench.fetches(), 1);
    assert!(bench.looks() < 800, "{} rounds in an hour", bench.looks());
    bench.replace_inputs();
    sleep(LOOK_EVERY + SECOND).await;
    assert_eq!(bench.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_honoured() {
    let answers = vec![Answer::Fails(FetchError {
        retry_after: Some(seconds(100.0)),
        ..FetchError::new(Class::Transient, Reason::RateLimited)
    })];
    let bench = Bench::run(Setting { answers, ..Setting::default() });
    sleep(seconds(99.9)).await;
    assert!(bench.waits(seconds(0.05)).await.is_err());
    sleep(seconds(0.05)).await;
    assert_eq!(bench.fetches(), 1, "requests do not cut it short");
    sleep(seconds(0.5)).await;
    assert_eq!(bench.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn rule_50_another_certificate_brings_another_token_and_one_that_cannot_be_read_does_not() {
    let setting = Setting { always: || Answer::Token(seconds(3600.0)), ..Setting::default() };
    let (refresher, script, credential) = build(setting);
    script.lock().unwrap().certificate = Some(1);
    let (_stop, stopped) = watch::channel(None);
    #[allow(clippy::disallowed_methods)] // a test is a composition root of its own
    let _task = tokio::spawn(refresher.run(stopped));
    let fetches = || script.lock().unwrap().fetches.len();
    sleep(seconds(20.0)).await;
    assert_eq!(fetches(), 1);
    script.lock().unwrap().certificate = None;
    credential.look_again();
    sleep(seconds(20.0)).await;
    assert_eq!(fetches(), 1, "half written");
    script.lock().unwrap().certificate = Some(2);
    credential.look_again();
    sleep(seconds(20.0)).await;
    assert_eq!((fetches(), credential.outlook().generation), (2, 2), "once");
}

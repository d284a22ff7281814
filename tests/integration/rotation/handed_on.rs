//! A credential that a reload changes: its successor goes on with the newest refresh token.

use std::time::Duration;

use emulator::{Oauth2, Step, Tls};

use super::{Family, status};
use crate::support::{DEADLINE, Daemon, eventually};

/// Longer than a reload takes.
const SLOW: Duration = Duration::from_millis(1500);

/// Puts `config` in place and waits until it is taken over.
async fn replace(family: &Family, daemon: &Daemon, config: &str) {
    let reloads =
        async || daemon.metric("bearerd_config_reloads_total", &["outcome=\"ok\""]).await as u64;
    let before = reloads().await;
    family.home.write("new.toml", config);
    std::fs::rename(family.home.path("new.toml"), family.home.path("bearerd.toml")).unwrap();
    eventually("reloaded", async || reloads().await > before).await;
}

/// Rewrites the configuration so that the credential is another one, with the same refresh token.
async fn change(family: &Family, daemon: &Daemon, config: &str) {
    replace(family, daemon, &changed(config)).await;
    daemon.ready().await;
}

fn changed(config: &str) -> String {
    config.replace("[[routes]]", "[credentials.c.refresh]\nmin_interval_seconds = 2\n[[routes]]")
}

/// The same credential under another name.
fn renamed(config: &str) -> String {
    let renamed = config.replace("[credentials.c]", "[credentials.d]");
    renamed.replace("credential = \"c\"", "credential = \"d\"")
}

fn without_store(family: &Family, config: &str) -> String {
    let without = config.replace(&format!("store = \"file:{}\"\n", family.store().display()), "");
    assert!(!without.contains("store ="));
    without
}

/// No refresh token was sent twice, and nobody waited for a lock.
fn in_order(family: &Family, daemon: &Daemon, sendings: usize) {
    assert_eq!(family.sent().len(), sendings);
    assert!(family.idp.family_alive());
    assert_eq!(family.idp.violations(), Vec::<String>::new());
    assert!(!daemon.logs().contains("token store not available"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_store_a_reload_goes_on_with_what_was_rotated() {
    let family = Family::new();
    let config = without_store(&family, &family.config(15));
    let daemon = Daemon::start_with(&family.home, &config);
    daemon.ready().await;
    family.refresh(&daemon).await;
    change(&family, &daemon, &config).await;
    assert_eq!(daemon.get("/again").await.status, 200);
    assert_eq!(family.idp.token_requests(), 2, "the token at hand goes on");
    family.refresh(&daemon).await;
    in_order(&family, &daemon, 3);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_lags_behind_is_handed_on_with_what_it_lacks() {
    let family = Family::new();
    let daemon = family.started().await;
    // Nothing can be renamed over a directory.
    std::fs::remove_file(family.store()).unwrap();
    std::fs::create_dir(family.store()).unwrap();
    family.refresh(&daemon).await;
    daemon.wait_for_log("the new refresh token is in memory only");
    change(&family, &daemon, &family.config(15)).await;
    assert_eq!(daemon.get("/again").await.status, 200);
    std::fs::remove_dir(family.store()).unwrap();
    eventually("stored", async || family.store().is_file()).await;
    assert_eq!(Some(family.stored()), family.idp.current_refresh_token());
    assert_eq!(family.sent().len(), 2);
    family.finish(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_added_gets_what_was_rotated_before() {
    let family = Family::new();
    let stored = family.config(15);
    let daemon = Daemon::start_with(&family.home, &without_store(&family, &stored));
    daemon.ready().await;
    family.refresh(&daemon).await;
    change(&family, &daemon, &stored).await;
    eventually("stored", async || family.store().is_file()).await;
    assert_eq!(Some(family.stored()), family.idp.current_refresh_token());
    family.refresh(&daemon).await;
    in_order(&family, &daemon, 3);
    family.finish(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_lost_answer_a_reload_does_not_send_the_spent_refresh_token_again() {
    for stored in [true, false] {
        let family = Family::new();
        let config = family.config(15);
        let config = if stored { config } else { without_store(&family, &config) };
        let daemon = Daemon::start_with(&family.home, &config);
        daemon.ready().await;
        family.idp.script([Step::LostAnswer]);
        family.api.script([Step::Status(401)]);
        assert_eq!(daemon.get("/nudge").await.status, 401);
        eventually("the failure", async || status(&daemon).await["activity"] == "backing_off")
            .await;
        change(&family, &daemon, &config).await;
        replace(&family, &daemon, &renamed(&config)).await;
        daemon.ready().await;
        for _ in 0..20 {
            assert_eq!(daemon.get("/held").await.status, 200);
        }
        assert_eq!(status(&daemon).await["activity"], "backing_off");
        // Not by a 401 either.
        family.api.script([Step::Status(401)]);
        assert_eq!(daemon.get("/nudge").await.status, 401);
        in_order(&family, &daemon, 2);
        assert!(daemon.stop().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_goes_on_under_another_name() {
    for stored in [true, false] {
        let family = Family::new();
        let config = family.config(15);
        let config = if stored { config } else { without_store(&family, &config) };
        let daemon = Daemon::start_with(&family.home, &config);
        daemon.ready().await;
        family.refresh(&daemon).await;
        replace(&family, &daemon, &renamed(&config)).await;
        daemon.ready().await;
        assert_eq!(status(&daemon).await["name"], "d");
        family.refresh(&daemon).await;
        in_order(&family, &daemon, 3);
        let left = daemon.metric("bearerd_token_generation", &["\"c\""]).await;
        assert!(left < 0.5, "a gauge of a name that is gone");
        if stored {
            family.finish(daemon);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_under_way_is_waited_for_by_who_goes_on_under_another_name() {
    let family = Family::new();
    let daemon = family.started().await;
    family.idp.script([Step::SlowAnswer(SLOW)]);
    family.api.script([Step::Status(401)]);
    let nudge = daemon.get("/nudge");
    let rename = async {
        family.idp.wait_for_token_requests(2, DEADLINE).await.expect("in time");
        replace(&family, &daemon, &renamed(&family.config(15))).await;
        // A request to the new one waits for the old one's refresh.
        daemon.get("/renamed").await
    };
    let (nudged, served) = tokio::join!(nudge, rename);
    assert_eq!((nudged.status, served.status), (200, 200));
    assert_eq!(Some(family.stored()), family.idp.current_refresh_token());
    in_order(&family, &daemon, 2);
    family.finish(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_refresh_is_waited_for_the_token_in_force_goes_on() {
    let family = Family::new();
    let config = family.config(15).replace("wait_ms = 2000", "wait_ms = 0");
    let config = config.replace("[[routes]]", "limits = { answer_seconds = 60 }\n[[routes]]");
    let daemon = Daemon::start_with(&family.home, &config);
    daemon.ready().await;
    // As long as this takes, nobody can go on for the credential.
    family.idp.script([Step::Hang]);
    family.api.script([Step::Status(401)]);
    assert_eq!(daemon.get("/nudge").await.status, 401, "nothing is waited for");
    family.idp.wait_for_token_requests(2, DEADLINE).await.expect("in time");
    for config in [changed(&config), renamed(&config)] {
        replace(&family, &daemon, &config).await;
        assert_eq!(daemon.get("/during").await.status, 200);
        assert_eq!(daemon.admin("/readyz").await.status, 200);
    }
    assert_eq!(family.idp.token_requests(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_of_a_removed_credential_is_waited_for_at_a_stop() {
    let family = Family::new();
    let token = family.home.write("token", "projected");
    let (config, api) = (family.config(15), family.api.url());
    let other = format!(
        "{}[credentials.other]\nprovider = \"file\"\npath = \"{token}\"\n\
         [[routes]]\nupstream = \"{api}\"\ncredential = \"other\"\n",
        &config[..config.find("[credentials.c]").unwrap()]
    );
    // A refresh that no request waits for: nothing else holds the exit.
    family.idp.set_lifetime(Duration::from_secs(2));
    family.idp.script([Step::Normal, Step::SlowAnswer(SLOW)]);
    let mut daemon = family.started().await;
    family.idp.wait_for_token_requests(2, DEADLINE).await.expect("in time");
    replace(&family, &daemon, &other).await;
    assert_eq!(status(&daemon).await["name"], "other");
    daemon.signal("TERM");
    assert!(daemon.exit().success());
    assert_eq!(family.idp.rotations(), 2);
    assert_eq!(Some(family.stored()), family.idp.current_refresh_token());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_comes_back_while_it_leaves_goes_on() {
    let family = Family::new();
    let daemon = family.started().await;
    let config = family.config(15);
    // Another account of the same name comes between.
    let another =
        format!("client_id = \"another\"\nstore = \"file:{}\"", family.home.path("x").display());
    let another = without_store(&family, &config).replace("client_id = \"client\"", &another);
    family.idp.script([Step::SlowAnswer(SLOW)]);
    family.api.script([Step::Status(401)]);
    let nudge = daemon.get("/nudge");
    let reloads = async {
        family.idp.wait_for_token_requests(2, DEADLINE).await.expect("in time");
        replace(&family, &daemon, &renamed(&another)).await;
        replace(&family, &daemon, &config).await;
    };
    let (answer, ()) = tokio::join!(nudge, reloads);
    assert_eq!(answer.status, 200);
    daemon.ready().await;
    assert_eq!(daemon.get("/back").await.status, 200);
    assert_eq!(Some(family.stored()), family.idp.current_refresh_token());
    assert!(family.idp.family_alive());
    family.finish(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_goes_to_another_account_by_a_reload_or_a_restart() {
    let family = Family::new();
    let theirs = Oauth2::start(Tls::Off, &family.tokens);
    theirs.add_client("client", Some("secret"));
    let config = family.config(15);
    for moved in [
        config.replace("client_id = \"client\"", "client_id = \"another\""),
        config.replace(&family.idp.token_url(), &theirs.token_url()),
    ] {
        assert_ne!(moved, config);
        let mut daemon = Daemon::start_with(&family.home, &config);
        daemon.ready().await;
        let ours = (family.idp.token_requests(), family.stored());
        for reload in [true, false] {
            if reload {
                replace(&family, &daemon, &moved).await;
            } else {
                assert!(daemon.stop().success());
                daemon = Daemon::start_with(&family.home, &moved);
            }
            daemon.wait_for_log("another account's tokens");
            eventually("a person is needed", async || {
                status(&daemon).await["last"]["needs_operator"] == true
            })
            .await;
            assert_eq!(daemon.get("/other").await.status, 503, "not with the other's token");
        }
        assert!(daemon.stop().success());
        assert_eq!((family.idp.token_requests(), family.stored()), ours, "left as it was");
        assert_eq!(theirs.token_requests(), 0);
    }
    // Back with the first one all is as before.
    let daemon = family.started().await;
    family.refresh(&daemon).await;
    family.finish(daemon);
}

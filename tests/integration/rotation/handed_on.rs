//! A credential that a reload changes: its successor goes on with the newest refresh token.

use super::Family;
use crate::support::{Daemon, eventually};

/// Rewrites the configuration so that the credential is another one, with the same refresh token.
async fn change(family: &Family, daemon: &Daemon, config: &str) {
    let changed = config
        .replace("[[routes]]", "[credentials.c.refresh]\nmin_interval_seconds = 2\n[[routes]]");
    family.home.write("new.toml", &changed);
    std::fs::rename(family.home.path("new.toml"), family.home.path("bearerd.toml")).unwrap();
    eventually("reloaded", async || {
        daemon.metric("bearerd_config_reloads_total", &["outcome=\"ok\""]).await > 0.5
    })
    .await;
    daemon.ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_store_a_reload_goes_on_with_what_was_rotated() {
    let family = Family::new();
    let config = family.config(15);
    let store = format!("store = \"file:{}\"\n", family.store().display());
    let config = config.replace(&store, "");
    assert!(!config.contains("store ="));
    let daemon = Daemon::start_with(&family.home, &config);
    daemon.ready().await;
    family.refresh(&daemon).await;
    change(&family, &daemon, &config).await;
    eventually("a fresh token", async || family.idp.token_requests() == 3).await;
    assert_eq!(daemon.get("/again").await.status, 200);
    assert_eq!(family.sent().len(), 3);
    assert!(family.idp.family_alive());
    assert_eq!(family.idp.violations(), Vec::<String>::new());
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
    let store = format!("store = \"file:{}\"\n", family.store().display());
    let daemon = Daemon::start_with(&family.home, &stored.replace(&store, ""));
    daemon.ready().await;
    family.refresh(&daemon).await;
    change(&family, &daemon, &stored).await;
    eventually("a fresh token", async || family.idp.token_requests() == 3).await;
    eventually("stored", async || family.store().is_file()).await;
    assert!(family.idp.family_alive(), "a spent refresh token was sent");
    family.finish(daemon);
}

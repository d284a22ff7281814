//! `kill -9` and failing disks while a login is left beside the store and taken up from there: it is
//! neither lost nor, its refresh token spent, taken up again.

use super::*;
use crate::login::{Browser, Login};

/// What a credential says beside, for a person who signs in.
fn place_to_sign_in(bed: &Bed) -> String {
    format!("authorization_url = \"{}\"", bed.idp.authorization_url())
}

/// A person signs in while the login's own calls go as the plan says; its exit code, -1 if killed.
async fn sign_in(bed: &Bed) -> i32 {
    let path = |name: &str| bed.home.path(name).display().to_string();
    let (library, store, plan) = (library().display().to_string(), path("state"), path("plan"));
    let environment = [
        ("LD_PRELOAD", library.as_str()),
        ("FAULTS_STORE", store.as_str()),
        ("FAULTS_PLAN", plan.as_str()),
    ];
    let login = Login::start_in(&bed.home, &["--code"], &environment);
    let url = login.url();
    let opened = tokio::spawn(async move { Browser::default().open(&url).await });
    let code = login.end().0;
    // No page comes from a login that was killed.
    assert_eq!(opened.await.is_ok_and(|page| page.status == 200), code == 0);
    code
}

/// The next process gets on with the login's tokens, and with those that follow.
async fn goes_on(bed: &Bed, daemon: &Daemon) {
    daemon.ready().await;
    assert_eq!(daemon.get("/on").await.status, 200);
    for _ in 0..2 {
        bed.refresh(daemon).await;
    }
    assert!(!bed.login().exists() && bed.holds_newest());
    bed.unharmed();
}

impl Bed {
    fn login(&self) -> PathBuf {
        self.home.path("state").join("store.json.login")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_killed_while_it_takes_a_login_up_goes_on_with_it() {
    for point in ["taken", "created", "written", "synced", "renamed", "kept"] {
        let bed = Bed::new();
        let mut daemon = bed.start_with(&place_to_sign_in(&bed));
        daemon.ready().await;
        bed.plan(&format!("{point} kill"));
        let login = tokio::spawn({
            let login = Login::start(&bed.home, &["--code"]);
            async move {
                Browser::default().open(&login.url()).await;
                login.end().0
            }
        });
        daemon.exit();
        bed.plan("");
        assert_eq!(login.await.expect("it ran"), 0, "{point}");
        let daemon = bed.start_with(&place_to_sign_in(&bed));
        goes_on(&bed, &daemon).await;
        daemon.kill();
        // Once more, now that the login's refresh token is spent.
        goes_on(&bed, &bed.start_with(&place_to_sign_in(&bed))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_killed_or_cannot_write_leaves_all_or_nothing() {
    for (plan, exit, left) in
        [("left kill", -1, true), ("kept kill", -1, true), ("left 30", 1, false)]
    {
        let bed = Bed::new();
        let daemon = bed.start_with(&place_to_sign_in(&bed));
        daemon.ready().await;
        // The plan is the daemon's too.
        assert!(daemon.stop().success());
        bed.plan(plan);
        assert_eq!(sign_in(&bed).await, exit, "{plan}");
        bed.plan("");
        let names = std::fs::read_dir(bed.home.path("state")).unwrap().count();
        assert_eq!((bed.login().exists(), names), (left, 2 + usize::from(left)), "{plan}");
        let daemon = bed.start_with(&place_to_sign_in(&bed));
        daemon.ready().await;
        assert_eq!(daemon.get("/on").await.status, 200);
        if left {
            goes_on(&bed, &daemon).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_in_place_counts_even_if_it_cannot_be_read_there() {
    let bed = Bed::new();
    let daemon = bed.start_with(&place_to_sign_in(&bed));
    daemon.ready().await;
    bed.plan("read 24");
    let login = Login::start(&bed.home, &["--code"]);
    assert_eq!(Browser::default().open(&login.url()).await.status, 200);
    eventually("served with the login's token", async || {
        credential(&daemon).await["generation"] == 2
    })
    .await;
    bed.plan("");
    assert_eq!(login.end().0, 0);
    goes_on(&bed, &daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_while_a_login_is_taken_up_is_waited_for() {
    for point in ["taken", "created", "written", "synced", "renamed", "kept"] {
        for error in ["28", "5"] {
            let bed = Bed::new();
            let daemon = bed.start_with(&place_to_sign_in(&bed));
            daemon.ready().await;
            bed.plan(&format!("{point} {error}"));
            let login = Login::start(&bed.home, &["--code"]);
            assert_eq!(Browser::default().open(&login.url()).await.status, 200);
            if point == "taken" {
                daemon.wait_for_log("a login is not taken up");
                assert_eq!(daemon.get("/on").await.status, 200, "with what it has");
            } else {
                eventually("served with the login's token", async || {
                    credential(&daemon).await["generation"] == 2
                })
                .await;
                assert_eq!(daemon.get("/on").await.status, 200);
                let unsynced = daemon.metric("bearerd_store_unsynced", &[]).await;
                assert!(unsynced > 0.0, "{point} {error}");
            }
            bed.plan("");
            assert_eq!(login.end().0, 0);
            eventually("stored", async || {
                daemon.metric("bearerd_store_unsynced", &[]).await < 1.0 && !bed.login().exists()
            })
            .await;
            goes_on(&bed, &daemon).await;
        }
    }
}

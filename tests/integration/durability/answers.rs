//! Answers that get lost after the provider committed, and refresh tokens that are dead: another way
//! in where there is one, and else a person who is told.

use super::*;

/// The words of a credential that may sign in with a password.
fn password(bed: &Bed) -> String {
    bed.idp.add_user("robot", "pass word");
    let file = bed.home.write("password", "pass word");
    format!("fallback = \"password\"\nusername = \"robot\"\npassword = {{ file = \"{file}\" }}")
}

const CLIENT: &str = "fallback = \"client_credentials\"";

/// The grants that were asked for, in order.
fn grants(bed: &Bed) -> Vec<String> {
    let grant = |request: &Recorded| request.form().value("grant_type").unwrap().to_owned();
    bed.idp.requests().iter().map(|request| grant(request)).collect()
}

fn refresh_token(request: &Recorded) -> Option<String> {
    request.form().value("refresh_token").map(str::to_owned)
}

/// A refresh now, whatever it brings.
async fn nudge(bed: &Bed, daemon: &Daemon) -> u16 {
    bed.api.script([Step::Status(401)]);
    let status = daemon.get("/nudge").await.status;
    bed.api.clear_script();
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn inside_a_grace_window_a_lost_answer_is_asked_for_again_and_nothing_is_lost() {
    for step in [Step::LostAnswer, Step::Cut, Step::Hang] {
        let bed = Bed::new();
        bed.idp.set_grace(Duration::from_secs(60));
        let dialect = "format = 1\nname = \"graceful\"\nrotation_grace_seconds = 60\n\
            flow = { obtain = [\"refresh\"] }\n[keys]\nhost = { kind = \"host\", required = true }\n\
            refresh_token = { kind = \"secret\", rotating = true }\n\
            client_secret = { kind = \"secret\", required = true }\n[exchange.refresh]\n\
            url = \"{host}/token\"\nbasic = [\"client\", \"{client_secret}\"]\n\
            form = [[\"grant_type\", \"refresh_token\"], [\"refresh_token\", \"{refresh_token}\"]]\n";
        let dialect = bed.home.write("dialect.toml", dialect);
        let origin = bed.idp.token_url().replace("/token", "");
        let config = bed.config("").replace(
            &format!("grant = \"refresh_token\"\ntoken_url = \"{origin}/token\"\nclient_id = \"client\"\n"),
            &format!("provider = \"custom\"\ndialect = \"{dialect}\"\nhost = \"{origin}\"\n"),
        );
        let daemon = Daemon::start_with(&bed.home, &config);
        daemon.ready().await;
        bed.idp.script([step]);
        nudge(&bed, &daemon).await;
        eventually("the second token", async || {
            credential(&daemon).await["generation"].as_u64() == Some(2)
        })
        .await;
        assert_eq!(daemon.get("/on").await.status, 200);
        assert!(bed.holds_newest());
        bed.unharmed();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_refresh_token_is_followed_by_the_password_and_a_new_chain() {
    let bed = Bed::new();
    let more = password(&bed);
    let daemon = bed.start_with(&more);
    daemon.ready().await;
    bed.idp.revoke_families();
    assert_eq!(nudge(&bed, &daemon).await, 200, "nobody notices");
    assert_eq!(grants(&bed), ["refresh_token", "refresh_token", "password"]);
    assert!(bed.holds_newest());
    // The new chain goes on, also after a restart; the dead one is not asked again.
    assert!(daemon.stop().success());
    let daemon = bed.start_with(&more);
    daemon.ready().await;
    assert_eq!(nudge(&bed, &daemon).await, 200);
    assert_eq!(grants(&bed)[3..], ["refresh_token"]);
    assert!(daemon.stop().success());
    assert_eq!(bed.idp.audit_failures(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_refresh_token_is_followed_by_the_clients_own_credentials_until_another_is_put_in_place()
 {
    let bed = Bed::new();
    let daemon = bed.start_with(CLIENT);
    daemon.ready().await;
    bed.idp.revoke_families();
    assert_eq!(nudge(&bed, &daemon).await, 200, "nobody notices");
    assert_eq!(grants(&bed), ["refresh_token", "refresh_token", "client_credentials"]);
    assert!(daemon.stop().success());
    let daemon = bed.start_with(CLIENT);
    daemon.ready().await;
    daemon.wait_for_log("continuing with the stored access token");
    assert_eq!(nudge(&bed, &daemon).await, 200);
    assert_eq!(grants(&bed)[3..], ["client_credentials"], "the dead one was sent again");
    bed.sign_in();
    eventually("the new one in use", async || {
        nudge(&bed, &daemon).await;
        grants(&bed).last().is_some_and(|grant| grant == "refresh_token")
    })
    .await;
    assert!(daemon.stop().success());
    assert!(bed.holds_newest());
    assert_eq!(bed.idp.audit_failures(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_refresh_token_is_not_sent_again_while_the_other_way_in_fails() {
    let bed = Bed::new();
    let daemon = bed.start_with(&password(&bed));
    daemon.ready().await;
    bed.idp.revoke_families();
    bed.idp.script([Step::Normal, Step::Status(503), Step::Close, Step::Status(503)]);
    nudge(&bed, &daemon).await;
    eventually("signed in", async || credential(&daemon).await["generation"].as_u64() == Some(2))
        .await;
    let ways = ["refresh_token", "refresh_token", "password", "password", "password", "password"];
    assert_eq!(grants(&bed), ways, "the dead one was sent again");
    assert!(bed.holds_newest());
    assert!(daemon.stop().success());
    assert_eq!(bed.idp.audit_failures(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_lost_answer_the_other_way_in_is_taken_and_the_spent_token_never_sent() {
    for client in [true, false] {
        let bed = Bed::new();
        let more = if client { CLIENT.to_owned() } else { password(&bed) };
        bed.idp.set_lifetime(Duration::from_secs(3));
        let daemon = bed.start_with(&more);
        daemon.ready().await;
        bed.idp.script([Step::LostAnswer]);
        let other = if client { "client_credentials" } else { "password" };
        eventually("another way in", async || {
            assert_eq!(daemon.get("/steady").await.status, 200);
            grants(&bed).last().is_some_and(|grant| grant == other)
        })
        .await;
        assert_eq!(grants(&bed), ["refresh_token", "refresh_token", other]);
        // Neither at the next refresh nor after a restart.
        eventually("one more", async || bed.idp.token_requests() == 4).await;
        assert!(daemon.stop().success());
        let daemon = bed.start_with(&more);
        daemon.ready().await;
        eventually("one more", async || bed.idp.token_requests() >= 5).await;
        let sent: Vec<_> = bed.idp.requests().iter().map(|r| refresh_token(r)).collect();
        assert!(sent[1].is_some() && !sent[2..].contains(&sent[1]), "the spent one was sent again");
        assert!(bed.idp.family_alive());
        assert_eq!((bed.idp.audit_failures(), bed.api.unauthorized()), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_another_way_in_a_person_is_told_everywhere() {
    let bed = Bed::new();
    let daemon = bed.started().await;
    let needed = async || daemon.metric("bearerd_needs_operator", &["\"c\""]).await > 0.5;
    assert!(!needed().await);
    bed.idp.revoke_families();
    nudge(&bed, &daemon).await;
    eventually("needed", needed).await;
    let log = daemon.wait_for_log("\"needs_operator\":true");
    assert!(log.contains("sign in again") && log.contains("\"credential\":\"c\""), "{log}");
    let last = credential(&daemon).await["last"].clone();
    assert_eq!((&last["outcome"], &last["needs_operator"]), (&"terminal".into(), &true.into()));
    assert!(last["detail"].as_str().unwrap().contains("sign in again"), "{last}");
    bed.sign_in();
    eventually("mended", async || !needed().await).await;
    assert_eq!(daemon.get("/on").await.status, 200);
    assert_eq!(bed.idp.audit_failures(), 1, "a dead refresh token was sent again");
}

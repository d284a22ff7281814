//! A replica is killed in the middle of a refresh, a refresh token is over, a Secret is not there.

use emulator::kubernetes::{Verb, etcd_timeout};

use super::*;

/// One replica is killed while the provider answers; the others serve all the time until one of them
/// has the next token.
async fn killed_in_between(bed: &Bed, step: Step) -> Vec<Daemon> {
    bed.idp.set_lifetime(Duration::from_secs(8));
    let mut replicas = bed.replicas(3).await;
    bed.idp.script([step]);
    bed.api.script([Step::Status(401)]);
    let asked = bed.idp.token_requests();
    let proxy = replicas[0].proxy;
    let nudge = tokio::spawn(async move {
        let mut client = emulator::client::Client::connect(proxy).await?;
        client.request("GET", "/nudge", &[], b"").await
    });
    bed.idp.wait_for_token_requests(asked + 1, DEADLINE).await.unwrap();
    assert!(!bed.document()["intent"].is_null(), "nobody called without an intent");
    replicas.remove(0).kill();
    for replica in &replicas {
        eventually("went on", async || {
            assert_eq!(replica.get("/").await.status, 200);
            credential(replica).await["generation"].as_u64() > Some(1)
        })
        .await;
    }
    nudge.abort();
    eventually("settled", async || bed.holds_newest() && bed.document()["intent"].is_null()).await;
    replicas
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intent_whose_writer_was_killed_before_the_provider_committed_costs_a_wait() {
    let bed = Bed::new();
    let replicas = killed_in_between(&bed, Step::Hang).await;
    bed.all_serve(&replicas).await;
    bed.unharmed();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intent_whose_writer_was_killed_after_the_commit_is_made_good_in_the_grace_window() {
    let bed = Bed::new();
    bed.idp.set_grace(Duration::from_secs(120));
    let replicas = killed_in_between(&bed, Step::SlowAnswer(Duration::from_secs(20))).await;
    bed.all_serve(&replicas).await;
    bed.unharmed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_told_once_for_all_and_a_new_sign_in_ends_it() {
    let bed = Bed::new();
    let replicas = bed.replicas(3).await;
    bed.idp.revoke_families();
    let asked = bed.idp.token_requests();
    let addresses: Arc<[_]> = replicas.iter().map(|replica| replica.proxy).collect();
    let answers = together(30, |index| {
        let address = addresses[index % 3];
        async move { request(address, "GET", "/", &[], b"").await.status }
    });
    assert!(answers.await.iter().all(|status| *status != 200));
    for replica in &replicas {
        eventually("told", async || needs_operator(replica).await).await;
    }
    assert_eq!(bed.idp.token_requests(), asked + 1);
    assert_eq!(bed.document()["dead"], "refused");
    bed.sign_in();
    for replica in &replicas {
        eventually("served", async || replica.get("/").await.status == 200).await;
    }
    assert_eq!(bed.idp.token_requests(), asked + 2);
    assert!(bed.holds_newest());
    bed.stage.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_not_there_is_asked_for_and_awaited() {
    let bed = Bed::new();
    bed.stage.cluster.delete_secret(NAMESPACE, SECRET);
    let replicas = [bed.start(), bed.start()];
    for replica in &replicas {
        let command = "kubectl --namespace shop create secret generic orders-tokens";
        told(replica, command).await;
        assert!(needs_operator(replica).await);
    }
    assert_eq!(bed.idp.token_requests(), 0);
    bed.stage.cluster.create(secret());
    for replica in &replicas {
        replica.ready().await;
    }
    bed.all_serve(&replicas).await;
    assert_eq!(bed.idp.token_requests(), 1);
    bed.unharmed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_was_made_anew_brings_no_spent_token_back() {
    let bed = Bed::new();
    let replicas = bed.replicas(2).await;
    bed.refresh(&replicas[0]).await;
    bed.all_serve(&replicas).await;
    let fetched = bed.idp.token_requests();
    bed.stage.cluster.delete_secret(NAMESPACE, SECRET);
    bed.stage.cluster.create(secret());
    // A newcomer knows nothing of what was there, and the first refresh token is still configured.
    let newcomer = bed.start();
    for replica in replicas.iter().chain([&newcomer]) {
        eventually("told", async || needs_operator(replica).await).await;
    }
    assert_eq!(bed.document()["dead"], "lost");
    assert_eq!(bed.idp.token_requests(), fetched, "a spent token was sent");
    for replica in &replicas {
        assert_eq!(replica.get("/").await.status, 200, "the token at hand goes on");
    }
    bed.sign_in();
    for replica in replicas.iter().chain([&newcomer]) {
        eventually("well", async || !needs_operator(replica).await).await;
    }
    bed.all_serve(&replicas).await;
    assert_eq!(bed.idp.token_requests(), fetched + 1);
    bed.unharmed();
}

#[tokio::test(flavor = "multi_thread")]
async fn outside_of_a_cluster_it_is_said_where_the_store_can_be_had() {
    let bed = Bed::new();
    // Whatever the machine of the test is.
    let environment = [("KUBERNETES_SERVICE_HOST", ""), ("KUBERNETES_SERVICE_PORT", "")];
    let replica = Daemon::start_in(&bed.stage.home, &bed.config(), &environment);
    told(&replica, "KUBERNETES_SERVICE_HOST").await;
    assert!(needs_operator(&replica).await);
    assert_eq!(bed.idp.token_requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_fails_every_write_is_told_as_such_and_nothing_is_sent() {
    let bed = Bed::new();
    let replicas = bed.replicas(2).await;
    let fetched = bed.idp.token_requests();
    bed.stage.cluster.set_always(Verb::Update, Some(Step::from(etcd_timeout())));
    bed.tokens.revoke_all();
    let proxy = replicas[0].proxy;
    let nudge = tokio::spawn(async move { request(proxy, "GET", "/nudge", &[], b"").await.status });
    told(&replicas[0], "the API server answered 500").await;
    replicas[0].wait_for_log("token store not available");
    assert_eq!(bed.idp.token_requests(), fetched, "sent without an intent");
    bed.stage.cluster.set_always(Verb::Update, None);
    nudge.await.unwrap();
    for replica in &replicas {
        eventually("served", async || replica.get("/").await.status == 200).await;
    }
    assert_eq!(bed.idp.token_requests(), fetched + 1);
    eventually("settled", async || bed.holds_newest()).await;
    bed.unharmed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_watch_is_told_but_not_when_an_api_server_has_just_started() {
    let bed = Bed::new();
    let cluster = &bed.stage.cluster;
    // It serves before it knows the roles.
    cluster.script(Verb::Watch, [Step::Status(403), Step::Status(403)]);
    let replicas = bed.replicas(1).await;
    eventually("a watch", async || cluster.watches() == 1).await;
    assert_eq!(cluster.steps_left(Verb::Watch), 0);
    let told = "the role does not allow watch";
    assert!(!replicas[0].logs().contains(told), "{}", replicas[0].logs());
    cluster.set_always(Verb::Watch, Some(Step::Status(403)));
    cluster.cut_watches();
    replicas[0].wait_for_log(told);
    bed.unharmed();
}

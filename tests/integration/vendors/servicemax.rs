//! PTC ServiceMax: what is sent, what is kept or replaced, revocation. Rows S1 and S2.

use emulator::{Servicemax, Tls, Verdict};

use super::{Rig, encoded, exactly, lives, token_requests};

/// What a user writes, without a store: nothing rotates as documented.
pub(super) fn written(rig: &Rig, idp: &Servicemax, client: &str, refresh_token: &str) -> String {
    format!(
        "provider = \"servicemax-max\"\nhost = \"{}\"\nclient_id = \"{client}\"\n\
         refresh_token = {}\n",
        idp.url(),
        rig.secret("refresh-token", refresh_token)
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_the_request_is_the_samples_and_the_refresh_token_is_kept() {
    let rig = Rig::new();
    let idp = Servicemax::start(Tls::Off, &rig.tokens);
    let client = idp.add_client();
    let refresh_token = idp.issue_refresh_token(&client);
    let daemon = rig.started(&written(&rig, &idp, &client, &refresh_token)).await;
    lives(&super::credential(&daemon).await, 86_400);
    assert_eq!(daemon.get("/records").await.status, 200);
    rig.refresh_now(&daemon).await;
    let sent = token_requests(&idp);
    assert_eq!(sent.len(), 2, "one fetch at the start, one after the 401");
    for request in sent {
        assert_eq!((request.method.as_str(), &*request.target), ("POST", "/sec/auth/token"));
        assert_eq!(
            request.body_text(),
            format!(
                "grant_type=refresh_token&client_id={client}&refresh_token={}",
                encoded(&refresh_token)
            )
        );
        let media_type = request.header("content-type");
        assert_eq!(media_type.as_deref(), Some("application/x-www-form-urlencoded"));
        assert!(!request.has("authorization"));
    }
    rig.finish(daemon, &idp);
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_a_refresh_token_that_comes_replaces_the_old_one_in_the_store() {
    let rig = Rig::new();
    let idp = Servicemax::start(Tls::Off, &rig.tokens);
    idp.set_rotation(true);
    let client = idp.add_client();
    let first = idp.issue_refresh_token(&client);
    let credential = format!("{}{}", written(&rig, &idp, &client, &first), rig.store());
    let daemon = rig.started(&credential).await;
    let second = rig.stored();
    assert_ne!(second, first);
    rig.refresh_now(&daemon).await;
    let third = rig.stored();
    let bodies: Vec<_> = token_requests(&idp).iter().map(|sent| sent.body_text()).collect();
    for (body, token) in bodies.iter().zip([&first, &second]) {
        assert!(body.ends_with(&format!("refresh_token={}", encoded(token))), "{body}");
    }
    assert!(third != second && bodies.len() == 2);
    rig.finish(daemon, &idp);
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_with_a_store_the_kept_refresh_token_is_stored() {
    let rig = Rig::new();
    let idp = Servicemax::start(Tls::Off, &rig.tokens);
    let client = idp.add_client();
    let refresh_token = idp.issue_refresh_token(&client);
    let credential = format!("{}{}", written(&rig, &idp, &client, &refresh_token), rig.store());
    let daemon = rig.started(&credential).await;
    assert_eq!(rig.stored(), refresh_token);
    rig.finish(daemon, &idp);
}

#[tokio::test(flavor = "multi_thread")]
async fn s_e1_the_prefix_is_a_key_and_may_be_empty() {
    let rig = Rig::new();
    let idp = Servicemax::start(Tls::Off, &rig.tokens);
    let client = idp.add_client();
    let refresh_token = idp.issue_refresh_token(&client);
    let credential = format!("{}base_path = \"\"\n", written(&rig, &idp, &client, &refresh_token));
    let daemon = rig.started(&credential).await;
    assert_eq!(token_requests(&idp)[0].target, "/auth/token");
    rig.finish(daemon, &idp);
}

#[tokio::test(flavor = "multi_thread")]
async fn s_e9_many_refused_requests_cause_one_refresh() {
    let rig = Rig::new();
    let idp = Servicemax::start(Tls::Off, &rig.tokens);
    let client = idp.add_client();
    let refresh_token = idp.issue_refresh_token(&client);
    let daemon = rig.started(&written(&rig, &idp, &client, &refresh_token)).await;
    rig.tokens.revoke_all();
    let requests = (0..40).map(|_| daemon.get("/parallel"));
    let answers = futures(requests).await;
    assert!(answers.iter().all(|status| *status == 200), "{answers:?}");
    exactly(&idp, 2).await;
    rig.finish(daemon, &idp);
}

/// Statuses of all `requests`, which run at the same time.
async fn futures(
    requests: impl Iterator<Item = impl Future<Output = emulator::client::Answer>>,
) -> Vec<u16> {
    let mut running: Vec<_> = requests.map(Box::pin).collect();
    let mut statuses = Vec::new();
    std::future::poll_fn(|context| {
        running.retain_mut(|request| match request.as_mut().poll(context) {
            std::task::Poll::Ready(answer) => {
                statuses.push(answer.status);
                false
            }
            std::task::Poll::Pending => true,
        });
        if running.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    statuses
}

#[tokio::test(flavor = "multi_thread")]
async fn s_e8_the_access_token_is_revoked_at_the_end_and_not_used_again() {
    let rig = Rig::new();
    let idp = Servicemax::start(Tls::Off, &rig.tokens);
    let client = idp.add_client();
    let refresh_token = idp.issue_refresh_token(&client);
    let credential = format!(
        "{}{}revoke_on_shutdown = true\n",
        written(&rig, &idp, &client, &refresh_token),
        rig.store()
    );
    let daemon = rig.started(&credential).await;
    let token = rig.tokens.latest().unwrap();
    assert!(daemon.stop().success());
    let last = idp.last_request().unwrap();
    assert_eq!((last.method.as_str(), &*last.target), ("POST", "/sec/auth/token/revoke"));
    assert_eq!(last.body_text(), format!("token={}&client_id={client}", encoded(&token)));
    assert!(!last.has("authorization"));
    assert_eq!(rig.tokens.verdict(&token), Verdict::Revoked);
    let daemon = rig.started(&credential).await;
    assert_eq!(daemon.get("/again").await.status, 200);
    assert_eq!(rig.api.unauthorized(), 0, "a revoked token must not come out of the store");
    rig.finish(daemon, &idp);
}

#[tokio::test(flavor = "multi_thread")]
async fn s_e8_a_revocation_that_fails_is_a_log_line() {
    let rig = Rig::new();
    let idp = Servicemax::start(Tls::Off, &rig.tokens);
    let client = idp.add_client();
    let refresh_token = idp.issue_refresh_token(&client);
    let credential =
        format!("{}revoke_on_shutdown = true\n", written(&rig, &idp, &client, &refresh_token));
    let daemon = rig.started(&credential).await;
    idp.set_down(true);
    daemon.signal("TERM");
    daemon.wait_for_log("not revoked");
    assert!(daemon.stop().success());
}

//! Keys, assertions, proofs and tokens that are passed on: none of them gets out, although the
//! identity provider quotes what it was sent and much goes wrong.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use emulator::Reply;
use serde_json::json;

use super::assertions::key;
use super::{Told, token};
use crate::canary::found;
use crate::support::{Daemon, eventually};
use crate::vendors::Rig;

/// Everything that anybody can look at.
async fn shown(daemon: &Daemon) -> String {
    let mut all = daemon.logs();
    for path in ["/metrics", "/status", "/", "/readyz"] {
        all += &daemon.admin(path).await.text();
    }
    all + &daemon.get("/orders").await.text()
}

/// What of a request must stay between bearerd and its server.
fn secrets_in(idp: &Told) -> Vec<String> {
    let mut secrets = Vec::new();
    for request in idp.asked() {
        let form = request.form();
        let fields = ["client_assertion", "assertion", "subject_token", "actor_token"];
        secrets.extend(fields.iter().filter_map(|field| form.value(field)).map(str::to_owned));
        secrets.extend(request.header("dpop"));
    }
    secrets
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_signed_or_passed_on_stays_between_the_two() {
    let (pem, _) = key();
    let subject = "canary-Subject.Token+R5t8YhN3vC6d/Hx4Gd7Fs2Jp9";
    for (lines, kinds) in [
        (
            "grant = \"client_credentials\"\nclient_auth = \"private_key_jwt\"\n\
             private_key = KEY\ndpop = true\n",
            2,
        ),
        ("grant = \"jwt_bearer\"\nprivate_key = KEY\n", 1),
        (
            "grant = \"token_exchange\"\nsubject = SUBJECT\nactor = SUBJECT\n\
             client_auth = \"none\"\n",
            2,
        ),
        (
            "grant = \"client_credentials\"\nclient_auth = \"assertion_file\"\n\
             assertion_file = FILE\n",
            1,
        ),
    ] {
        let rig = Rig::new();
        rig.tokens.issue("granted", None);
        let refuses = std::sync::Arc::new(AtomicBool::new(false));
        let refusing = std::sync::Arc::clone(&refuses);
        let idp = Told::start(move |request| {
            if !refusing.load(Relaxed) {
                return token("granted", 600);
            }
            let quoted = request.body_text();
            let body = json!({ "error": quoted, "error_description": quoted });
            Reply::json(400, body).header("X-Echo", quoted)
        });
        let file = rig.home.write("file", subject);
        let lines = lines
            .replace("KEY", &rig.secret("key.pem", &pem))
            .replace("SUBJECT", &rig.secret("subject", subject))
            .replace("FILE", &format!("\"{file}\""));
        let endpoint = idp.url("/token");
        let daemon =
            rig.started(&format!("token_url = \"{endpoint}\"\nclient_id = \"c\"\n{lines}")).await;
        refuses.store(true, Relaxed);
        rig.refresh_now(&daemon).await;
        eventually("refused", async || {
            daemon.status().await["credentials"][0]["activity"] == "refused"
        })
        .await;
        let secrets = secrets_in(&idp);
        assert_eq!(secrets.len(), 2 * kinds, "{lines}: {secrets:?}");
        let shown = shown(&daemon).await;
        assert!(shown.contains("token refreshed") && shown.contains("refresh failed"));
        let inside: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        for secret in secrets.iter().chain([&inside]) {
            // Headers of JWTs are alike and no secret: what counts is the rest.
            let secret = secret.split_once('.').map_or(secret.as_str(), |(_, rest)| rest);
            assert_eq!(found(&shown, secret), None, "{lines}");
        }
        assert!(daemon.stop().success());
    }
}

//! Bad and odd answers of token endpoints, all through the one parser and all at once: one credential
//! for each. A refresh meets the answer while a usable token is held. Afterwards the process lives,
//! the outcome is counted, the token that should be in force is, and nothing of the answer is told.

mod rows;

use std::collections::HashSet;
use std::fmt::Write;
use std::sync::{Arc, Mutex};

use emulator::Reply;

use super::{Told, token};
use crate::stage::together;
use crate::support::{DEADLINE, Daemon, Home, eventually, request};
use rows::{Row, rows};

/// In every token and in every answer: it must come out nowhere.
const CANARY: &str = "canary-Zq8Wn3Lk5Vt0";

/// What an answer must lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Ok,
    Transient,
    Terminal,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Transient => "transient",
            Self::Terminal => "terminal",
        }
    }
}

/// The number at the end of a path.
fn number(path: &str) -> usize {
    path.rsplit('/').next().and_then(|number| number.parse().ok()).expect("a number")
}

/// A token endpoint for each row: a good token at first, then the row's answer.
fn endpoints(rows: Arc<Vec<Row>>) -> Told {
    let begun = Mutex::new(HashSet::new());
    Told::start(move |request| {
        let index = number(request.path());
        match begun.lock().unwrap().insert(index) {
            true => token(&format!("{CANARY}-held-{index}"), 3600),
            false => rows[index].reply.clone(),
        }
    })
}

/// An API that refuses each held token once, and says which kind of token it accepted.
fn api() -> Told {
    let refused = Mutex::new(HashSet::new());
    Told::start(move |request| {
        let sent = request.header("authorization").unwrap_or_default();
        let index = number(request.path());
        if sent == format!("Bearer {CANARY}-held-{index}") {
            return match refused.lock().unwrap().insert(index) {
                true => Reply::status(401),
                false => Reply::bytes(200, "text/plain", "held"),
            };
        }
        match sent == format!("Bearer {CANARY}-new-{index}") {
            true => Reply::bytes(200, "text/plain", "new"),
            false => Reply::status(403),
        }
    })
}

fn configuration(count: usize, idp: &Told, api: &Told, secret: &str) -> String {
    let mut text = "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n".to_owned();
    for index in 0..count {
        let _ = write!(
            text,
            "[credentials.c{index}]\ngrant = \"client_credentials\"\ntoken_url = \"{}\"\n\
             client_id = \"c\"\nclient_secret = {{ file = \"{secret}\" }}\n\
             [[routes]]\npath_prefix = \"/r/{index}\"\nupstream = \"{}\"\n\
             credential = \"c{index}\"\nwait_ms = 15000\n",
            idp.url(&format!("/token/{index}")),
            api.url("")
        );
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_ends_the_process_drops_a_usable_token_or_shows_itself() {
    let rows = Arc::new(rows());
    assert!(rows.len() >= 100, "{} rows", rows.len());
    let (home, idp, api) = (Home::new(), endpoints(Arc::clone(&rows)), api());
    let secret = home.write("secret", &format!("{CANARY}-secret"));
    let config = configuration(rows.len(), &idp, &api, &secret);
    let daemon = Daemon::start_with(&home, &config);
    daemon.ready().await;

    // Each refresh meets its row: the API refuses the held token once.
    let proxy = daemon.proxy;
    let answers = together(rows.len(), |index| async move {
        (index, request(proxy, "GET", &format!("/r/{index}"), &[], b"").await)
    });
    let mut seen: Vec<String> = Vec::new();
    for (index, answer) in answers.await {
        let row = &rows[index];
        let expected = if row.outcome == Outcome::Ok { 200 } else { 401 };
        assert_eq!(answer.status, expected, "{}: {}", row.name, answer.text());
        seen.push(format!("{:?} {}", answer.head, answer.text()));
    }

    // It is counted, told in closed words, and the right token is in force.
    let metrics = daemon.admin("/metrics").await.text();
    let status = daemon.status().await;
    for (index, row) in rows.iter().enumerate() {
        let series = format!(
            "bearerd_token_fetches_total{{credential=\"c{index}\",outcome=\"{}\",\
             trigger=\"unauthorized\"}} 1",
            row.outcome.word()
        );
        assert!(metrics.contains(&series), "{}: {series} not in the metrics", row.name);
        let credential = &status["credentials"][index];
        assert_eq!(credential["last"]["outcome"], row.outcome.word(), "{}: {credential}", row.name);
        let told = credential["last"]["detail"].as_str().unwrap_or_default();
        assert!(told.contains(row.told), "{}: {told:?} without {:?}", row.name, row.told);
        let generation = if row.outcome == Outcome::Ok { 2 } else { 1 };
        assert_eq!(credential["generation"], generation, "{}", row.name);
        assert_eq!(credential["phase"], "fresh", "{}", row.name);
    }
    for (index, row) in rows.iter().enumerate() {
        let answer = daemon.get(&format!("/r/{index}")).await;
        let token = if row.outcome == Outcome::Ok { "new" } else { "held" };
        assert_eq!((answer.status, answer.text().as_str()), (200, token), "{}", row.name);
    }

    for path in ["/metrics", "/status", "/", "/readyz"] {
        seen.push(daemon.admin(path).await.text());
    }
    seen.push(daemon.logs());
    let shown = seen.iter().find_map(|text| text.lines().find(|line| line.contains("Zq8Wn3Lk5")));
    assert_eq!(shown, None);
    eventually("still serving", async || daemon.admin("/livez").await.status == 200).await;
    assert!(daemon.stop().success(), "within {DEADLINE:?}");
}

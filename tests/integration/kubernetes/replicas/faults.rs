//! Whatever goes wrong between the replicas and the API server during a refresh: one request to the
//! provider, nothing lost, and everybody has the new token.

use super::*;
use emulator::Reply;
use emulator::kubernetes::{Verb, etcd_timeout, timeout, too_many_requests};

/// Rounds with each fault; `BEARERD_TEST_ROUNDS` asks for more.
fn rounds() -> u32 {
    std::env::var("BEARERD_TEST_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(2)
}

/// A fault, by the words of the table in ARCHITECTURE.md, and how it comes about.
type Fault = (&'static str, fn(&mut Bed));

fn script(bed: &Bed, verb: Verb, steps: &[Step]) {
    bed.stage.cluster.script(verb, steps.to_vec());
}

/// Other writers of the same object.
fn meddle(bed: &Bed) {
    bed.stage.cluster.change_secret(NAMESPACE, SECRET, |secret| {
        let times = secret["metadata"]["labels"]["times"].as_str().unwrap_or("0");
        let times = (times.parse::<u32>().unwrap() + 1).to_string();
        secret["metadata"]["labels"]["times"] = times.into();
    });
}

const FAULTS: [Fault; 14] = [
    ("somebody else changes the Secret (409)", |bed| meddle(bed)),
    ("429 to a read and to a write", |bed| {
        script(bed, Verb::Get, &[Step::from(too_many_requests("1"))]);
        script(bed, Verb::Update, &[Step::Normal, Step::from(too_many_requests("1"))]);
    }),
    ("intent: answer lost after the commit", |bed| {
        script(bed, Verb::Update, &[Step::LostAnswer]);
    }),
    ("intent: lost before the commit", |bed| script(bed, Verb::Update, &[Step::Reset])),
    ("tokens: answer lost after the commit", |bed| {
        script(bed, Verb::Update, &[Step::Normal, Step::LostAnswer]);
    }),
    ("tokens: answer cut after the commit", |bed| {
        script(bed, Verb::Update, &[Step::Normal, Step::Cut]);
    }),
    ("tokens: lost before the commit, twice", |bed| {
        script(bed, Verb::Update, &[Step::Normal, Step::Close, Step::Reset]);
    }),
    ("tokens: 500 of etcd, 504, 502 after the commit", |bed| {
        let instead = |reply| Step::instead(reply);
        let steps = [etcd_timeout(), timeout(), Reply::html(502)].map(instead);
        script(bed, Verb::Update, &[&[Step::Normal], steps.as_slice()].concat());
    }),
    ("tokens: 500 of etcd, 504, 503 before the commit", |bed| {
        let steps = [etcd_timeout(), timeout(), Reply::status(503)].map(Step::from);
        script(bed, Verb::Update, &[&[Step::Normal], steps.as_slice()].concat());
    }),
    ("tokens: written late, after our deadline", |bed| {
        let late = Step::SlowAnswer(Duration::from_secs(3));
        script(bed, Verb::Update, &[Step::Normal, late]);
    }),
    ("watches cut", |bed| bed.stage.cluster.cut_watches()),
    ("watches expired (410)", |bed| bed.stage.cluster.expire_watches()),
    ("watches cut, and expired at the next beginning (410)", |bed| {
        bed.stage.cluster.cut_watches();
        bed.stage.cluster.compact();
    }),
    ("service account's token replaced (401)", |bed| bed.stage.rotate()),
];

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_of_the_api_server_loses_a_refresh_token() {
    let mut bed = Bed::new();
    let mut row = String::new();
    for (name, fault) in FAULTS {
        let mut replicas = Vec::new();
        for round in 0..rounds() {
            let turn = round as usize % 3;
            if turn == 0 {
                // New ones: to those whose fresh tokens are refused again and again it is a storm.
                replicas = bed.replicas(3).await;
            }
            let replica = &replicas[turn];
            fault(&mut bed);
            let fetched = bed.idp.token_requests();
            bed.refresh(replica).await;
            eventually("settled", async || {
                bed.holds_newest() && bed.document()["intent"].is_null()
            })
            .await;
            bed.all_serve(&replicas).await;
            assert_eq!(bed.idp.token_requests(), fetched + 1, "{name}, round {round}");
            assert!(bed.idp.family_alive(), "{name}, round {round}: lost");
        }
        row += &format!("| {name} | {} | 0 |\n", rounds());
    }
    println!("{row}");
    assert_eq!(bed.stage.cluster.steps_left(Verb::Update), 0);
    bed.unharmed();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_others_write_all_the_time_a_refresh_gets_through() {
    let bed = Bed::new();
    let replicas = bed.replicas(2).await;
    let writing = async {
        for _ in 0..60 {
            meddle(&bed);
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    };
    let refreshing = async {
        for _ in 0..2 {
            bed.refresh(&replicas[0]).await;
            bed.refresh(&replicas[1]).await;
        }
    };
    tokio::join!(writing, refreshing);
    eventually("settled", async || bed.holds_newest()).await;
    bed.all_serve(&replicas).await;
    assert_eq!(bed.stage.object()["metadata"]["labels"]["times"], "60");
    bed.unharmed();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_api_server_the_token_goes_on_and_nobody_refreshes_on_his_own() {
    let bed = Bed::new();
    bed.idp.set_lifetime(Duration::from_secs(8));
    let replicas = bed.replicas(3).await;
    bed.stage.cluster.set_down(true);
    let fetched = bed.idp.token_requests();
    let ended = tokio::time::Instant::now() + Duration::from_secs(5);
    while tokio::time::Instant::now() < ended {
        for replica in &replicas {
            assert_eq!(replica.get("/").await.status, 200);
        }
    }
    for replica in &replicas {
        told(replica, "cannot be reached").await;
    }
    assert_eq!(bed.idp.token_requests(), fetched, "somebody refreshed on his own");
    bed.stage.cluster.set_down(false);
    for replica in &replicas {
        eventually("served", async || replica.get("/").await.status == 200).await;
        replica.wait_for_log("token store available again");
    }
    eventually("settled", async || bed.holds_newest()).await;
    bed.unharmed();
}

#[tokio::test(flavor = "multi_thread")]
async fn new_tokens_that_cannot_be_written_are_used_kept_and_written_later() {
    let mut bed = Bed::new();
    bed.options = "deadline_seconds = 15".to_owned();
    let replicas = bed.replicas(2).await;
    bed.idp.script([Step::SlowAnswer(Duration::from_secs(1))]);
    bed.api.script([Step::Status(401)]);
    let asked = bed.idp.token_requests();
    let proxy = replicas[0].proxy;
    let nudge = tokio::spawn(async move { request(proxy, "GET", "/nudge", &[], b"").await.status });
    bed.idp.wait_for_token_requests(asked + 1, DEADLINE).await.unwrap();
    // Between the intent and the answer.
    bed.stage.cluster.set_down(true);
    assert_eq!(nudge.await.unwrap(), 200, "the winner serves on");
    let unsynced = async || replicas[0].metric("bearerd_store_unsynced", &[]).await;
    eventually("unsynced", async || unsynced().await > 0.0).await;
    bed.stage.cluster.set_down(false);
    eventually("synced", async || unsynced().await == 0.0).await;
    assert!(bed.holds_newest());
    bed.all_serve(&replicas).await;
    assert_eq!(bed.idp.token_requests(), asked + 1);
    bed.unharmed();
}

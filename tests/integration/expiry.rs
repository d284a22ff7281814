//! A token that expires while its request is still on the way to the wire: judged again, replaced
//! or refused, never sent.

use std::time::Duration;

use emulator::client::Answer;
use emulator::{Api, Step, Tls};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::bodies::unauthorized;
use crate::stage::{Gate, Stage, route_to};
use crate::support::{DEADLINE, Daemon, eventually, request};

/// A stage whose API speaks TLS behind a gate: a connection stands at once, and its handshake waits
/// until the gate opens.
struct Slow {
    stage: Stage,
    api: Api,
    gate: Gate,
    route: String,
}

impl Slow {
    async fn new() -> Self {
        Self::that_waits(50).await
    }

    /// Its route waits so long for a token.
    async fn that_waits(milliseconds: u64) -> Self {
        let stage = Stage::new();
        let api = Api::start(Tls::self_signed(), &stage.tokens);
        let pem = api.server().certificate().expect("it speaks TLS").pem();
        let ca = stage.home.write("ca.pem", pem);
        let gate = Gate::before(api.server().address()).await;
        let more = format!(
            "tls = {{ ca_file = \"{ca}\" }}\nwait_ms = {milliseconds}\n\
             timeouts = {{ connect_ms = 60000 }}"
        );
        let route = route_to(&format!("https://{}", gate.address), &more);
        Self { stage, api, gate, route }
    }

    async fn ready(&self) -> Daemon {
        let daemon = Daemon::start(&self.stage.home, &(self.stage.credential("") + &self.route));
        daemon.ready().await;
        daemon
    }

    /// Opens the gate to who connects, and gives it time to find out that its token has expired.
    async fn let_through(&self) {
        let before = self.api.server().connections();
        self.gate.open();
        eventually("connected", async || self.api.server().connections() > before).await;
        sleep(Duration::from_secs(1)).await;
    }

    /// A request that has its token and waits for its connection, the next that the gate holds.
    async fn connecting(&self, daemon: &Daemon) -> JoinSet<Answer> {
        let (proxy, held) = (daemon.proxy, self.gate.connections());
        let asked = JoinSet::from_iter([async move { request(proxy, "GET", "/", &[], b"").await }]);
        eventually("it connects", async || self.gate.connections() > held).await;
        asked
    }
}

async fn expired(daemon: &Daemon) {
    eventually("the token has expired", async || daemon.admin("/readyz").await.status == 503).await;
}

async fn answer(asked: JoinSet<Answer>) -> Answer {
    asked.join_all().await.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_while_connecting_is_not_sent() {
    let slow = Slow::new().await;
    slow.stage.idp.set_lifetime(Duration::from_secs(3));
    let daemon = slow.ready().await;
    slow.stage.idp.set_down(true);
    let asked = slow.connecting(&daemon).await;
    expired(&daemon).await;
    slow.gate.open();
    let answer = answer(asked).await;
    assert_eq!((answer.status, answer.header("bearerd-reason")), (503, Some("token_unavailable")));
    assert!(answer.header("retry-after").is_some());
    assert_eq!(slow.api.request_count(), 0, "an expired token was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_while_connecting_is_replaced_by_the_current_one() {
    let slow = Slow::new().await;
    slow.stage.idp.set_lifetime(Duration::from_secs(3));
    let daemon = slow.ready().await;
    let first = slow.stage.tokens.latest().expect("a token");
    slow.stage.idp.set_lifetime(Duration::from_secs(3600));
    let asked = slow.connecting(&daemon).await;
    eventually("the first has expired", async || !slow.stage.tokens.is_live(&first)).await;
    daemon.ready().await;
    slow.gate.open();
    assert_eq!(answer(asked).await.status, 200);
    assert_eq!((slow.api.request_count(), slow.api.unauthorized()), (1, 0));
    assert_eq!(slow.stage.idp.token_requests(), 2, "a 401 was needed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_before_a_second_sending_is_not_sent() {
    let slow = Slow::new().await;
    slow.stage.idp.set_lifetime(Duration::from_secs(4));
    slow.gate.open();
    let daemon = slow.ready().await;
    slow.stage.idp.set_down(true);
    assert_eq!(daemon.get("/").await.status, 200);
    slow.gate.close();
    // The pooled connection ends under the request, which connects anew.
    slow.api.script([Step::Close]);
    let asked = slow.connecting(&daemon).await;
    slow.api.wait_for_requests(2, DEADLINE).await.expect("the first sending");
    expired(&daemon).await;
    slow.gate.open();
    let answer = answer(asked).await;
    assert_eq!((answer.status, answer.header("bearerd-reason")), (503, Some("token_unavailable")));
    assert_eq!(slow.api.request_count(), 2, "an expired token was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_token_expired_while_connecting_waits_for_the_next_one() {
    let slow = Slow::that_waits(60_000).await;
    slow.stage.idp.set_lifetime(Duration::from_secs(3));
    let daemon = slow.ready().await;
    slow.stage.idp.set_down(true);
    let asked = slow.connecting(&daemon).await;
    expired(&daemon).await;
    slow.let_through().await;
    slow.stage.idp.set_lifetime(Duration::from_secs(3600));
    slow.stage.idp.set_down(false);
    assert_eq!(answer(asked).await.status, 200);
    assert_eq!((slow.api.request_count(), slow.api.unauthorized()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_whose_token_expires_while_connecting_waits_or_the_first_answer_passes() {
    for (wait, status, outcome) in [(60_000, 200, "succeeded"), (1000, 401, "token_unavailable")] {
        let slow = Slow::that_waits(wait).await;
        slow.gate.open();
        let daemon = slow.ready().await;
        assert_eq!(daemon.get("/").await.status, 200);
        slow.gate.close();
        // One token more, which does not live long.
        slow.stage.idp.set_lifetime(Duration::from_secs(4));
        slow.stage.idp.script([Step::Normal]);
        slow.stage.idp.set_always(Some(Step::Status(503)));
        // The replay needs a connection of its own.
        slow.api.script([Step::from(unauthorized().header("Connection", "close"))]);
        let asked = slow.connecting(&daemon).await;
        expired(&daemon).await;
        slow.let_through().await;
        if status == 200 {
            slow.stage.idp.set_lifetime(Duration::from_secs(3600));
            slow.stage.idp.set_always(None);
        }
        let answer = answer(asked).await;
        assert_eq!((answer.status, answer.header("bearerd-reason")), (status, None));
        let challenge = (status == 401).then_some("Bearer error=\"invalid_token\"");
        assert_eq!(answer.header("www-authenticate"), challenge);
        let label = format!("outcome=\"{outcome}\"");
        assert_eq!(daemon.metric("bearerd_replays_total", &[&label]).await as u64, 1);
        assert_eq!(daemon.metric("bearerd_replays_total", &[]).await as u64, 1);
    }
}

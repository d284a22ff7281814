//! Who waits for a new connection while places on the ones that are there become free.

use emulator::client::Client;
use tokio::time::timeout;

use super::{GET, Upstream, answer};
use crate::stage::{Gate, Stage, route_to};
use crate::support::{DEADLINE, Daemon, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_connection_takes_a_place_that_becomes_free_on_another_one() {
    /// So many that none can have waited for anything but a place.
    const WAITING: usize = 200;
    let (stage, mut upstream) = (Stage::new(), Upstream::allowing(1).await);
    let gate = Gate::before(upstream.address).await;
    gate.open();
    // Nobody may be saved by the end of that time.
    let more = "http2 = true\ntimeouts = { connect_ms = 600_000 }";
    let route = route_to(&gate.url(""), more);
    let daemon = Daemon::start(&stage.home, &(stage.credential("") + &route));
    daemon.ready().await;
    let mut first = super::caller(&daemon, GET).await;
    let asked = upstream.asked().await;
    // From now on there is no other connection to be had.
    gate.close();
    let mut others: Vec<Client> = Vec::new();
    for _ in 0..WAITING {
        others.push(super::caller(&daemon, GET).await);
    }
    eventually("all wait", async || {
        let waiting = daemon.metric("bearerd_requests_in_flight", &[]).await as usize;
        waiting == 1 + WAITING && gate.connections() == 2
    })
    .await;
    asked.ok("first");
    assert_eq!(answer(&mut first).await.text(), "first");
    let serving = async {
        for _ in 0..WAITING {
            let asked = upstream.asked().await;
            assert_eq!(asked.connection, 0);
            asked.ok("waited");
        }
    };
    timeout(DEADLINE, serving).await.expect("one after the other");
    for caller in &mut others {
        let answer = answer(caller).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "waited"));
    }
}

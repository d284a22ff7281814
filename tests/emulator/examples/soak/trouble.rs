//! What goes wrong meanwhile, over and over.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use emulator::{Oauth2, Step};
use tokio::time::sleep;

use super::upstream::Upstream;

/// Between two kinds of trouble.
const PAUSE: Duration = Duration::from_secs(3);

/// Makes trouble for ever. None of it lasts for longer than a request may wait for a token.
pub async fn make(idp: &Oauth2, upstream: &Arc<Upstream>) -> Infallible {
    loop {
        sleep(PAUSE).await;
        idp.script([Step::Status(503), Step::Html(502)]);
        sleep(PAUSE).await;
        upstream.restart(Duration::from_millis(200)).await.expect("the port is ours");
        sleep(PAUSE).await;
        upstream.take_back();
        sleep(PAUSE).await;
        // Once at a time: after two in a row nobody knows any more whether the refresh token is spent.
        idp.script([Step::Close]);
        sleep(PAUSE).await;
        idp.script([Step::Garbage]);
        sleep(PAUSE).await;
        idp.script([Step::Delay(Duration::from_millis(700))]);
        sleep(PAUSE).await;
        idp.script([Step::Status(429).retry_after("1")]);
        sleep(PAUSE).await;
        idp.set_down(true);
        sleep(Duration::from_millis(800)).await;
        idp.set_down(false);
    }
}

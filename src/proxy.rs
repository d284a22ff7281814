//! One request, top to bottom.
//!
//! `route` lets it in, the credential gives a token, `hop` strips, `inject` sets, `upstream` sends,
//! `replay` sends again if the token was refused, `relay` passes the answer down. A refusal at any
//! step goes through `reject`. A request never fetches a token: it looks, or waits for the writer.

use std::future::Future;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::Instant;

mod challenge;
mod connection;
mod exchange;
mod gate;
pub mod hop;
pub mod inject;
pub mod listener;
pub mod reject;
mod relay;
pub mod replay;
pub mod route;
pub mod upstream;
mod watchdog;

use exchange::Exchange;
use reject::Reason;
use relay::Downstream;
use route::Routes;
use watchdog::Watchdog;

/// Answers one request.
///
/// What needs no waiting is done before the future is made, up to and including the sending on a
/// pooled connection. So the future holds no request, is small, and costs little to move: there is
/// one in every open connection.
pub fn handle(
    routes: Arc<Routes>,
    watchdog: Arc<Watchdog>,
    request: Request<Incoming>,
) -> impl Future<Output = Response<Downstream>> + Send {
    let begun =
        Exchange::begin(routes, watchdog, request).map(|(exchange, request)| {
            match exchange.pooled() {
                Some(lease) => (exchange, Some(lease.start(request)), None),
                None => (exchange, None, Some(Box::new(request))),
            }
        });
    async move {
        let (mut exchange, started, waiting) = match begun {
            Ok(begun) => begun,
            Err(refusal) => return *refusal,
        };
        let answered = match (started, waiting) {
            (Some((lease, response)), _) => exchange.head(lease, response).await,
            // From here on what is rare is boxed, or every request would have room for it.
            (None, Some(request)) => Box::pin(exchange.send_when_possible(request)).await,
            (None, None) => Err(Reason::UpstreamProtocol),
        };
        let answered = match answered {
            Ok((response, lease)) if exchange.is_refused(&response) => {
                Box::pin(exchange.replay(response, lease)).await
            }
            answered => answered,
        };
        match answered {
            Ok((response, lease)) => exchange.relay(response, lease),
            Err(reason) => exchange.refuse(reason),
        }
    }
}

/// What every worker does now and then: close what has been idle for too long.
pub fn sweep(now: Instant) {
    upstream::sweep(now);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, C, F>(_: fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// Every open connection has room for one, idle or not, and every request moves it.
    #[test]
    fn the_future_of_a_request_is_small() {
        let size = size_of_future(handle);
        assert!(size <= 1000, "{size} bytes");
    }
}

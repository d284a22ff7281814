//! One request, top to bottom.
//!
//! `route` lets it in, the credential gives a token, `hop` strips, `inject` sets, `upstream` sends,
//! `replay` sends again if the token was refused, `relay` passes the answer down. A refusal at any
//! step goes through `reject`. A request never fetches a token: it looks, or waits for the writer.

use std::future::Future;
use std::sync::Arc;

use http::{Request, Response};
use tokio::time::Instant;

mod alarm;
pub mod budget;
pub mod challenge;
mod connection;
mod exchange;
pub mod footprint;
pub mod hop;
mod http1;
mod inbound;
pub mod inject;
pub mod key;
mod lane;
pub mod listener;
mod prefixed;
pub mod reject;
mod relay;
pub mod replay;
pub mod route;
mod tunnel;
mod turns;
pub mod upstream;
mod watchdog;
mod websocket;
mod wire;

use exchange::Exchange;
use inbound::Inbound;
use relay::Downstream;
use replay::Outbound;
use route::Routes;
use upstream::Call;
use wire::Wire;

/// Answers one request.
///
/// What needs no waiting is done before the future is made. So the future holds no request, is
/// small, and costs little to move: there is one in every open connection.
pub fn handle(
    routes: Arc<Routes>,
    wire: Arc<Wire>,
    request: Request<Inbound>,
) -> impl Future<Output = Response<Downstream>> + Send {
    let begun = Exchange::begin(routes, wire, request).map(|(mut exchange, body)| {
        match exchange.pooled() {
            Some(lease) => Started::Calling(exchange.start(lease, body), exchange),
            None => Started::Waiting(Box::new(body), exchange),
        }
    });
    async move {
        let (mut exchange, answered) = match begun {
            Ok(Started::Calling(call, mut exchange)) => {
                let answered = exchange.head(call).await;
                (exchange, answered)
            }
            // From here on what is rare is boxed, or every request would have room for it.
            Ok(Started::Waiting(body, mut exchange)) => {
                let answered = Box::pin(exchange.send_when_possible(*body)).await;
                (exchange, answered)
            }
            Err(refusal) => return *refusal,
        };
        let answered = match answered {
            Ok((head, call)) if exchange.is_refused(&head) => {
                Box::pin(exchange.replay(head, call)).await
            }
            answered => answered,
        };
        match answered {
            Ok((head, call)) => exchange.relay(head, call),
            Err(reason) => exchange.refuse(reason),
        }
    }
}

/// A request that was let in.
enum Started {
    /// It is on a pooled connection already.
    Calling(Call, Box<Exchange>),
    /// It needs a token or a connection first.
    Waiting(Box<Outbound>, Box<Exchange>),
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

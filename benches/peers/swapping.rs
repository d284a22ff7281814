//! The data plane alone, with a token that is swapped as often as told: much more often than any
//! identity provider would, and than the refresher would ask one.
//!
//! Route, limits and listener come from a configuration like `bearerd run`'s, and the worker is the
//! same. In the refresher's place a thread publishes another token of the same size at a fixed
//! interval and counts them aloud, or there is the first one only.

use std::error::Error;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bearerd::clock::Moment;
use bearerd::config::{self, Config};
use bearerd::credential::{Credential, Publisher, publish};
use bearerd::dial::Peer;
use bearerd::metrics::Metrics;
use bearerd::proxy::budget::Budget;
use bearerd::proxy::listener::{Bound, Worker};
use bearerd::proxy::reject::Reason;
use bearerd::proxy::route::{Route, Routes, own_hosts};
use bearerd::proxy::upstream::{Terms, Upstream};
use bearerd::secret::Secret;
use bearerd::token::AccessToken;
use http::HeaderValue;
use pingora_core::services::Service;
use tokio::sync::watch;

const TOKEN_BYTES: usize = 800;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, milliseconds] = arguments.as_slice() else {
        return Err("usage: swapping CONFIGURATION MILLISECONDS (0 = never)".into());
    };
    let interval = Duration::from_millis(milliseconds.parse()?);
    let config = config::load(path.as_ref())?;
    let (publisher, credential) = publish("token", 1024);
    swap(&publisher, 0)?;
    if !interval.is_zero() {
        thread::spawn(move || swap_every(interval, &publisher));
    }
    serve(&config, credential)
}

/// Publishes a token every `interval`, for ever.
#[allow(clippy::disallowed_methods)] // a thread of its own, outside any runtime
fn swap_every(interval: Duration, publisher: &Publisher) {
    loop {
        thread::sleep(interval);
        let number = publisher.generation();
        swap(publisher, number).expect("digits are a token");
        println!("{number}");
    }
}

/// Publishes the token with that number.
fn swap(publisher: &Publisher, number: u64) -> Result<(), Box<dyn Error>> {
    let text = format!("{number:0>TOKEN_BYTES$}");
    let life = Duration::from_hours(1);
    let token = AccessToken::new(Secret::new(text), Moment::now(), life)?;
    publisher.publish(&token, token.expires_at());
    Ok(())
}

/// One worker, on this thread.
fn serve(config: &Config, credential: Credential) -> Result<(), Box<dyn Error>> {
    let bound = config.server.listen.iter().map(|listen| Bound::bind(listen, false));
    let listeners = bound.collect::<Result<Vec<_>, _>>()?;
    let (_routes, seen) = watch::channel(Arc::new(routes(config, credential)?));
    let (_shutdown, shutdown) = watch::channel(false);
    let mut worker = Worker::new(0, &listeners, seen, Arc::default(), Arc::default())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(worker.start_service(None, shutdown, 1));
    Ok(())
}

fn routes(config: &Config, credential: Credential) -> Result<Routes, Box<dyn Error>> {
    let metrics = Metrics::new()?;
    let route = config.routes.first().ok_or("a route is needed")?.clone();
    let peer = Peer::new(route.upstream.address.clone(), None);
    let terms = Terms {
        http2: route.upstream.http2,
        connect_timeout: route.timeouts.connect,
        max_age: route.upstream.max_age,
    };
    let limits = config.server.limits;
    Ok(Routes {
        hosts: own_hosts(&[]),
        via: HeaderValue::from_static("1.1 bearerd-00000000"),
        via_http10: HeaderValue::from_static("1.0 bearerd-00000000"),
        pseudonym: "bearerd-00000000".to_owned(),
        limits,
        keys: None,
        peer_uids: Vec::new(),
        tls: None,
        copies: Arc::new(Budget::new(limits.replay_bytes)),
        http2_requests: Arc::new(Budget::new(limits.http2_requests)),
        refused: Reason::WORDS.map(|word| metrics.refused(word)),
        routes: vec![Arc::new(Route {
            upstream: Arc::new(Upstream::new(&peer, terms)),
            authority: HeaderValue::from_str(&route.upstream.authority)?,
            metrics: metrics.route(&route.name),
            credential_metrics: metrics.credential(&route.credential),
            credential,
            config: route,
        })],
    })
}

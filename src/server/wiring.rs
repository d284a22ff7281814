//! Wires routes to their upstreams, credentials and metrics.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use thiserror::Error;

use crate::config::{Config, RouteConfig, UpstreamConfig};
use crate::credential::Credential;
use crate::dial::{Address, Peer};
use crate::metrics::{Metrics, RouteMetrics};
use crate::proxy::budget::Budget;
use crate::proxy::key::CallerKeys;
use crate::proxy::reject::Reason;
use crate::proxy::route::{Route, Routes, own_hosts};
use crate::proxy::upstream::{Terms, Upstream};
use crate::secret::{Fingerprint, SecretError};
use crate::tls::{self, TlsError, TlsSettings};

/// Why routes could not be wired.
#[derive(Debug, Error)]
pub enum WiringError {
    /// TLS files changed since they were checked.
    #[error("route {route}: TLS towards the upstream cannot be set up")]
    Tls {
        /// The route.
        route: String,
        /// Why.
        source: TlsError,
    },
    /// The same, for the listeners.
    #[error("server.tls: TLS towards callers cannot be set up")]
    Listeners(#[source] TlsError),
    /// Likewise.
    #[error("server.key: the key cannot be read")]
    Key(#[source] SecretError),
    /// The upstream's host cannot be verified or sent.
    #[error("route {0}: the upstream's host is no name that could be sent or verified")]
    Name(String),
}

/// What is kept over reloads: pools stay warm and counters go on.
pub(super) struct Wiring {
    metrics: Arc<Metrics>,
    addresses: Vec<std::net::SocketAddr>,
    pseudonym: String,
    upstreams: HashMap<UpstreamKey, Arc<Upstream>>,
    route_metrics: HashMap<String, Arc<RouteMetrics>>,
    /// Copies that are kept while the configuration changes count on.
    copies: Arc<Budget>,
    /// So do requests.
    http2_requests: Arc<Budget>,
}

/// The same peer, verified with the same files, connected to in the same time.
#[derive(PartialEq, Eq, Hash, Clone)]
struct UpstreamKey(String, Duration);

impl Wiring {
    /// For a process that listens on `addresses`.
    #[must_use]
    pub(super) fn new(metrics: Arc<Metrics>, addresses: Vec<std::net::SocketAddr>) -> Self {
        // Unlike that of any other process, or two sidecars in a row would look like a loop.
        let pseudonym = format!("bearerd-{:08x}", fastrand::u32(..));
        let (upstreams, route_metrics) = (HashMap::new(), HashMap::new());
        let [copies, http2_requests] = [0; 2].map(|none| Arc::new(Budget::new(none)));
        Self { metrics, addresses, pseudonym, upstreams, route_metrics, copies, http2_requests }
    }

    /// What of `config` can fail, before anything is touched.
    ///
    /// # Errors
    /// [`WiringError`].
    pub(super) fn prepare(&self, config: &Config) -> Result<Prepared, WiringError> {
        let tls = config.server.tls.as_ref().map(tls::server).transpose();
        let tls = tls.map_err(WiringError::Listeners)?;
        let keys = config.server.key.as_ref().map(CallerKeys::read).transpose();
        let keys = keys.map_err(WiringError::Key)?;
        let mut prepared: Vec<PreparedRoute> = Vec::new();
        for route in &config.routes {
            let upstream = &route.upstream;
            let terms = Terms {
                http2: upstream.http2,
                connect_timeout: route.timeouts.connect,
                max_age: upstream.max_age,
            };
            let key = key(upstream, route.timeouts.connect);
            let here = prepared.iter().find(|earlier| earlier.key == key);
            let upstream = match self.upstreams.get(&key).or(here.map(|here| &here.upstream)) {
                Some(upstream) => Arc::clone(upstream),
                None => Arc::new(Upstream::new(&peer(route)?, terms)),
            };
            let authority = HeaderValue::from_str(&route.upstream.authority)
                .map_err(|_| WiringError::Name(route.name.clone()))?;
            prepared.push(PreparedRoute { key, upstream, authority });
        }
        Ok(Prepared { routes: prepared, tls, keys })
    }

    /// The routes of `config`, from what was prepared for it.
    pub(super) fn routes(
        &mut self,
        config: &Config,
        prepared: Prepared,
        credentials: &[Credential],
    ) -> Routes {
        self.upstreams.clear();
        let mut routes = Vec::new();
        for (route, prepared) in config.routes.iter().zip(prepared.routes) {
            let PreparedRoute { key, upstream, authority } = prepared;
            self.upstreams.insert(key, Arc::clone(&upstream));
            let credential = credentials.iter().find(|c| c.name() == route.credential);
            // The configuration was checked to name credentials that it has.
            let Some(credential) = credential else {
                continue;
            };
            let metrics = self.route_metrics.entry(route.name.clone());
            let metrics = metrics.or_insert_with(|| self.metrics.route(&route.name));
            routes.push(Arc::new(Route {
                config: route.clone(),
                credential: credential.clone(),
                upstream,
                authority,
                metrics: Arc::clone(metrics),
                credential_metrics: self.metrics.credential(&route.credential),
            }));
        }
        self.copies.resize(config.server.limits.replay_bytes);
        self.http2_requests.resize(config.server.limits.http2_requests);
        let mut hosts = own_hosts(&self.addresses);
        hosts.extend(config.server.allowed_hosts.iter().cloned());
        Routes {
            routes,
            hosts,
            via: self.via("1.1"),
            via_http10: self.via("1.0"),
            pseudonym: self.pseudonym.clone(),
            limits: config.server.limits,
            peer_uids: config.server.peer_uids.clone(),
            keys: prepared.keys,
            tls: prepared.tls,
            copies: Arc::clone(&self.copies),
            http2_requests: Arc::clone(&self.http2_requests),
            refused: Reason::WORDS.map(|word| self.metrics.refused(word)),
        }
    }

    fn via(&self, version: &str) -> HeaderValue {
        HeaderValue::from_str(&format!("{version} {}", self.pseudonym))
            .unwrap_or(HeaderValue::from_static("1.1 bearerd"))
    }
}

/// Everything that could fail, and did not.
pub(super) struct Prepared {
    /// One entry a route.
    routes: Vec<PreparedRoute>,
    /// What callers have to show.
    keys: Option<CallerKeys>,
    /// For TLS listeners.
    tls: Option<Arc<rustls::ServerConfig>>,
}

/// One route's upstream, reachable as far as can be told without connecting.
struct PreparedRoute {
    key: UpstreamKey,
    upstream: Arc<Upstream>,
    authority: HeaderValue,
}

fn key(upstream: &UpstreamConfig, connect: Duration) -> UpstreamKey {
    let files = upstream.tls.iter().flat_map(TlsSettings::files);
    let prints: Vec<String> = files.map(content).collect();
    UpstreamKey(format!("{upstream:?} {prints:?}"), connect)
}

fn content(path: &PathBuf) -> String {
    std::fs::read(path).map_or(String::new(), |content| Fingerprint::of(&content).to_hex())
}

fn peer(route: &RouteConfig) -> Result<Peer, WiringError> {
    let upstream = &route.upstream;
    let tls = match (&upstream.tls, &upstream.address) {
        (Some(settings), Address::Tcp(host, _)) => {
            let name = settings.server_name.clone().unwrap_or_else(|| host.clone());
            let name = name.try_into().map_err(|_| WiringError::Name(route.name.clone()))?;
            let config = tls::client(settings)
                .map_err(|source| WiringError::Tls { route: route.name.clone(), source })?;
            Some((config, name))
        }
        _ => None,
    };
    Ok(Peer::new(upstream.address.clone(), tls))
}

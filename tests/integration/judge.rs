//! An API that has every presented token judged by the authorization server itself, by introspection
//! (RFC 7662).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use emulator::http::{Exchange, Handler, Reply, Work};
use serde_json::Value;

use crate::support::request;

/// The API, and what it was told.
pub struct Judge {
    server: SocketAddr,
    path: String,
    authorization: String,
    pub accepted: AtomicU64,
    pub refused: AtomicU64,
}

impl Judge {
    /// Asks at `url`, on loopback, as the client `id:secret`.
    pub fn at(url: &str, client: &str) -> Arc<Self> {
        let (authority, path) = url
            .strip_prefix("http://")
            .and_then(|rest| rest.split_once('/'))
            .expect("a URL with a path");
        Arc::new(Self {
            server: authority.parse().expect("an address"),
            path: format!("/{path}"),
            authorization: format!("Basic {}", BASE64_STANDARD.encode(client)),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// Whether the server says that `token` is active.
    pub async fn is_active(&self, token: &str) -> bool {
        self.introspect(token).await["active"] == true
    }

    /// All that the server says about `token`.
    pub async fn introspect(&self, token: &str) -> Value {
        let token: String = form_urlencoded::byte_serialize(token.as_bytes()).collect();
        let fields = [
            ("Authorization", self.authorization.as_str()),
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Accept", "application/json"),
        ];
        let form = format!("token={token}");
        let answer = request(self.server, "POST", &self.path, &fields, form.as_bytes()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }
}

impl Handler for Judge {
    fn handle<'a>(&'a self, exchange: &'a mut Exchange) -> Work<'a> {
        Box::pin(async move {
            let recorded = exchange.body().await?;
            let fields = recorded.headers("authorization");
            let token = match fields.as_slice() {
                [one] => one.strip_prefix(b"Bearer ").unwrap_or_default(),
                _ => b"",
            };
            if self.is_active(&String::from_utf8_lossy(token)).await {
                self.accepted.fetch_add(1, Relaxed);
                return Ok(Reply::status(200));
            }
            self.refused.fetch_add(1, Relaxed);
            Ok(Reply::status(401).header("WWW-Authenticate", "Bearer error=\"invalid_token\""))
        })
    }
}

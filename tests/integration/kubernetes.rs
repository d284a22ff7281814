//! Tokens shared in a Secret, at an API server that conflicts, expires, throttles and loses answers as
//! a real one does.

mod register;
mod replicas;
mod watching;

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bearerd::store::shared::kubernetes::{Kubernetes as Store, Place};
use bearerd::store::shared::{Content, Register, Swapped, Version};
use emulator::Kubernetes as Cluster;
use serde_json::{Value, json};

use crate::support::Home;

const NAMESPACE: &str = "shop";
const SECRET: &str = "orders-tokens";

/// A cluster with one empty Secret, and a service account that may use it.
struct Stage {
    home: Home,
    cluster: Cluster,
    token: String,
}

impl Stage {
    fn new() -> Self {
        let (home, cluster) = (Home::new(), Cluster::start());
        cluster.create(secret());
        let token = cluster.allow(NAMESPACE, "orders", SECRET, &["get", "update", "watch"]);
        cluster.mount(&home.path("account"), NAMESPACE, &token).expect("a writable directory");
        Self { home, cluster, token }
    }

    fn place(&self) -> Place {
        let address = self.cluster.server().address();
        Place {
            namespace: NAMESPACE.to_owned(),
            secret: SECRET.to_owned(),
            server: Some((address.ip().to_string(), address.port())),
            account: self.home.path("account"),
        }
    }

    fn store(&self) -> Store {
        Store::new(self.place())
    }

    /// The object as the cluster holds it.
    fn object(&self) -> Value {
        self.cluster.secret(NAMESPACE, SECRET).expect("the Secret")
    }

    /// What lies under our key.
    fn held(&self) -> Option<String> {
        let value = self.object()["data"]["bearerd"].as_str()?.to_owned();
        Some(String::from_utf8(BASE64_STANDARD.decode(value).unwrap()).unwrap())
    }

    /// Replaces the token, as the kubelet does in time.
    fn rotate(&mut self) {
        self.cluster.revoke_token(&self.token);
        self.token = self.cluster.issue_token(NAMESPACE, "orders");
        let account = self.home.path("account");
        self.cluster.mount(&account, NAMESPACE, &self.token).expect("a writable directory");
    }

    fn finish(&self) {
        assert_eq!(self.cluster.violations(), Vec::<String>::new());
    }
}

/// With more in it than is ours.
fn secret() -> Value {
    json!({
        "kind": "Secret",
        "metadata": {
            "name": SECRET, "namespace": NAMESPACE,
            "labels": { "team": "a" }, "annotations": { "note": "kept \"as it is\" ✓" },
        },
        "data": { "other": "a2VwdA==" },
    })
}

fn content(text: &str) -> Content {
    Content::new(text.as_bytes().to_vec())
}

async fn version(store: &mut Store) -> Version {
    store.read().await.expect("the Secret").version
}

/// Writes over whatever is there, and returns the version.
async fn write(store: &mut Store, text: &str) -> Version {
    let expected = version(store).await;
    match store.swap(&expected, &content(text)).await {
        Ok(Swapped::Done(version)) => version,
        other => panic!("{other:?}"),
    }
}

/// Long for what comes at once, short for a test.
const SOON: Duration = Duration::from_secs(20);

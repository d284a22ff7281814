//! Pods pass through registered webhooks, in order, and again after a change.

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::{call, said};
use crate::http::{Exchange, Handler, Server, Work};
use crate::{Kubernetes, Reply, Tls, locked};

const PODS: &str = "POST /api/v1/namespaces/shop/pods";

/// A webhook that answers by a function of the pod, and remembers the reviews.
struct Webhook {
    reviews: Arc<Mutex<Vec<Value>>>,
    answer: fn(&Value) -> Value,
}

impl Handler for Webhook {
    fn handle<'a>(&'a self, exchange: &'a mut Exchange) -> Work<'a> {
        Box::pin(async move {
            let request = exchange.body().await?;
            assert_eq!(request.target, "/mutate?timeout=10s");
            let review: Value = serde_json::from_slice(&request.body)?;
            let mut response = (self.answer)(&review["request"]["object"]);
            response["uid"] = review["request"]["uid"].clone();
            let answer = json!({ "kind": "AdmissionReview", "apiVersion": review["apiVersion"],
                                 "response": response });
            locked(&self.reviews).push(review);
            Ok(Reply::json(200, answer))
        })
    }
}

struct Registered {
    _server: Server,
    reviews: Arc<Mutex<Vec<Value>>>,
}

impl Registered {
    fn new(cluster: &Kubernetes, name: &str, extra: &Value, answer: fn(&Value) -> Value) -> Self {
        let reviews = Arc::default();
        let webhook = Webhook { reviews: Arc::clone(&reviews), answer };
        let host = format!("{name}.hooks.svc");
        let server = Server::start(Arc::new(webhook), Tls::own_authority(&[&host]));
        cluster.route_service("hooks", name, server.address());
        let pem = server.certificate().unwrap().pem();
        let mut hook = json!({
            "name": format!("{name}.example.com"),
            "clientConfig": {
                "service": { "namespace": "hooks", "name": name, "path": "/mutate" },
                "caBundle": BASE64_STANDARD.encode(pem),
            },
            "rules": [{ "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"],
                        "operations": ["CREATE"] }],
            "sideEffects": "None", "admissionReviewVersions": ["v1"],
        });
        crate::step::merge(&mut hook, extra.clone());
        cluster.create(json!({
            "kind": "MutatingWebhookConfiguration", "metadata": { "name": name },
            "webhooks": [hook],
        }));
        Self { _server: server, reviews }
    }

    fn reviews(&self) -> Vec<Value> {
        locked(&self.reviews).clone()
    }
}

fn patch(operations: &Value) -> Value {
    let patch = BASE64_STANDARD.encode(operations.to_string());
    json!({ "allowed": true, "patchType": "JSONPatch", "patch": patch })
}

fn pod(labels: &Value) -> Value {
    json!({ "metadata": { "generateName": "web-", "labels": labels },
            "spec": { "containers": [{ "name": "app", "image": "app" }] } })
}

fn add_init(pod: &Value) -> Value {
    match pod["spec"]["initContainers"].is_array() {
        true => json!({ "allowed": true }),
        false => patch(&json!([{ "op": "add", "path": "/spec/initContainers",
                                 "value": [{ "name": "sidecar" }] }])),
    }
}

fn add_label(pod: &Value) -> Value {
    match pod["metadata"]["labels"]["seen"].is_string() {
        true => json!({ "allowed": true }),
        false => patch(&json!([{ "op": "add", "path": "/metadata/labels/seen", "value": "1" }])),
    }
}

#[tokio::test]
async fn webhooks_change_the_pod_in_order_and_are_asked_again_after_a_change() {
    let cluster = Kubernetes::start();
    let again = json!({ "reinvocationPolicy": "IfNeeded" });
    let first = Registered::new(&cluster, "a", &again, add_init);
    let second = Registered::new(&cluster, "b", &json!({}), add_label);
    let made = call(&cluster, PODS, &pod(&json!({ "app": "web" }))).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.json();
    assert!(made["metadata"]["name"].as_str().unwrap().starts_with("web-"));
    assert_eq!(made["spec"]["initContainers"], json!([{ "name": "sidecar" }]));
    assert_eq!(made["metadata"]["labels"], json!({ "app": "web", "seen": "1" }));
    let reviews = first.reviews();
    assert_eq!((reviews.len(), second.reviews().len()), (2, 1));
    assert_eq!(reviews[1]["request"]["object"]["metadata"]["labels"]["seen"], "1");
    let request = &reviews[0]["request"];
    assert_eq!(request["operation"], "CREATE");
    assert_eq!(request["kind"], json!({ "group": "", "version": "v1", "kind": "Pod" }));
    assert_eq!(request["namespace"], "shop");
    assert_eq!((request.get("name"), &request["dryRun"]), (None, &json!(false)));
    let name = made["metadata"]["name"].as_str().unwrap();
    let stored = format!("GET /api/v1/namespaces/shop/pods/{name}");
    assert_eq!(call(&cluster, &stored, &Value::Null).await.json(), made);
}

#[tokio::test]
async fn selectors_and_dry_runs_are_heeded() {
    let cluster = Kubernetes::start();
    let chosen = json!({
        "objectSelector": { "matchLabels": { "inject": "yes" } },
        "namespaceSelector": { "matchExpressions": [
            { "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system"] },
        ] },
    });
    let hook = Registered::new(&cluster, "a", &chosen, add_init);
    let (yes, no) = (pod(&json!({ "inject": "yes" })), pod(&json!({})));
    let system = "POST /api/v1/namespaces/kube-system/pods";
    for (what, object, asked) in [(PODS, &no, 0), (system, &yes, 0), (PODS, &yes, 1)] {
        assert_eq!(call(&cluster, what, object).await.status, 201);
        assert_eq!(hook.reviews().len(), asked);
    }
    let tried = call(&cluster, &format!("{PODS}?dryRun=All"), &yes).await;
    assert_eq!((tried.status, &hook.reviews()[1]["request"]["dryRun"]), (201, &json!(true)));
    let name = tried.json()["metadata"]["name"].as_str().unwrap().to_owned();
    let stored = format!("GET /api/v1/namespaces/shop/pods/{name}");
    assert_eq!(call(&cluster, &stored, &Value::Null).await.status, 404);
}

#[tokio::test]
async fn a_webhook_may_say_no_warn_or_fail() {
    let cluster = Kubernetes::start();
    let denying = |_: &Value| json!({ "allowed": false, "status": { "code": 403, "message": "hostNetwork" } });
    let web = pod(&json!({}));
    let _no = Registered::new(&cluster, "no", &json!({}), denying);
    let denied = call(&cluster, PODS, &web).await;
    let message = "admission webhook \"no.example.com\" denied the request: hostNetwork";
    assert_eq!((denied.status, said(&denied).2), (403, message.into()));

    let cluster = Kubernetes::start();
    let _warns = Registered::new(
        &cluster,
        "warns",
        &json!({}),
        |_| json!({ "allowed": true, "warnings": ["old annotation"] }),
    );
    let warned = call(&cluster, PODS, &web).await;
    assert_eq!((warned.status, warned.header("warning")), (201, Some("299 - \"old annotation\"")));

    for (policy, status) in [("Ignore", 201), ("Fail", 500)] {
        let cluster = Kubernetes::start();
        let policy = json!({ "failurePolicy": policy });
        let _odd = Registered::new(&cluster, "odd", &policy, |_| json!({ "patch": "e30=" }));
        let answer = call(&cluster, PODS, &web).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        if status == 500 {
            let why =
                "failed calling webhook \"odd.example.com\": received invalid webhook response";
            assert!(said(&answer).2.contains(why), "{}", answer.text());
        }
    }
}

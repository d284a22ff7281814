//! In a cluster: pods that are created at an API server, by the webhook that the chart registers.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use emulator::client::{Answer, Client};
use emulator::http::{Exchange, Handler, Server, Work};
use emulator::{Kubernetes, Reply, Tls};
use serde_json::{Value, json};

use crate::support::{Injector, Secret};

/// The chart's own: `make test-deploy` compares the file with what Helm renders.
fn webhook(ca: &str, policy: &str) -> Value {
    let mut webhook: Value =
        serde_json::from_str(include_str!("../webhook.json")).expect("a webhook");
    webhook["failurePolicy"] = json!(policy);
    webhook["clientConfig"]["caBundle"] = json!(STANDARD.encode(ca));
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": { "name": "bearerd-injector" },
        "webhooks": [webhook],
    })
}

fn namespace(name: &str) -> Value {
    let labels = json!({ "kubernetes.io/metadata.name": name });
    json!({ "kind": "Namespace", "metadata": { "name": name, "labels": labels } })
}

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "labels": { "bearerd/inject": "true" } },
        "spec": { "containers": [{ "name": "orders", "image": "registry.example/orders:1.0.0" }] },
    })
}

/// A cluster with the injector in it.
struct Cluster {
    api: Kubernetes,
    injector: Injector,
}

impl Cluster {
    fn start(policy: &str) -> Self {
        let (api, secret) = (Kubernetes::start(), Secret::new());
        let arguments = [
            "--kubernetes-version",
            "1.31",
            "--exclude-namespace",
            "bearerd-system",
            "--linger",
            "0",
        ];
        let injector = Injector::start(&secret, &arguments);
        for name in ["shop", "kube-system", "bearerd-system"] {
            api.create(namespace(name));
        }
        api.route_service("bearerd-system", "bearerd-injector", injector.reviews);
        let ca = std::fs::read_to_string(secret.trusted()).expect("PEM");
        api.create(webhook(&ca, policy));
        Self { api, injector }
    }

    async fn create(&self, namespace: &str, pod: &Value) -> Answer {
        let (address, ca) = (self.api.server().address(), self.api.authority());
        let mut client = Client::connect_tls(address, "127.0.0.1", ca).await.expect("TLS");
        let bearer = format!("Bearer {}", self.api.admin_token());
        let fields = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        let target = format!("/api/v1/namespaces/{namespace}/pods");
        let body = pod.to_string();
        client.request("POST", &target, &fields, body.as_bytes()).await.expect("an answer")
    }
}

fn names(list: &Value) -> Vec<&str> {
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    list.iter().filter_map(|one| one["name"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_created_gets_its_sidecar_and_others_are_stored_as_they_come() {
    let cluster = Cluster::start("Fail");
    let answer = cluster.create("shop", &pod("asks")).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let stored = answer.json();
    assert_eq!(names(&stored["spec"]["initContainers"]), ["bearerd"]);
    assert_eq!(stored["spec"]["containers"][0]["env"][0]["name"], "BEARERD_BASE_URL");
    let mut other = pod("other");
    other["metadata"]["labels"] = json!({});
    for (namespace, pod) in
        [("shop", other), ("kube-system", pod("system")), ("bearerd-system", pod("own"))]
    {
        let answer = cluster.create(namespace, &pod).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        assert!(answer.json()["spec"].get("initContainers").is_none(), "{namespace}");
    }
    // What comes out of it may go in again, as when a pod is copied.
    let mut copy = stored;
    copy["metadata"] = json!({
        "name": "copy", "labels": copy["metadata"]["labels"],
        "annotations": copy["metadata"]["annotations"],
    });
    let answer = cluster.create("shop", &copy).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(answer.json()["spec"], copy["spec"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_cannot_have_a_sidecar_is_not_created_and_who_creates_it_is_told_why() {
    let cluster = Cluster::start("Ignore");
    let mut pod = pod("refused");
    pod["spec"]["hostNetwork"] = json!(true);
    let answer = cluster.create("shop", &pod).await;
    assert_eq!(answer.status, 403, "{}", answer.text());
    let message = answer.json()["message"].as_str().expect("a message").to_owned();
    assert!(message.contains("inject.bearerd.webhook"), "{message}");
    assert!(message.contains("loopback is the node's"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_nobody_answers_it_fails_closed_or_open_as_it_is_registered() {
    for (policy, status) in [("Fail", 500), ("Ignore", 201)] {
        let mut cluster = Cluster::start(policy);
        cluster.injector.terminate();
        assert!(cluster.injector.exit().success());
        let answer = cluster.create("shop", &pod("late")).await;
        assert_eq!(answer.status, status, "{policy}: {}", answer.text());
        // Who does not ask is not kept waiting in either case.
        let mut other = pod("other");
        other["metadata"]["labels"] = json!({});
        assert_eq!(cluster.create("shop", &other).await.status, 201);
    }
}

/// Another webhook, which adds a container of its own, as service meshes do.
struct Mesh;

impl Handler for Mesh {
    fn handle<'a>(&'a self, exchange: &'a mut Exchange) -> Work<'a> {
        Box::pin(async move {
            let body = exchange.body().await?.body.clone();
            let review: Value = serde_json::from_slice(&body).expect("a review");
            let containers = &review["request"]["object"]["spec"]["containers"];
            let there = names(containers).contains(&"mesh");
            let mut response = json!({ "uid": review["request"]["uid"], "allowed": true });
            if !there {
                let mesh = json!({ "name": "mesh", "image": "registry.example/mesh:1" });
                let patch = json!([{ "op": "add", "path": "/spec/containers/-", "value": mesh }]);
                response["patchType"] = json!("JSONPatch");
                response["patch"] = json!(STANDARD.encode(patch.to_string()));
            }
            let answer = json!({
                "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response,
            });
            Ok(Reply::json(200, answer))
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_a_later_webhook_adds_gets_the_variables_at_the_second_invocation() {
    let cluster = Cluster::start("Fail");
    let mesh = Server::start(Arc::new(Mesh), Tls::self_signed());
    let mut later = webhook(mesh.certificate().expect("TLS").pem(), "Fail");
    // Configurations are called in the order of their names.
    later["metadata"]["name"] = json!("mesh");
    later["webhooks"][0]["name"] = json!("mesh.example.webhook");
    later["webhooks"][0]["clientConfig"]["url"] = json!(format!("{}/", mesh.url()));
    later["webhooks"][0]["clientConfig"]["service"] = Value::Null;
    cluster.api.create(later);
    let answer = cluster.create("shop", &pod("meshed")).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let stored = answer.json();
    assert_eq!(names(&stored["spec"]["initContainers"]), ["bearerd"], "once");
    assert_eq!(names(&stored["spec"]["containers"]), ["orders", "mesh"]);
    for container in stored["spec"]["containers"].as_array().expect("a list") {
        assert_eq!(names(&container["env"]), ["BEARERD_BASE_URL"], "{container}");
    }
    let twice = "bearerd_injector_reviews_total{outcome=\"injected\"}";
    assert!((cluster.injector.counted(twice).await - 2.0).abs() < f64::EPSILON);
}

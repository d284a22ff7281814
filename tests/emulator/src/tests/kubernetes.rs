//! The API server: conflicts, watches, access, and what it says in each case.

mod admission;
mod watches;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::kubernetes::{Verb, etcd_timeout, too_many_requests};
use crate::{Kubernetes, Reply, Step};

const SECRET: &str = "/api/v1/namespaces/shop/secrets/tokens";
const SECRETS: &str = "/api/v1/namespaces/shop/secrets";

fn with_secret() -> Kubernetes {
    let server = Kubernetes::start();
    server.create(json!({
        "kind": "Secret",
        "metadata": { "name": "tokens", "namespace": "shop", "labels": { "team": "a" } },
        "stringData": { "other": "kept" },
    }));
    server
}

async fn connect(server: &Kubernetes) -> Client {
    let to = server.server().address();
    Client::connect_tls(to, "127.0.0.1", server.authority()).await.expect("TLS")
}

async fn call_as(server: &Kubernetes, token: &str, what: &str, body: &Value) -> Answer {
    let (method, target) = what.split_once(' ').expect("a method and a target");
    let bearer = format!("Bearer {token}");
    let media_type = match method {
        "PATCH" => "application/merge-patch+json",
        _ => "application/json",
    };
    let mut fields = vec![("Authorization", bearer.as_str())];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    if !body.is_empty() {
        fields.push(("Content-Type", media_type));
    }
    connect(server)
        .await
        .request(method, target, &fields, body.as_bytes())
        .await
        .expect("an answer")
}

async fn call(server: &Kubernetes, what: &str, body: &Value) -> Answer {
    call_as(server, server.admin_token(), what, body).await
}

async fn get(server: &Kubernetes) -> Value {
    let answer = call(server, &format!("GET {SECRET}"), &Value::Null).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn put(server: &Kubernetes, object: &Value) -> Answer {
    call(server, &format!("PUT {SECRET}"), object).await
}

fn said(answer: &Answer) -> (u16, String, String) {
    let status = answer.json();
    let text = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
    if answer.status >= 400 {
        assert_eq!((text("kind"), text("apiVersion")), ("Status".into(), "v1".into()));
        assert_eq!((text("status"), &status["code"]), ("Failure".into(), &json!(answer.status)));
    }
    (answer.status, text("reason"), text("message"))
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_secret_has_the_fields_that_a_cluster_gives_it() {
    let server = with_secret();
    let secret = get(&server).await;
    assert_eq!((&secret["kind"], &secret["apiVersion"]), (&json!("Secret"), &json!("v1")));
    assert_eq!((&secret["type"], secret.get("stringData")), (&json!("Opaque"), None));
    assert_eq!(secret["data"]["other"], BASE64_STANDARD.encode("kept"));
    for field in ["uid", "resourceVersion", "creationTimestamp", "managedFields"] {
        assert!(!secret["metadata"][field].is_null(), "{field}");
    }
    let list = call(&server, &format!("GET {SECRETS}"), &Value::Null).await.json();
    assert_eq!((&list["kind"], list["items"].as_array().unwrap().len()), (&json!("SecretList"), 1));
    assert_eq!(list["metadata"]["resourceVersion"], secret["metadata"]["resourceVersion"]);
    assert_eq!(list["items"][0].get("kind"), None);
}

#[tokio::test]
async fn a_put_with_an_old_version_is_a_conflict_and_one_that_changes_nothing_writes_nothing() {
    let server = with_secret();
    let first = get(&server).await;
    let same = put(&server, &first).await;
    assert_eq!((same.status, version(&same.json())), (200, version(&first)));
    let mut next = first.clone();
    next["data"]["new"] = BASE64_STANDARD.encode("1").into();
    let written = put(&server, &next).await;
    assert_eq!(written.status, 200);
    assert!(version(&written.json()) > version(&first));
    let late = put(&server, &next).await;
    let message = "Operation cannot be fulfilled on secrets \"tokens\": the object has been modified; \
                   please apply your changes to the latest version and try again";
    assert_eq!(said(&late), (409, "Conflict".into(), message.into()));
    assert_eq!(late.json()["details"], json!({ "name": "tokens", "kind": "secrets" }));
    assert_eq!(server.violations(), Vec::<String>::new());

    // Without a version it is written over whatever is there.
    next["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    next["data"]["new"] = BASE64_STANDARD.encode("2").into();
    assert_eq!(put(&server, &next).await.status, 200);
    assert_eq!(server.violations(), ["a PUT of secrets tokens without a resource version"]);
}

#[tokio::test]
async fn a_secret_that_was_made_anew_is_another_one() {
    let server = with_secret();
    let first = get(&server).await;
    let anew = json!({ "metadata": { "name": "tokens" } });
    let conflict = call(&server, &format!("POST {SECRETS}"), &anew).await;
    let message = "secrets \"tokens\" already exists";
    assert_eq!(said(&conflict), (409, "AlreadyExists".into(), message.into()));
    assert_eq!(call(&server, &format!("DELETE {SECRET}"), &Value::Null).await.status, 200);
    let missing = put(&server, &first).await;
    assert_eq!(said(&missing), (404, "NotFound".into(), "secrets \"tokens\" not found".into()));
    assert_eq!(call(&server, &format!("POST {SECRETS}"), &anew).await.status, 201);
    let other = put(&server, &first).await;
    assert_eq!((other.status, said(&other).1), (409, "Conflict".into()));
    assert!(said(&other).2.contains("Precondition failed: UID in precondition"));
}

#[tokio::test]
async fn what_no_secret_may_be_is_refused() {
    let server = with_secret();
    let secret = get(&server).await;
    let changed = |pointer: &str, value: Value| {
        let mut secret = secret.clone();
        let (parent, last) = pointer.rsplit_once('/').unwrap();
        secret.pointer_mut(parent).unwrap()[last] = value;
        secret
    };
    for (object, code, message) in [
        (changed("/data/x", "not base64!".into()), 400, "illegal base64"),
        (changed("/data/a b", "".into()), 422, "valid config key"),
        (changed("/data/x", "A".repeat(1 << 20).into()), 413, "too large"),
        (changed("/type", "other".into()), 422, "field is immutable"),
        (changed("/metadata/name", "b".into()), 400, "does not match the name on the URL"),
        (changed("/metadata/namespace", "b".into()), 400, "namespace of the provided object"),
        (changed("/kind", "Pod".into()), 400, "cannot be handled as a Secret"),
        (json!([1]), 400, "is no object"),
    ] {
        let answer = put(&server, &object).await;
        assert_eq!(answer.status, code, "{}", answer.text());
        assert!(said(&answer).2.contains(message), "{}", answer.text());
    }
    assert_eq!(get(&server).await, secret, "nothing was written");
    assert_eq!(put(&server, &changed("/immutable", true.into())).await.status, 200);
    let mut frozen = get(&server).await;
    frozen["data"]["x"] = "".into();
    assert!(said(&put(&server, &frozen).await).2.contains("immutable when `immutable` is set"));
}

#[tokio::test]
async fn a_role_for_one_secret_allows_that_one_and_a_watch_of_it_by_name() {
    let server = with_secret();
    let token = server.allow("shop", "bearerd", "tokens", &["get", "update", "watch"]);
    let by_name = "watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3Dtokens";
    for (what, code) in [
        (format!("GET {SECRET}"), 200),
        (format!("GET {SECRETS}?{by_name}"), 200),
        (format!("GET {SECRETS}"), 403),
        (format!("GET {SECRETS}?watch=1"), 403),
        (format!("GET {SECRETS}?watch=1&fieldSelector=metadata.name%3Dothers"), 403),
        (format!("GET {SECRETS}/others"), 403),
        (format!("DELETE {SECRET}"), 403),
        ("GET /api/v1/namespaces/other/secrets/tokens".to_owned(), 403),
        ("GET /api/v1/secrets".to_owned(), 403),
    ] {
        let answer = call_as(&server, &token, &what, &Value::Null).await;
        assert_eq!(answer.status, code, "{what}: {}", answer.text());
    }
    let refused = call_as(&server, &token, &format!("DELETE {SECRET}"), &Value::Null).await;
    let message = "secrets \"tokens\" is forbidden: User \"system:serviceaccount:shop:bearerd\" cannot \
                   delete resource \"secrets\" in API group \"\" in the namespace \"shop\"";
    assert_eq!(said(&refused), (403, "Forbidden".into(), message.into()));
    let secret = get(&server).await;
    assert_eq!(call_as(&server, &token, &format!("PUT {SECRET}"), &secret).await.status, 200);
    let patched =
        call_as(&server, &token, &format!("PATCH {SECRET}"), &json!({ "data": {} })).await;
    assert_eq!(patched.status, 403);

    server.revoke_token(&token);
    let rotated = server.issue_token("shop", "bearerd");
    let old = call_as(&server, &token, &format!("GET {SECRET}"), &Value::Null).await;
    assert_eq!(said(&old), (401, "Unauthorized".into(), "Unauthorized".into()));
    assert_eq!(
        call_as(&server, &rotated, &format!("GET {SECRET}"), &Value::Null).await.status,
        200
    );
}

#[tokio::test]
async fn a_patch_is_made_and_told() {
    let server = with_secret();
    let change = json!({ "metadata": { "labels": { "team": null, "b": "1" } } });
    assert_eq!(call(&server, &format!("PATCH {SECRET}"), &change).await.status, 200);
    assert_eq!(get(&server).await["metadata"]["labels"], json!({ "b": "1" }));
    assert_eq!(server.violations(), ["a PATCH of secrets tokens"]);
}

#[tokio::test]
async fn calls_fail_as_scripted_before_or_after_they_are_committed() {
    let server = with_secret();
    let first = get(&server).await;
    let mut next = first.clone();
    next["data"]["new"] = BASE64_STANDARD.encode("1").into();
    server.script(Verb::Update, [Step::from(too_many_requests("1"))]);
    let busy = put(&server, &next).await;
    assert_eq!((busy.status, busy.header("retry-after")), (429, Some("1")));
    assert_eq!(version(&get(&server).await), version(&first));

    server.script(Verb::Update, [Step::LostAnswer, Step::instead(etcd_timeout())]);
    let bearer = format!("Bearer {}", server.admin_token());
    let fields = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    let body = next.to_string();
    let lost = connect(&server).await.request("PUT", SECRET, &fields, body.as_bytes()).await;
    assert!(lost.is_err());
    let committed = get(&server).await;
    assert!(version(&committed) > version(&first));
    let mut next = committed.clone();
    next["data"]["new"] = BASE64_STANDARD.encode("2").into();
    let unsure = put(&server, &next).await;
    assert_eq!(said(&unsure), (500, String::new(), "etcdserver: request timed out".into()));
    assert!(version(&get(&server).await) > version(&committed));

    server.script(Verb::Get, [Step::from(Reply::html(502))]);
    assert_eq!(call(&server, &format!("GET {SECRET}"), &Value::Null).await.status, 502);
    assert_eq!((server.steps_left(Verb::Get), server.calls(Verb::Update)), (0, 3));
    server.set_down(true);
    let to = server.server().address();
    assert!(Client::connect_tls(to, "127.0.0.1", server.authority()).await.is_err());
    server.set_down(false);
    get(&server).await;
}

#[tokio::test]
async fn tokens_are_had_by_the_usual_request() {
    let server = with_secret();
    let asked = json!({ "spec": { "audiences": [], "expirationSeconds": 3600 } });
    let target = "POST /api/v1/namespaces/shop/serviceaccounts/bearerd/token";
    let answer = call(&server, target, &asked).await;
    assert_eq!((answer.status, &answer.json()["kind"]), (201, &json!("TokenRequest")));
    let token = answer.json()["status"]["token"].as_str().unwrap().to_owned();
    let answer = call_as(&server, &token, &format!("GET {SECRET}"), &Value::Null).await;
    assert_eq!(answer.status, 403, "known, and allowed nothing");
}

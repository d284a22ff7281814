//! Reviews as API servers sent them (`tests/recorded`), and what an API server makes of the answers.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use injector::decision::{Defaults, decide};
use injector::review::Request;
use serde_json::{Map, Value};

pub const NATIVE: &str = "1.29";
pub const OLD: &str = "1.28";

pub fn defaults() -> Defaults {
    let excluded_namespaces = BTreeSet::from(["bearerd-system".to_owned()]);
    let image = "registry.example/bearerd:0.1.0".into();
    Defaults { image, excluded_namespaces, annotations: Map::new() }
}

/// Where the recordings are: `VERSION/REVIEW_VERSION/NAME.json`.
pub fn recorded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded")
}

/// What the newest of the API servers sent.
pub fn sent(name: &str) -> Value {
    let path = recorded().join(format!("1.36.2/v1/{name}.json"));
    serde_json::from_slice(&std::fs::read(path).expect("a review")).expect("JSON")
}

/// A review of `pod`, and otherwise like that of a Deployment.
pub fn review_of(pod: &Value) -> Value {
    let mut review = sent("deployment");
    review["request"]["object"] = pod.clone();
    review
}

pub fn pod() -> Value {
    sent("deployment")["request"]["object"].clone()
}

pub fn pod_with(change: impl FnOnce(&mut Value)) -> Value {
    let mut pod = pod();
    change(&mut pod);
    pod
}

pub fn answer(review: &Value, cluster: &str) -> Value {
    answer_with(&defaults(), review, cluster)
}

pub fn answer_with(defaults: &Defaults, review: &Value, cluster: &str) -> Value {
    let request = Request::read(review.to_string().as_bytes()).expect("a review");
    request.answer(&decide(&request, defaults, cluster.parse().expect("a version")))
}

/// What the API server makes of the answer; `None` if nothing is to be changed.
pub fn injected(review: &Value, cluster: &str) -> Option<Value> {
    injected_with(&defaults(), review, cluster)
}

pub fn injected_with(defaults: &Defaults, review: &Value, cluster: &str) -> Option<Value> {
    let answer = answer_with(defaults, review, cluster);
    assert_eq!(answer["response"]["allowed"], true, "{answer}");
    let patch = answer["response"]["patch"].as_str()?;
    assert_eq!(answer["response"]["patchType"], "JSONPatch");
    let patch = STANDARD.decode(patch).expect("base64");
    let patch: json_patch::Patch = serde_json::from_slice(&patch).expect("a JSON patch");
    let mut pod = review["request"]["object"].clone();
    json_patch::patch(&mut pod, &patch).expect("a patch that can be applied");
    Some(pod)
}

pub fn refusal(pod: &Value, cluster: &str) -> String {
    refusal_in(&answer(&review_of(pod), cluster))
}

pub fn refusal_in(answer: &Value) -> String {
    assert_eq!(answer["response"]["allowed"], false, "{answer}");
    assert_eq!(answer["response"]["status"]["code"], 403);
    assert!(answer["response"].get("patch").is_none());
    answer["response"]["status"]["message"].as_str().expect("a message").to_owned()
}

pub fn names(list: &Value) -> Vec<&str> {
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    list.iter().map(|one| one["name"].as_str().expect("a name")).collect()
}

pub fn value<'a>(container: &'a Value, variable: &str) -> Option<&'a str> {
    let env = container["env"].as_array()?;
    env.iter().find(|one| one["name"] == variable)?["value"].as_str()
}

/// Everything in `before` is in `after`; numbers that are raised and lists that grow apart.
pub fn assert_holds(after: &Value, before: &Value) {
    match before {
        Value::Object(members) => {
            for (name, value) in members {
                if name == "terminationGracePeriodSeconds" {
                    continue;
                }
                assert_holds(&after[name], value);
            }
        }
        Value::Array(items) => {
            let after = after.as_array().expect("still a list");
            let named = items.iter().all(|item| item["name"].is_string());
            for (index, item) in items.iter().enumerate() {
                let same = |one: &&Value| one["name"] == item["name"];
                let found = if named { after.iter().find(same) } else { after.get(index) };
                assert_holds(found.unwrap_or_else(|| panic!("{item} is gone")), item);
            }
        }
        value => assert_eq!(after, value),
    }
}

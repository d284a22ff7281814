//! Decisions about whole reviews, as API servers send them, and about odd pods.

use std::collections::BTreeSet;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use injector::decision::{Defaults, decide};
use injector::review::{Request, ReviewError};
use serde_json::{Value, json};

const NATIVE: &str = "1.29";
const OLD: &str = "1.28";

fn defaults() -> Defaults {
    let excluded_namespaces = BTreeSet::from(["bearerd-system".to_owned()]);
    Defaults { image: "registry.example/bearerd:0.1.0".into(), excluded_namespaces }
}

fn recorded(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/reviews/{name}.json"));
    serde_json::from_slice(&std::fs::read(path).expect("a recorded review")).expect("JSON")
}

/// A review of `pod`, and otherwise like the recorded one.
fn review_of(pod: &Value) -> Value {
    let mut review = recorded("v1-deployment");
    review["request"]["object"] = pod.clone();
    review
}

fn pod() -> Value {
    recorded("v1-deployment")["request"]["object"].clone()
}

fn pod_with(change: impl FnOnce(&mut Value)) -> Value {
    let mut pod = pod();
    change(&mut pod);
    pod
}

fn answer(review: &Value, cluster: &str) -> Value {
    let request = Request::read(review.to_string().as_bytes()).expect("a review");
    request.answer(&decide(&request, &defaults(), cluster.parse().expect("a version")))
}

/// What the API server makes of the answer; `None` if nothing is to be changed.
fn injected(review: &Value, cluster: &str) -> Option<Value> {
    let answer = answer(review, cluster);
    assert_eq!(answer["response"]["allowed"], true, "{answer}");
    let patch = answer["response"]["patch"].as_str()?;
    assert_eq!(answer["response"]["patchType"], "JSONPatch");
    let patch = STANDARD.decode(patch).expect("base64");
    let patch: json_patch::Patch = serde_json::from_slice(&patch).expect("a JSON patch");
    let mut pod = review["request"]["object"].clone();
    json_patch::patch(&mut pod, &patch).expect("a patch that can be applied");
    Some(pod)
}

fn refusal(pod: &Value, cluster: &str) -> String {
    let answer = answer(&review_of(pod), cluster);
    assert_eq!(answer["response"]["allowed"], false, "{answer}");
    assert_eq!(answer["response"]["status"]["code"], 403);
    assert!(answer["response"].get("patch").is_none());
    answer["response"]["status"]["message"].as_str().expect("a message").to_owned()
}

fn names(list: &Value) -> Vec<&str> {
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    list.iter().map(|one| one["name"].as_str().expect("a name")).collect()
}

fn value<'a>(container: &'a Value, variable: &str) -> Option<&'a str> {
    let env = container["env"].as_array()?;
    env.iter().find(|one| one["name"] == variable)?["value"].as_str()
}

#[test]
fn every_version_of_a_review_is_answered_in_its_own() {
    for (name, version) in [("v1-deployment", "v1"), ("v1beta1-deployment", "v1beta1")] {
        let review = recorded(name);
        let answer = answer(&review, NATIVE);
        assert_eq!(answer["apiVersion"], format!("admission.k8s.io/{version}"));
        assert_eq!(answer["kind"], "AdmissionReview");
        assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
        let pod = injected(&review, NATIVE).expect("a sidecar");
        assert_eq!(names(&pod["spec"]["initContainers"]), ["bearerd"], "{name}");
    }
}

#[test]
fn a_pod_gets_a_native_sidecar_where_the_cluster_knows_them() {
    for cluster in [NATIVE, "1.31.2", "v1.37.0-vendor.1"] {
        let pod = injected(&recorded("v1-deployment"), cluster).expect("a sidecar");
        let sidecar = &pod["spec"]["initContainers"][0];
        assert_eq!(sidecar["restartPolicy"], "Always");
        assert_eq!(sidecar["image"], "registry.example/bearerd:0.1.0");
        assert_eq!(sidecar["startupProbe"]["httpGet"]["path"], "/startupz");
        assert!(sidecar.get("lifecycle").is_none() && sidecar.get("readinessProbe").is_none());
        assert_eq!(names(&pod["spec"]["containers"]), ["orders"]);
        let volumes = names(&pod["spec"]["volumes"]);
        assert_eq!(volumes[1..], ["bearerd-config", "bearerd-secrets", "bearerd-store"]);
        for mount in sidecar["volumeMounts"].as_array().expect("mounts") {
            assert!(volumes.contains(&mount["name"].as_str().expect("a name")));
            assert!(mount.get("subPath").is_none(), "only directories follow changes");
        }
        assert_eq!(pod["spec"]["securityContext"]["fsGroup"], 65532);
        assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 60);
    }
}

#[test]
fn a_pod_gets_an_ordinary_container_where_the_cluster_knows_no_native_ones() {
    let pod = injected(&recorded("v1-deployment"), OLD).expect("a sidecar");
    assert_eq!(names(&pod["spec"]["containers"]), ["bearerd", "orders"]);
    assert!(pod["spec"].get("initContainers").is_none());
    let sidecar = &pod["spec"]["containers"][0];
    assert!(sidecar.get("restartPolicy").is_none() && sidecar.get("startupProbe").is_none());
    let hook = &sidecar["lifecycle"]["postStart"]["exec"]["command"];
    assert_eq!(*hook, json!(["/bearerd", "healthcheck", "--ready", "--wait", "120"]));
    assert_eq!(sidecar["lifecycle"]["preStop"], json!({ "sleep": { "seconds": 20 } }));
}

#[test]
fn annotations_choose_form_image_volumes_ports_and_sizes() {
    let pod = pod_with(|pod| {
        pod["metadata"]["annotations"] = json!({
            "bearerd/mode": "ordinary",
            "bearerd/image": "registry.example/mirror/bearerd:0.1.0",
            "bearerd/config": "orders-bearerd",
            "bearerd/secret": "orders-oauth",
            "bearerd/token-audience": "https://api.example",
            "bearerd/store": "claim:orders-store",
            "bearerd/port": "8081",
            "bearerd/admin-port": "9911",
            "bearerd/memory-limit": "128Mi",
            "bearerd/env": "ORDERS_API,BILLING_API=/billing",
            "bearerd/pre-stop-seconds": "5",
            "bearerd/startup-seconds": "30",
        });
    });
    let pod = injected(&review_of(&pod), NATIVE).expect("a sidecar");
    let sidecar = &pod["spec"]["containers"][0];
    assert_eq!(sidecar["image"], "registry.example/mirror/bearerd:0.1.0");
    assert_eq!(sidecar["ports"], json!([{ "name": "bearerd-admin", "containerPort": 9911 }]));
    assert_eq!(sidecar["resources"]["limits"], json!({ "memory": "128Mi" }));
    let hook = &sidecar["lifecycle"]["postStart"]["exec"]["command"];
    assert_eq!(hook[4], "127.0.0.1:9911");
    assert_eq!(hook[6], "30");
    assert_eq!(sidecar["lifecycle"]["preStop"]["sleep"]["seconds"], 5);
    let volumes = &pod["spec"]["volumes"];
    assert_eq!(volumes[1]["configMap"]["name"], "orders-bearerd");
    let sources = json!([
        { "secret": { "name": "orders-oauth" } },
        { "serviceAccountToken": {
            "path": "token", "audience": "https://api.example", "expirationSeconds": 3600,
        }},
    ]);
    assert_eq!(volumes[2]["projected"]["sources"], sources);
    assert_eq!(volumes[3]["persistentVolumeClaim"]["claimName"], "orders-store");
    let application = &pod["spec"]["containers"][1];
    assert_eq!(value(application, "ORDERS_API"), Some("http://127.0.0.1:8081"));
    assert_eq!(value(application, "BILLING_API"), Some("http://127.0.0.1:8081/billing"));
    assert_eq!(value(application, "BEARERD_BASE_URL"), None);
}

#[test]
fn each_store_has_its_volume_and_no_other() {
    for (store, volume, mounted_at) in [
        ("none", None, None),
        ("emptyDir", Some("bearerd-store"), Some("/var/lib/bearerd")),
        ("claim:orders", Some("bearerd-store"), Some("/var/lib/bearerd")),
        (
            "kubernetes",
            Some("bearerd-account"),
            Some("/var/run/secrets/kubernetes.io/serviceaccount"),
        ),
    ] {
        let pod = pod_with(|pod| {
            pod["metadata"]["annotations"] = json!({ "bearerd/store": store });
        });
        let pod = injected(&review_of(&pod), NATIVE).expect("a sidecar");
        // After the application's own, configuration and secrets.
        let volumes = names(&pod["spec"]["volumes"]);
        assert_eq!(volumes.get(3).copied(), volume, "{store}");
        let mount = &pod["spec"]["initContainers"][0]["volumeMounts"][2];
        assert_eq!(mount["name"].as_str(), volume, "{store}");
        assert_eq!(mount["mountPath"].as_str(), mounted_at, "{store}");
    }
}

#[test]
fn variables_go_in_front_and_those_that_are_there_stay() {
    let pod = pod_with(|pod| {
        pod["metadata"]["annotations"] = json!({ "bearerd/env": "ONE,TWO,LOG_LEVEL" });
    });
    let pod = injected(&review_of(&pod), NATIVE).expect("a sidecar");
    let application = &pod["spec"]["containers"][0];
    assert_eq!(names(&application["env"]), ["ONE", "TWO", "LOG_LEVEL"]);
    assert_eq!(value(application, "LOG_LEVEL"), Some("info"));
}

#[test]
fn only_the_containers_that_are_named_get_the_variables() {
    let review = recorded("v1-mesh");
    let mut chosen = review.clone();
    chosen["request"]["object"]["metadata"]["annotations"]["bearerd/containers"] = json!("migrate");
    let pod = injected(&chosen, NATIVE).expect("a sidecar");
    let [_, mesh, migrate] = &pod["spec"]["initContainers"].as_array().expect("three")[..] else {
        panic!("{pod}");
    };
    assert_eq!(value(migrate, "BEARERD_BASE_URL"), Some("http://127.0.0.1:8080"));
    for other in [mesh, &pod["spec"]["containers"][0]] {
        assert_eq!(value(other, "BEARERD_BASE_URL"), None);
    }
}

#[test]
fn init_containers_come_after_a_native_sidecar_and_may_use_it() {
    let pod = injected(&recorded("v1-mesh"), NATIVE).expect("a sidecar");
    let init = &pod["spec"]["initContainers"];
    assert_eq!(names(init), ["bearerd", "istio-proxy", "migrate"]);
    assert_eq!(value(&init[2], "BEARERD_BASE_URL"), Some("http://127.0.0.1:8080"));
    assert_eq!(names(&init[2]["env"]), ["BEARERD_BASE_URL", "ORDERS_DB"]);
    // Before an ordinary one there is no proxy that they could use.
    let pod = injected(&recorded("v1-mesh"), OLD).expect("a sidecar");
    let init = &pod["spec"]["initContainers"];
    assert_eq!(names(init), ["istio-proxy", "migrate"]);
    assert_eq!(value(&init[1], "BEARERD_BASE_URL"), None);
}

#[test]
fn whoever_has_been_through_here_comes_out_as_he_went_in() {
    for name in ["v1-deployment", "v1beta1-deployment", "v1-job", "v1-mesh"] {
        for cluster in [NATIVE, OLD] {
            let mut review = recorded(name);
            let once = injected(&review, cluster).expect("a sidecar");
            review["request"]["object"] = once;
            assert_eq!(injected(&review, cluster), None, "{name} in {cluster}");
            // Nor does it change its form when the cluster has meanwhile been upgraded.
            assert_eq!(injected(&review, NATIVE), None, "{name} from {cluster}");
        }
    }
}

#[test]
fn what_another_webhook_adds_between_two_invocations_gets_the_variables_and_nothing_else_changes() {
    for cluster in [NATIVE, OLD] {
        let mut review = recorded("v1-deployment");
        let mut pod = injected(&review, cluster).expect("a sidecar");
        let late = json!({ "name": "late", "image": "registry.example/late:1" });
        pod["spec"]["containers"].as_array_mut().expect("a list").insert(0, late.clone());
        review["request"]["object"] = pod.clone();
        let again = injected(&review, cluster).expect("the new container's variables");
        let added = &again["spec"]["containers"][0];
        assert_eq!(value(added, "BEARERD_BASE_URL"), Some("http://127.0.0.1:8080"));
        let mut expected = pod;
        expected["spec"]["containers"][0]["env"] = added["env"].clone();
        assert_eq!(again, expected);
        review["request"]["object"] = again;
        assert_eq!(injected(&review, cluster), None);
    }
}

#[test]
fn nothing_of_a_pod_is_lost_not_even_what_is_not_known_yet() {
    let before = pod_with(|pod| {
        pod["spec"]["fieldOfAYearToCome"] = json!({ "deep": [1, 2.5, null] });
        pod["spec"]["containers"][0]["anotherOne"] = json!("kept");
        pod["metadata"]["annotations"] = json!({ "example.com/a~b": "c/d" });
    });
    let after = injected(&review_of(&before), NATIVE).expect("a sidecar");
    assert_holds(&after, &before);
}

/// Everything in `before` is in `after`; numbers that are raised and lists that grow apart.
fn assert_holds(after: &Value, before: &Value) {
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

#[test]
fn the_pods_own_group_and_grace_stay() {
    let pod = pod_with(|pod| {
        pod["spec"]["securityContext"] = json!({ "fsGroup": 2000 });
        pod["spec"]["terminationGracePeriodSeconds"] = json!(300);
    });
    let pod = injected(&review_of(&pod), NATIVE).expect("a sidecar");
    assert_eq!(pod["spec"]["securityContext"], json!({ "fsGroup": 2000 }));
    assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 300);
}

#[test]
fn the_smallest_pod_that_there_can_be_gets_all_that_it_lacks() {
    let pod = json!({
        "metadata": { "labels": { "bearerd/inject": "true" } },
        "spec": { "containers": [{ "name": "a", "image": "b" }] },
    });
    let pod = injected(&review_of(&pod), NATIVE).expect("a sidecar");
    assert_eq!(names(&pod["spec"]["volumes"]).len(), 3);
    assert_eq!(
        value(&pod["spec"]["containers"][0], "BEARERD_BASE_URL"),
        Some("http://127.0.0.1:8080")
    );
    assert!(pod["metadata"]["annotations"]["bearerd/injected"].is_string());
}

#[test]
fn a_jobs_pod_with_an_ordinary_sidecar_is_warned_about() {
    let answer = answer(&recorded("v1-job"), OLD);
    let warning = answer["response"]["warnings"][0].as_str().expect("a warning");
    assert!(warning.contains("/quitquitquit") && warning.len() <= 256, "{warning}");
    let answer = self::answer(&recorded("v1-job"), NATIVE);
    assert!(answer["response"].get("warnings").is_none());
}

#[test]
fn a_pod_that_does_not_ask_is_left_alone() {
    let changes: [fn(&mut Value); 6] = [
        |pod| pod["metadata"]["labels"] = json!({}),
        |pod| pod["metadata"]["labels"] = Value::Null,
        |pod| pod["metadata"]["labels"]["bearerd/inject"] = json!("false"),
        |pod| pod["metadata"]["labels"]["bearerd/inject"] = json!("True"),
        // An annotation asks for nothing.
        |pod| {
            pod["metadata"]["labels"] = json!({});
            pod["metadata"]["annotations"] = json!({ "bearerd/inject": "true" });
        },
        |pod| {
            pod["metadata"]["annotations"] = json!({ "kubernetes.io/config.mirror": "5f9c" });
        },
    ];
    for change in changes {
        let review = review_of(&pod_with(change));
        assert_eq!(injected(&review, NATIVE), None);
    }
}

#[test]
fn the_injectors_own_namespace_and_the_clusters_are_left_alone() {
    for namespace in ["bearerd-system", "kube-system", "kube-public", "kube-node-lease"] {
        let mut review = recorded("v1-deployment");
        review["request"]["namespace"] = json!(namespace);
        assert_eq!(injected(&review, NATIVE), None, "{namespace}");
        // Not even what could not be injected is refused there.
        let mut review = recorded("v1-host-network");
        review["request"]["namespace"] = json!(namespace);
        assert_eq!(injected(&review, NATIVE), None, "{namespace}");
    }
}

#[test]
fn only_the_creation_of_a_pod_is_acted_upon() {
    for name in ["v1-ephemeral-container", "v1-deletion"] {
        assert_eq!(injected(&recorded(name), NATIVE), None, "{name}");
    }
    let changes: [fn(&mut Value); 4] = [
        |request| request["operation"] = json!("UPDATE"),
        |request| request["subResource"] = json!("binding"),
        |request| request["kind"]["kind"] = json!("Deployment"),
        |request| {
            request["kind"] = json!({ "group": "pods.example", "version": "v1", "kind": "Pod" });
        },
    ];
    for change in changes {
        let mut review = recorded("v1-deployment");
        change(&mut review["request"]);
        assert_eq!(injected(&review, NATIVE), None);
    }
}

#[test]
fn a_dry_run_is_answered_as_in_earnest() {
    let mut review = recorded("v1-deployment");
    review["request"]["dryRun"] = json!(true);
    assert_eq!(injected(&review, NATIVE), injected(&recorded("v1-deployment"), NATIVE));
}

#[test]
fn pods_that_cannot_have_a_sidecar_are_refused_with_the_reason_and_what_to_do() {
    let affinity = |values: &[&str]| {
        json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{ "matchExpressions": [
                { "key": "kubernetes.io/os", "operator": "In", "values": values },
            ]}],
        }}})
    };
    let only_windows = affinity(&["windows"]);
    let set = |path: &'static str, value: Value| {
        pod_with(|pod| {
            let (parent, name) = path.rsplit_once('/').expect("a path");
            pod.pointer_mut(parent).expect("a parent")[name] = value;
        })
    };
    let annotated = |key: &str, value: &str| {
        set("/metadata/annotations", json!({ format!("bearerd/{key}"): value }))
    };
    let own = json!([{ "name": "bearerd", "image": "registry.example/own:1" }]);
    let port = |port: u16| json!([{ "containerPort": port }]);
    for (pod, cluster, told) in [
        (
            recorded("v1-host-network")["request"]["object"].clone(),
            NATIVE,
            "loopback is the node's",
        ),
        (recorded("v1-windows")["request"]["object"].clone(), NATIVE, "Windows"),
        (set("/spec/os", json!({ "name": "windows" })), NATIVE, "Windows"),
        (set("/spec/nodeSelector", json!({ "kubernetes.io/os": "windows" })), NATIVE, "Windows"),
        (set("/spec/nodeSelector", json!({ "beta.kubernetes.io/os": "windows" })), OLD, "Windows"),
        (set("/spec/affinity", only_windows), NATIVE, "Windows"),
        (
            set("/spec/containers/0/securityContext", json!({ "windowsOptions": {} })),
            NATIVE,
            "Windows",
        ),
        (set("/spec/initContainers", own.clone()), NATIVE, "a container bearerd that is not the"),
        (set("/spec/initContainers", own.clone()), OLD, "a container bearerd that is not the"),
        (
            pod_with(|pod| {
                let own = json!({ "name": "bearerd", "image": "registry.example/own:1" });
                pod["spec"]["containers"].as_array_mut().expect("a list").push(own);
            }),
            NATIVE,
            "rename it",
        ),
        (
            set("/spec/volumes", json!([{ "name": "bearerd-store", "emptyDir": {} }])),
            NATIVE,
            "a volume bearerd-store that is not the injector's",
        ),
        (set("/spec/containers/0/ports", port(8080)), NATIVE, "container orders has port 8080"),
        (set("/spec/containers/0/ports", port(9901)), NATIVE, "bearerd/admin-port"),
        (annotated("mode", "native"), OLD, "which Kubernetes 1.28 does not know"),
        (annotated("mode", "sidecar"), NATIVE, "write native or ordinary"),
        (annotated("confg", "orders"), NATIVE, "is not known"),
        (annotated("containers", "nobody"), NATIVE, "no container of the pod"),
        (annotated("admin-port", "8080"), NATIVE, "need two ports"),
    ] {
        let told_in_full = refusal(&pod, cluster);
        assert!(told_in_full.starts_with("bearerd cannot be injected: "), "{told_in_full}");
        assert!(told_in_full.contains(told), "{told_in_full}");
    }
}

#[test]
fn pods_for_linux_or_for_any_system_are_not_taken_for_windows() {
    let term = |values: Value| {
        json!({ "matchExpressions": [
            { "key": "kubernetes.io/os", "operator": "In", "values": values },
        ]})
    };
    for terms in [
        json!([]),
        json!([term(json!(["linux"]))]),
        json!([term(json!(["linux", "windows"]))]),
        // One of the terms is enough.
        json!([term(json!(["windows"])), term(json!(["linux"]))]),
        json!([{ "matchExpressions": [
            { "key": "kubernetes.io/os", "operator": "NotIn", "values": ["windows"] },
        ]}]),
    ] {
        let pod = pod_with(|pod| {
            let required = json!({ "nodeSelectorTerms": terms });
            let affinity = json!({ "requiredDuringSchedulingIgnoredDuringExecution": required });
            pod["spec"]["affinity"] = json!({ "nodeAffinity": affinity });
            pod["spec"]["nodeSelector"] = json!({ "kubernetes.io/os": "linux" });
            pod["spec"]["os"] = json!({ "name": "linux" });
        });
        assert!(injected(&review_of(&pod), NATIVE).is_some(), "{terms}");
    }
}

#[test]
fn what_is_no_review_is_told_apart() {
    let read = |text: &str| Request::read(text.as_bytes()).err();
    for text in ["", "{", "[]", "\"AdmissionReview\"", "{\"kind\":\"AdmissionReview\"}"] {
        assert!(matches!(read(text), Some(ReviewError::Malformed(_))), "{text}");
    }
    let mut review = recorded("v1-deployment");
    review["apiVersion"] = json!("admission.k8s.io/v2");
    assert!(matches!(read(&review.to_string()), Some(ReviewError::Version)));
    review = recorded("v1-deployment");
    review["kind"] = json!("ConversionReview");
    assert!(matches!(read(&review.to_string()), Some(ReviewError::Version)));
    let answered = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview" });
    assert!(matches!(read(&answered.to_string()), Some(ReviewError::NoRequest)));
}

#[test]
fn a_pod_whose_parts_have_the_wrong_types_is_refused() {
    for path in [
        "/spec/containers",
        "/spec/volumes",
        "/spec/initContainers",
        "/spec/securityContext",
        "/spec/containers/0/env",
        "/metadata/annotations",
    ] {
        for wrong in [json!("text"), json!(7), json!([1, "x", null])] {
            let (parent, name) = path.rsplit_once('/').expect("a path");
            let pod = pod_with(|pod| pod.pointer_mut(parent).expect("a parent")[name] = wrong);
            let told = refusal(&pod, NATIVE);
            assert!(told.contains(&format!("the pod's {name} is not of the type")), "{told}");
        }
    }
}

//! Pods that are left alone or refused, and what is no review.

use injector::review::{Request, ReviewError};
use serde_json::{Value, json};

use crate::reviews::{NATIVE, OLD, injected, pod_with, refusal, review_of, sent};

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
        let mut review = sent("deployment");
        review["request"]["namespace"] = json!(namespace);
        assert_eq!(injected(&review, NATIVE), None, "{namespace}");
        // Not even what could not be injected is refused there.
        let mut review = sent("host-network");
        review["request"]["namespace"] = json!(namespace);
        assert_eq!(injected(&review, NATIVE), None, "{namespace}");
    }
}

#[test]
fn only_the_creation_of_a_pod_is_acted_upon() {
    for name in ["ephemeral-container", "deletion", "update", "exec", "binding"] {
        assert_eq!(injected(&sent(name), NATIVE), None, "{name}");
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
        let mut review = sent("deployment");
        change(&mut review["request"]);
        assert_eq!(injected(&review, NATIVE), None);
    }
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
        (sent("host-network")["request"]["object"].clone(), NATIVE, "loopback is the node's"),
        (sent("windows")["request"]["object"].clone(), NATIVE, "Windows"),
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
    let mut review = sent("deployment");
    review["apiVersion"] = json!("admission.k8s.io/v2");
    assert!(matches!(read(&review.to_string()), Some(ReviewError::Version)));
    review = sent("deployment");
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

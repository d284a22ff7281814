//! Pods that come again, and what of a pod stays.

use serde_json::json;

use crate::reviews::{NATIVE, OLD, assert_holds, injected, pod_with, review_of, sent, value};

#[test]
fn whoever_has_been_through_here_comes_out_as_he_went_in() {
    for name in ["deployment", "plain", "job", "native-sidecars"] {
        for cluster in [NATIVE, OLD] {
            let mut review = sent(name);
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
        let mut review = sent("deployment");
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
fn a_claims_pod_keeps_the_group_that_it_has() {
    let pod = pod_with(|pod| {
        pod["metadata"]["annotations"] = json!({ "bearerd/store": "claim:orders" });
        pod["spec"]["securityContext"] = json!({ "fsGroup": 2000 });
    });
    let pod = injected(&review_of(&pod), NATIVE).expect("a sidecar");
    let kept = json!({ "fsGroup": 2000, "fsGroupChangePolicy": "OnRootMismatch" });
    assert_eq!(pod["spec"]["securityContext"], kept);
}

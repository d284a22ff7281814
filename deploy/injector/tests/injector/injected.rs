//! What a pod gets.

use injector::decision::Defaults;
use serde_json::{Value, json};

use crate::reviews::{
    NATIVE, OLD, answer, defaults, injected, injected_with, names, pod_with, review_of, sent, value,
};

#[test]
fn a_pod_gets_a_native_sidecar_where_the_cluster_knows_them() {
    for cluster in [NATIVE, "1.31.2", "v1.37.0-vendor.1"] {
        let pod = injected(&sent("deployment"), cluster).expect("a sidecar");
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
        assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 60);
    }
}

#[test]
fn a_pod_gets_an_ordinary_container_where_the_cluster_knows_no_native_ones() {
    let pod = injected(&sent("deployment"), OLD).expect("a sidecar");
    assert_eq!(names(&pod["spec"]["containers"]), ["bearerd", "orders"]);
    assert!(pod["spec"].get("initContainers").is_none());
    let sidecar = &pod["spec"]["containers"][0];
    assert!(sidecar.get("restartPolicy").is_none() && sidecar.get("startupProbe").is_none());
    let hook = &sidecar["lifecycle"]["postStart"]["exec"]["command"];
    assert_eq!(*hook, json!(["/bearerd", "healthcheck", "--ready", "--wait", "120"]));
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
    let pod = injected(&review_of(&pod), "1.31").expect("a sidecar");
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
    let review = sent("native-sidecars");
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
    let pod = injected(&sent("native-sidecars"), NATIVE).expect("a sidecar");
    let init = &pod["spec"]["initContainers"];
    assert_eq!(names(init), ["bearerd", "mesh-proxy", "migrate"]);
    assert_eq!(value(&init[2], "BEARERD_BASE_URL"), Some("http://127.0.0.1:8080"));
    assert_eq!(names(&init[2]["env"]), ["BEARERD_BASE_URL", "ORDERS_DB"]);
    // Before an ordinary one there is no proxy that they could use.
    let pod = injected(&sent("native-sidecars"), OLD).expect("a sidecar");
    let init = &pod["spec"]["initContainers"];
    assert_eq!(names(init), ["mesh-proxy", "migrate"]);
    assert_eq!(value(&init[1], "BEARERD_BASE_URL"), None);
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
    let answer = answer(&sent("job"), OLD);
    let warning = answer["response"]["warnings"][0].as_str().expect("a warning");
    assert!(warning.contains("/quitquitquit") && warning.len() <= 256, "{warning}");
    let answer = self::answer(&sent("job"), NATIVE);
    assert!(answer["response"].get("warnings").is_none());
}

#[test]
fn a_dry_run_is_answered_as_in_earnest() {
    let mut review = sent("deployment");
    review["request"]["dryRun"] = json!(true);
    assert_eq!(injected(&review, NATIVE), injected(&sent("deployment"), NATIVE));
}

#[test]
fn the_platform_says_what_holds_where_a_pod_says_nothing() {
    let annotations = json!({
        "bearerd/cpu-limit": "1",
        "bearerd/image-pull-policy": "Always",
        "bearerd/memory-limit": "128Mi",
        "bearerd/mode": "ordinary",
    });
    let annotations = annotations.as_object().expect("an object").clone();
    let defaults = Defaults { annotations, ..defaults() };
    let pod = injected_with(&defaults, &sent("deployment"), NATIVE).expect("a sidecar");
    let sidecar = &pod["spec"]["containers"][0];
    assert_eq!(sidecar["resources"]["limits"], json!({ "cpu": "1", "memory": "128Mi" }));
    assert_eq!(sidecar["imagePullPolicy"], "Always");
    let marked = json!({ "bearerd/injected": env!("CARGO_PKG_VERSION") });
    assert_eq!(pod["metadata"]["annotations"], marked, "the defaults are not the pod's");
    let pod = pod_with(|pod| {
        pod["metadata"]["annotations"] =
            json!({ "bearerd/mode": "native", "bearerd/memory-limit": "96Mi" });
    });
    let pod = injected_with(&defaults, &review_of(&pod), NATIVE).expect("a sidecar");
    let limits = &pod["spec"]["initContainers"][0]["resources"]["limits"];
    assert_eq!(*limits, json!({ "cpu": "1", "memory": "96Mi" }));
}

#[test]
fn an_ordinary_container_is_held_back_where_the_cluster_can_and_told_of_where_it_cannot() {
    let pod = pod_with(|pod| {
        pod["metadata"]["annotations"] = json!({ "bearerd/mode": "ordinary" });
    });
    let review = review_of(&pod);
    let hook = |pod: &Value| pod["spec"]["containers"][0]["lifecycle"].get("preStop").cloned();
    for cluster in ["1.25", "1.28", "1.29"] {
        let pod = injected(&review, cluster).expect("a sidecar");
        assert_eq!(hook(&pod), None, "{cluster}");
        let answer = answer(&review, cluster);
        let [warning] = &answer["response"]["warnings"].as_array().expect("warnings")[..] else {
            panic!("{answer}");
        };
        let warning = warning.as_str().expect("text");
        assert!(warning.contains("no preStop.sleep") && warning.len() <= 256, "{warning}");
    }
    for cluster in ["1.30", "1.37"] {
        let pod = injected(&review, cluster).expect("a sidecar");
        assert_eq!(hook(&pod), Some(json!({ "sleep": { "seconds": 20 } })), "{cluster}");
        assert!(answer(&review, cluster)["response"].get("warnings").is_none());
    }
}

#[test]
fn a_group_of_the_pods_own_does_not_open_a_claim_to_itself_at_every_mount() {
    for (store, own, expected) in [
        ("claim:orders", json!({ "fsGroup": 2000 }), Some("OnRootMismatch")),
        ("emptyDir", json!({ "fsGroup": 2000 }), None),
        (
            "claim:orders",
            json!({ "fsGroup": 2000, "fsGroupChangePolicy": "Always" }),
            Some("Always"),
        ),
    ] {
        let pod = pod_with(|pod| {
            pod["metadata"]["annotations"] = json!({ "bearerd/store": store });
            pod["spec"]["securityContext"] = own.clone();
        });
        let pod = injected(&review_of(&pod), NATIVE).expect("a sidecar");
        let context = &pod["spec"]["securityContext"];
        assert_eq!(context["fsGroup"], 2000);
        assert_eq!(context["fsGroupChangePolicy"].as_str(), expected, "{store} {own}");
    }
}

#[test]
fn only_a_claim_needs_a_group_and_no_other_pod_gets_one_for_its_volumes() {
    for store in ["none", "emptyDir", "kubernetes", "claim:orders"] {
        let pod = pod_with(|pod| {
            pod["metadata"]["annotations"] = json!({ "bearerd/store": store });
            pod["spec"].as_object_mut().expect("an object").remove("securityContext");
        });
        let pod = injected(&review_of(&pod), NATIVE).expect("a sidecar");
        let group = json!({ "fsGroup": 65532, "fsGroupChangePolicy": "OnRootMismatch" });
        let expected = if store.starts_with("claim") { group } else { Value::Null };
        assert_eq!(pod["spec"]["securityContext"], expected, "{store}");
        // So its files are readable without one; nobody else mounts them.
        let ours = pod["spec"]["volumes"].as_array().expect("volumes");
        for volume in ours.iter().filter(|one| one["projected"]["defaultMode"] == 0o444) {
            let name = &volume["name"];
            let mounts = pod["spec"]["containers"][0]["volumeMounts"].as_array();
            assert!(mounts.expect("mounts").iter().all(|mount| mount["name"] != *name));
        }
        assert_eq!(pod["spec"]["volumes"][2]["projected"]["defaultMode"], 0o444, "{store}");
    }
}

//! Every review that was recorded, byte for byte: what is answered, and what becomes of the pod.

use std::collections::{BTreeMap, BTreeSet};

use injector::decision::decide;
use injector::review::Request;
use injector::settings::Mode;
use injector::version::Version;
use serde_json::Value;

use crate::reviews::{
    answer, assert_holds, defaults, injected, names, recorded, refusal_in, value,
};
use crate::support::{Injector, Secret};

/// What the injector has to do.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Expected {
    /// The pod gets its sidecar.
    Sidecar,
    /// The pod has been here, and another webhook has added a container `mesh`.
    Variables,
    Nothing,
    Refusal(&'static str),
}

use Expected::{Nothing, Refusal, Sidecar, Variables};

const EXPECTED: [(&str, Expected); 28] = [
    ("annotated", Sidecar),
    ("annotated-ordinary", Sidecar),
    ("binding", Nothing),
    ("creation", Nothing),
    ("deletion", Nothing),
    ("deployment", Sidecar),
    ("deployment-again", Nothing),
    ("dry-run", Sidecar),
    ("ephemeral-container", Nothing),
    ("exec", Nothing),
    ("host-network", Refusal("loopback is the node's")),
    ("init-container", Sidecar),
    ("job", Sidecar),
    ("meshed", Sidecar),
    ("meshed-again", Variables),
    ("meshed-ordinary", Sidecar),
    ("meshed-ordinary-again", Variables),
    ("native-sidecars", Sidecar),
    ("of-daemonset", Sidecar),
    ("of-job", Sidecar),
    ("of-replicaset", Sidecar),
    ("of-statefulset", Sidecar),
    ("ordinary", Sidecar),
    ("ordinary-again", Nothing),
    ("plain", Sidecar),
    ("shared", Sidecar),
    ("update", Nothing),
    ("windows", Refusal("Windows")),
];

/// What these API servers did not know yet.
const LACKING: [(&str, &[&str]); 4] = [
    ("1.20.2", &["ephemeral-container", "native-sidecars"]),
    ("1.28.15", &["native-sidecars"]),
    ("1.29.14", &[]),
    ("1.36.2", &[]),
];

struct Recording {
    cluster: &'static str,
    version: &'static str,
    name: &'static str,
    body: Vec<u8>,
    expected: Expected,
}

impl Recording {
    fn review(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    fn place(&self) -> String {
        format!("{}/{}/{}", self.cluster, self.version, self.name)
    }

    fn knows_sleep(&self) -> bool {
        self.cluster.parse::<Version>().expect("a version").has_sleep_hook()
    }

    /// The form that the pod should get.
    fn mode(&self) -> Mode {
        let review = self.review();
        let chosen = &review["request"]["object"]["metadata"]["annotations"]["bearerd/mode"];
        let cluster: Version = self.cluster.parse().expect("a version");
        if chosen == "ordinary" { Mode::Ordinary } else { cluster.preferred_mode() }
    }
}

/// All of them; there is one for each line above, and no other.
fn recordings() -> Vec<Recording> {
    let mut all = Vec::new();
    for (cluster, lacking) in LACKING {
        for version in ["v1", "v1beta1"] {
            let directory = recorded().join(cluster).join(version);
            for (name, expected) in EXPECTED.iter().filter(|(name, _)| !lacking.contains(name)) {
                let path = directory.join(format!("{name}.json"));
                let body = std::fs::read(&path);
                let body = body.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                all.push(Recording { cluster, version, name, body, expected: *expected });
            }
            let files = std::fs::read_dir(&directory).expect("a directory").count();
            assert_eq!(files, EXPECTED.len() - lacking.len(), "{}", directory.display());
        }
    }
    let places: BTreeSet<String> = all.iter().map(Recording::place).collect();
    assert_eq!(places.len(), all.len());
    all
}

#[test]
fn every_recorded_review_is_answered_in_its_own_version_with_its_uid() {
    let mut outcomes = BTreeMap::new();
    for recording in recordings() {
        let (place, review) = (recording.place(), recording.review());
        assert_eq!(review["apiVersion"], format!("admission.k8s.io/{}", recording.version));
        let answer = answer(&review, recording.cluster);
        assert_eq!(answer["apiVersion"], review["apiVersion"], "{place}");
        assert_eq!(answer["kind"], "AdmissionReview", "{place}");
        assert!(review["request"]["uid"].is_string(), "{place}");
        assert_eq!(answer["response"]["uid"], review["request"]["uid"], "{place}");
        let refused = matches!(recording.expected, Refusal(_));
        assert_eq!(answer["response"]["allowed"], !refused, "{place}: {answer}");
        let patched = matches!(recording.expected, Sidecar | Variables);
        assert_eq!(answer["response"]["patch"].is_string(), patched, "{place}: {answer}");
        if let Refusal(why) = recording.expected {
            let told = refusal_in(&answer);
            assert!(told.contains(why), "{place}: {told}");
        }
        *outcomes.entry(review["request"]["operation"].to_string()).or_insert(0) += 1;
    }
    assert_eq!(outcomes.len(), 4, "{outcomes:?}");
}

#[test]
fn every_recorded_pod_comes_out_whole_with_one_sidecar_and_stays_so() {
    for recording in recordings() {
        if recording.expected != Sidecar {
            continue;
        }
        let (place, mut review) = (recording.place(), recording.review());
        let before = review["request"]["object"].clone();
        let after = injected(&review, recording.cluster).expect("a sidecar");
        assert_holds(&after, &before);
        assert_eq!(names(&before["spec"]["containers"]), ["orders"], "{place}");
        assert_is_served(&after, &recording);
        review["request"]["object"] = after;
        assert_eq!(injected(&review, recording.cluster), None, "{place}");
    }
}

/// One sidecar, in front, in the right form, with all that it mounts; and all who can use it know it.
fn assert_is_served(pod: &Value, recording: &Recording) {
    let (place, mode) = (recording.place(), recording.mode());
    let (list, other) = match mode {
        Mode::Native => ("initContainers", "containers"),
        Mode::Ordinary => ("containers", "initContainers"),
    };
    let sidecar = &pod["spec"][list][0];
    assert_eq!(sidecar["name"], "bearerd", "{place}");
    let all = [names(&pod["spec"][list]), names(&pod["spec"][other])].concat();
    assert_eq!(all.iter().filter(|name| **name == "bearerd").count(), 1, "{place}: {all:?}");
    let native = mode == Mode::Native;
    assert_eq!(sidecar["restartPolicy"] == "Always", native, "{place}");
    assert_eq!(sidecar["startupProbe"].is_object(), native, "{place}");
    assert_eq!(sidecar["lifecycle"]["postStart"].is_object(), !native, "{place}");
    let held_back = sidecar["lifecycle"]["preStop"]["sleep"].is_object();
    assert_eq!(held_back, !native && recording.knows_sleep(), "{place}");
    let volumes = names(&pod["spec"]["volumes"]);
    let different: BTreeSet<_> = volumes.iter().collect();
    assert_eq!(different.len(), volumes.len(), "{place}: {volumes:?}");
    for mount in names(&sidecar["volumeMounts"]) {
        assert!(volumes.contains(&mount), "{place}: no volume {mount}");
    }
    let annotated = recording.name.starts_with("annotated");
    let variable = if annotated { "ORDERS_API" } else { "BEARERD_BASE_URL" };
    let base = if annotated { "http://127.0.0.1:8081" } else { "http://127.0.0.1:8080" };
    for list in ["containers", "initContainers"] {
        let usable = native || list == "containers";
        for container in pod["spec"][list].as_array().into_iter().flatten() {
            let told = (usable && container["name"] != "bearerd").then_some(base);
            assert_eq!(value(container, variable), told, "{place}: {container}");
        }
    }
    assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 60, "{place}");
    assert!(pod["metadata"]["annotations"]["bearerd/injected"].is_string(), "{place}");
}

#[test]
fn at_its_second_coming_with_all_that_an_api_server_fills_in_a_pod_lacks_nothing_but_what_is_new() {
    for recording in recordings() {
        if recording.expected != Variables {
            continue;
        }
        let (place, review) = (recording.place(), recording.review());
        let before = &review["request"]["object"];
        assert!(names(&before["spec"]["containers"]).contains(&"mesh"), "{place}");
        let after = injected(&review, recording.cluster).expect("variables");
        let mut expected = before.clone();
        let containers = expected["spec"]["containers"].as_array_mut().expect("a list");
        let added = containers.iter_mut().find(|one| one["name"] == "mesh").expect("it is there");
        assert!(added["env"].is_null(), "{place}");
        let env = serde_json::json!([
            { "name": "BEARERD_BASE_URL", "value": "http://127.0.0.1:8080" },
        ]);
        added["env"] = env;
        assert_eq!(after, expected, "{place}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_answers_every_recorded_review_as_it_was_sent() {
    let secret = Secret::new();
    for (cluster, _) in LACKING {
        let version = ["--kubernetes-version", cluster, "--exclude-namespace", "bearerd-system"];
        let injector = Injector::start(&secret, &version);
        let mut caller = injector.api_server(secret.trusted()).await;
        for recording in recordings().into_iter().filter(|one| one.cluster == cluster) {
            let place = recording.place();
            let request = Request::read(&recording.body).expect("a review");
            let mut defaults = defaults();
            defaults.image = "bearerd:1".into();
            let decision = decide(&request, &defaults, cluster.parse().expect("a version"));
            let expected = request.answer(&decision);
            let body = recording.body;
            let (status, answer) =
                caller.ask("POST", "/inject?timeout=5s", "application/json", body).await;
            assert_eq!((status, answer), (200, expected), "{place}");
        }
    }
}

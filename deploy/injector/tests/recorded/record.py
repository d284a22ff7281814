#!/usr/bin/env python3
"""Records what a kube-apiserver asks the injector, byte for byte.

    record.py --apiserver kube-apiserver --etcd etcd --injector target/debug/bearerd-injector

It starts the three on loopback with keys that end with them, registers the chart's webhook, does with
pods what people and controllers do, and writes each review to VERSION/REVIEW_VERSION/NAME.json beside
itself. The reviews are passed on to the injector, and its answers back: a pod that the API server does
not take, or takes without its sidecar, ends the recording. Besides Python it needs openssl.
"""

import argparse
import json
import pathlib
import tempfile

import pods
from cluster import Cluster, Recorder, certificate, injector

HERE = pathlib.Path(__file__).parent
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
PODS = "/api/v1/namespaces/shop/pods"

# Nearly every pod is asked about twice, since the API server adds to a new container what it adds to all;
# these are kept.
AGAIN = ["deployment", "ordinary", "meshed", "meshed-ordinary"]


def registration(name, ca, url, versions, changes):
    """The chart's webhook (`../webhook.json`) for who listens at `url`."""
    webhook = json.loads((HERE.parent / "webhook.json").read_text())
    webhook["clientConfig"] = {"url": url, "caBundle": ca}
    webhook |= {"admissionReviewVersions": versions} | changes
    return {"metadata": {"name": name}, "webhooks": [webhook]}


class Recording:
    """One API server, one version of reviews."""

    def __init__(self, cluster, recorder, version):
        self.cluster, self.recorder, self.version = cluster, recorder, version
        self.directory = HERE / cluster.version / version
        self.directory.mkdir(parents=True, exist_ok=True)

    def register(self, name, path, changes, marked):
        """Registers a webhook, and waits until the API server has taken notice."""
        body = registration(name, self.recorder.ca, self.recorder.url + path, [self.version], changes)
        self.cluster.must(201, "POST", WEBHOOKS, body)
        self.cluster.eventually(f"{name} is asked", lambda: self.is_asked(path, marked))

    def is_asked(self, path, marked):
        self.cluster.must(201, "POST", f"{PODS}?dryRun=All", marked)
        return any(asked == path for asked, _ in self.recorder.taken())

    def unregister(self, name, path, marked):
        self.cluster.must(200, "DELETE", f"{WEBHOOKS}/{name}")
        self.cluster.eventually(f"{name} is no longer asked", lambda: not self.is_asked(path, marked))

    def ask(self, name, status, method, path, body=None, user="admin", kind="application/json"):
        """Does something; what was asked about it is kept under `name`, and under `name-again` what
        was asked at a second invocation."""
        self.recorder.taken()
        answer = self.cluster.must(status, method, path, body, user, kind)
        reviews = [review for asked, review in self.recorder.taken() if asked != "/mesh"]
        assert reviews, f"nothing was asked about {name}"
        for review, suffix in zip(reviews, ("", "-again"), strict=name in AGAIN):
            if not suffix or name in AGAIN:
                (self.directory / f"{name}{suffix}.json").write_bytes(review)
        return answer

    def creations(self):
        """The pods of people and controllers; each comes out with its sidecar, or not at all."""
        native = self.cluster.minor >= 29
        for name, (user, query, pod, status) in pods.created(native).items():
            answer = self.ask(name, status, "POST", PODS + query, pod, user)
            if status != 201:
                assert "bearerd cannot be injected" in answer["message"], answer
                continue
            ordinary = pod["metadata"].get("annotations", {}).get("bearerd/mode") == "ordinary"
            place = "containers" if ordinary or not native else "initContainers"
            [sidecar] = [one for one in answer["spec"][place] if one["name"] == "bearerd"]
            assert ("restartPolicy" in sidecar) == (place == "initContainers"), answer
            others = [one for one in answer["spec"]["containers"] if one["name"] != "bearerd"]
            for container in others:
                assert container["env"][0]["value"].startswith("http://127.0.0.1:"), answer
            if not query:
                where = f"{PODS}/{answer['metadata']['name']}?gracePeriodSeconds=0"
                self.cluster.must(200, "DELETE", where)

    def others(self):
        """What else happens to a pod. The chart's webhook is not asked about it."""
        self.ask("creation", 201, "POST", PODS, pods.plain("orders-0"), "alice")
        labels = {"metadata": {"labels": {"tier": "back"}}}
        merge = "application/merge-patch+json"
        self.ask("update", 200, "PATCH", f"{PODS}/orders-0", labels, "alice", merge)
        if self.cluster.minor >= 25:
            debugger = {"spec": {"ephemeralContainers": [pods.container("debugger-4k2fw")]}}
            path = f"{PODS}/orders-0/ephemeralcontainers"
            strategic = "application/strategic-merge-patch+json"
            self.ask("ephemeral-container", 200, "PATCH", path, debugger, "alice", strategic)
        # No node has it yet, which the API server finds out after it has asked.
        self.ask("exec", 400, "POST", f"{PODS}/orders-0/exec?container=orders&command=ls", {}, "alice")
        binding = {"metadata": {"name": "orders-0"}, "target": {"kind": "Node", "name": "node-1"}}
        self.ask("binding", 201, "POST", f"{PODS}/orders-0/binding", binding)
        path = f"{PODS}/orders-0?gracePeriodSeconds=0"
        self.ask("deletion", 200, "DELETE", path, None, "replicaset-controller")

    def run(self):
        asks, meshed = pods.plain("probe"), pods.plain("probe")
        labels = meshed["metadata"]["labels"] = {"mesh": "true"}
        mesh = {"name": "mesh.example.webhook", "objectSelector": {"matchLabels": labels}}
        self.register("bearerd-injector", "/inject", {}, asks)
        # Configurations are called in the order of their names.
        self.register("mesh", "/mesh", mesh, meshed)
        self.creations()
        self.unregister("mesh", "/mesh", meshed)
        self.unregister("bearerd-injector", "/inject", asks)
        everything = [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"],
                       "resources": ["pods", "pods/*"]}]
        broad = {"rules": everything, "objectSelector": {}}
        self.register("bearerd-injector", "/inject", broad, asks)
        self.others()
        self.unregister("bearerd-injector", "/inject", asks)


def main():
    shape = argparse.RawDescriptionHelpFormatter
    told = argparse.ArgumentParser(description=__doc__, formatter_class=shape)
    for program in ("apiserver", "etcd", "injector"):
        told.add_argument(f"--{program}", required=True, type=pathlib.Path)
    told = told.parse_args()
    with tempfile.TemporaryDirectory() as home:
        home = pathlib.Path(home)
        certificate(home)
        with Cluster(told.apiserver, told.etcd, home) as cluster:
            cluster.prepare()
            with injector(told.injector, home, cluster) as address, Recorder(home, address) as recorder:
                for version in ("v1", "v1beta1"):
                    Recording(cluster, recorder, version).run()
                print(f"Kubernetes {cluster.version}: {recorder.count} reviews")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Records what a kube-apiserver asks the injector, byte for byte.

    record.py --apiserver kube-apiserver --controller-manager kube-controller-manager --etcd etcd \\
        --injector target/debug/bearerd-injector

It starts the four on loopback with keys that end with them, registers the chart's webhook, does with
pods what people and controllers do, and writes each review to VERSION/REVIEW_VERSION/NAME.json beside
itself. The reviews are passed on to the injector, and its answers back: a pod that the API server does
not take, or takes without its sidecar, ends the recording. Besides Python it needs openssl.
"""

import argparse
import json
import pathlib
import tempfile

import pods
from cluster import Cluster, Recorder, certificate, controllers, injector

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
        self.native = cluster.minor >= 29

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
        """The pods of people, and of controllers as `pods.py` knows them; each comes out with its sidecar,
        or not at all."""
        for name, (user, query, pod, status) in pods.created(self.native).items():
            answer = self.ask(name, status, "POST", PODS + query, pod, user)
            if status != 201:
                assert "bearerd cannot be injected" in answer["message"], answer
                continue
            self.check(answer)
            if not query:
                where = f"{PODS}/{answer['metadata']['name']}?gracePeriodSeconds=0"
                self.cluster.must(200, "DELETE", where)

    def check(self, pod):
        """It has its sidecar, in the right form, and everybody knows it."""
        ordinary = pod["metadata"]["annotations"].get("bearerd/mode") == "ordinary"
        place = "containers" if ordinary or not self.native else "initContainers"
        [sidecar] = [one for one in pod["spec"][place] if one["name"] == "bearerd"]
        assert ("restartPolicy" in sidecar) == (place == "initContainers"), pod
        for container in pod["spec"]["containers"]:
            told = container.get("env", [{}])[0].get("value", "")
            assert container is sidecar or told.startswith("http://127.0.0.1:"), pod

    def controlled(self):
        """The pods that the real controllers make."""
        for kind, (where, workload) in pods.workloads(self.version).items():
            self.recorder.taken()
            self.cluster.must(201, "POST", where, workload)
            name = workload["metadata"]["name"]
            self.cluster.eventually(f"a {kind} makes a pod", lambda name=name: self.made(name))
            [pod] = self.made(name)
            assert [owner["kind"] for owner in pod["metadata"]["ownerReferences"]] == [kind], pod
            self.check(pod)
            first = next(review for asked, review in self.recorder.taken() if asked == "/inject")
            (self.directory / f"of-{kind.lower()}.json").write_bytes(first)

    def made(self, name):
        return self.cluster.must(200, "GET", f"{PODS}?labelSelector=app.kubernetes.io/name={name}")["items"]

    def others(self):
        """What else happens to a pod. The chart's webhook is not asked about it. This one asks for a
        sidecar when it is too late for one."""
        pod = pods.plain("orders-0")
        pod["metadata"]["labels"]["bearerd/inject"] = "false"
        self.ask("creation", 201, "POST", PODS, pod, "alice")
        asks = {"metadata": {"labels": pods.ASKS}}
        merge = "application/merge-patch+json"
        self.ask("update", 200, "PATCH", f"{PODS}/orders-0", asks, "alice", merge)
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
        self.controlled()
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
    for program in ("apiserver", "controller-manager", "etcd", "injector"):
        told.add_argument(f"--{program}", required=True, type=pathlib.Path)
    told = told.parse_args()
    with tempfile.TemporaryDirectory() as home:
        home = pathlib.Path(home)
        certificate(home)
        with Cluster(told.apiserver, told.etcd, home) as cluster:
            cluster.prepare()
            with (controllers(told.controller_manager, home, cluster),
                  injector(told.injector, home, cluster) as address,
                  Recorder(home, address) as recorder):
                for version in ("v1", "v1beta1"):
                    Recording(cluster, recorder, version).run()
                print(f"Kubernetes {cluster.version}: {recorder.count} reviews")


if __name__ == "__main__":
    main()

"""bearerd-injector as the API server meets it: the chart's certificate, the chart's arguments."""

import base64
import http.client
import json
import os
import socket
import ssl
import subprocess
import threading

import pytest
import yaml

from manifests import CHART, documents, helm

ENABLED = "injector.enabled=true"
IMAGE = "registry.example/bearerd:0.1.0"


class Installation:
    """What the chart renders, and the program run with it."""

    def __init__(self, program, home, values=()):
        self.rendered = documents(helm(CHART, [ENABLED, *values]).stdout)
        self.program, self.home = program, home
        self.webhook = self.the("MutatingWebhookConfiguration")["webhooks"][0]
        secret = self.the("Secret")["data"]
        for name in ("tls.crt", "tls.key"):
            (home / name).write_bytes(base64.b64decode(secret[name]))
        container = self.the("Deployment")["spec"]["template"]["spec"]["containers"][0]
        arguments = [word.replace("/etc/bearerd-injector", str(home)) for word in container["args"]]
        self.process = subprocess.Popen(
            [program, *arguments, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"],
            stderr=subprocess.PIPE, text=True, env={**os.environ, "RUST_LOG": "info"})
        line = next(line for line in self.process.stderr if "is listening" in line)
        # A pipe that nobody reads would hold it up one day.
        self.reader = threading.Thread(target=self.process.stderr.read)
        self.reader.start()
        told = json.loads(line)
        self.reviews, self.admin = (told[key].rpartition(":")[2] for key in ("listen", "admin"))

    def the(self, kind):
        return next(document for document in self.rendered if document["kind"] == kind)

    def review(self, pod, namespace="orders"):
        """What the API server asks, by the webhook's configuration, and what it is told."""
        service = self.webhook["clientConfig"]["service"]
        host = f"{service['name']}.{service['namespace']}.svc"
        trusted = base64.b64decode(self.webhook["clientConfig"]["caBundle"]).decode()
        context = ssl.create_default_context(cadata=trusted)
        plain = socket.create_connection(("127.0.0.1", int(self.reviews)), timeout=10)
        connection = http.client.HTTPConnection(host)
        connection.sock = context.wrap_socket(plain, server_hostname=host)
        connection.request("POST", service["path"], json.dumps(review(pod, namespace)),
                           {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer["response"]

    def inject(self, pod):
        """The pod with the answer's patch in it."""
        answer = self.review(pod)
        assert answer["allowed"], answer
        pod = json.loads(json.dumps(pod))
        for operation in json.loads(base64.b64decode(answer["patch"])):
            _, part, name = operation["path"].split("/")
            assert operation["op"] == "add"
            pod.setdefault(part, {})[name] = operation["value"]
        return pod

    def helm_test(self):
        """What the pod of `helm test` does, where the service's name is that of this machine: the name
        is put into a mount namespace's /etc/hosts, the port is the one that was free."""
        pod = self.the("Pod")["spec"]
        [volume] = pod["volumes"]
        for item in volume["secret"]["items"]:
            content = base64.b64decode(self.the("Secret")["data"][item["key"]])
            (self.home / item["path"]).write_bytes(content)
        [container] = pod["containers"]
        [mount] = container["volumeMounts"]
        service = self.webhook["clientConfig"]["service"]
        host = f"{service['name']}.{service['namespace']}.svc"
        (self.home / "hosts").write_text(f"127.0.0.1 {host}\n")
        arguments = [word.replace(mount["mountPath"], str(self.home))
                     .replace(f"{host}:{service['port']}", f"{host}:{self.reviews}")
                     for word in container["args"]]
        assert f"--webhook={host}:{self.reviews}" in arguments
        script = 'mount --bind "$0" /etc/hosts && exec "$@"'
        return subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, self.home / "hosts", self.program, *arguments],
            capture_output=True, text=True, check=False, timeout=60)

    def told(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", int(self.admin), timeout=10)
        connection.request("GET", path)
        return connection.getresponse().read().decode()

    def end(self):
        self.process.terminate()
        assert self.process.wait(timeout=30) == 0
        self.reader.join()
        self.process.stderr.close()


def review(pod, namespace):
    """What an API server asks about a pod."""
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "1", "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "namespace": namespace, "operation": "CREATE", "object": pod}}


def pod_of(workload):
    """The pod that a controller makes of a workload, with the label that asks for a sidecar."""
    template = yaml.safe_load(yaml.safe_dump(workload["spec"]["template"]))
    template["metadata"]["labels"]["bearerd/inject"] = "true"
    return {"apiVersion": "v1", "kind": "Pod", **template}


def without_sidecar(workload):
    """A workload of deploy/kubernetes as its author had it before there was a sidecar in it."""
    workload = yaml.safe_load(yaml.safe_dump(workload))
    spec = workload["spec"]["template"]["spec"]
    for field in ("initContainers", "containers"):
        spec[field] = [one for one in spec.pop(field, []) if one["name"] != "bearerd"]
    if not spec["initContainers"]:
        del spec["initContainers"]
    del spec["volumes"]
    return workload


@pytest.fixture
def install(injector_program, tmp_path_factory):
    running = []

    def install(*values):
        home = tmp_path_factory.mktemp("injector")
        running.append(Installation(injector_program, home, values))
        return running[-1]

    yield install
    for one in running:
        one.end()

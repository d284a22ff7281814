"""The injector: what the chart installs fits the program, and what it makes is what the manifests
show."""

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import kubernetes_validate.utils
import pytest
import yaml

from conftest import APPLICATION, DEPLOY, WORLD, run
from injector import ENABLED, IMAGE, install, pod_of, without_sidecar
from manifests import CHART, documents, helm
from pod import until
from test_manifests import VERSIONS

__all__ = ["install"]

NATIVE = "injector.kubernetesVersion=1.31"
# The chart's schema wants a string, which --set would make a number of.
OLD = "injector.kubernetesVersion=v1.28"


def workload(manifest):
    return next(document for document in documents((DEPLOY / "kubernetes" / manifest).read_text())
                if document["kind"] in ("Deployment", "Job"))


def sidecar_of(pod):
    spec = pod["spec"]
    return next(one for one in spec.get("initContainers", []) + spec["containers"]
                if one["name"] == "bearerd")


def comparable(pod):
    """The sidecar with what its pod says for all containers, and its volumes' names and places."""
    container = dict(sidecar_of(pod))
    security = {**pod["spec"].get("securityContext", {}), **container["securityContext"]}
    container["securityContext"] = {
        name: value for name, value in security.items() if not name.startswith("fsGroup")}
    mounts = {mount["name"]: mount for mount in container.pop("volumeMounts")}
    mounts.pop("bearerd-store", None)
    return container, mounts


@pytest.mark.parametrize(("manifest", "version", "annotations"), [
    ("sidecar.yaml", NATIVE, {"bearerd/config": "orders-bearerd",
                              "bearerd/token-audience": "https://api.example.com"}),
    ("rotating.yaml", NATIVE, {"bearerd/config": "orders-bearerd", "bearerd/secret": "orders-oauth",
                               "bearerd/store": "claim:orders-bearerd"}),
    ("legacy.yaml", NATIVE, {"bearerd/config": "orders-bearerd", "bearerd/secret": "orders-oauth",
                             "bearerd/mode": "ordinary"}),
])
def test_what_is_injected_is_what_the_manifests_show(install, manifest, version, annotations):
    shown = workload(manifest)
    pod = pod_of(without_sidecar(shown))
    pod["metadata"]["annotations"] = annotations
    injected = install(version).inject(pod)
    expected = {"spec": shown["spec"]["template"]["spec"]}
    assert comparable(injected) == comparable(expected)
    lists = [field for field in ("initContainers", "containers") if field in expected["spec"]]
    for field in lists:
        assert [one["name"] for one in injected["spec"][field]] == [
            one["name"] for one in expected["spec"][field]]
    ours = {volume["name"]: volume for volume in injected["spec"]["volumes"]}
    for volume in expected["spec"]["volumes"]:
        if volume["name"] == "bearerd-secrets":
            # It may hold a token and a Secret, so it is projected in either case.
            sources = json.dumps(ours["bearerd-secrets"]["projected"]["sources"])
            for source in volume.get("projected", {}).get("sources", []):
                assert json.dumps(source["serviceAccountToken"]["audience"]) in sources
            assert volume.get("secret", {}).get("secretName", "") in sources
        else:
            assert ours[volume["name"]] == volume
    assert injected["spec"]["terminationGracePeriodSeconds"] == 60
    environment = injected["spec"]["containers"][-1]["env"]
    assert {"name": "BEARERD_BASE_URL", "value": "http://127.0.0.1:8080"} in environment


def test_what_is_injected_is_valid_in_every_kubernetes_that_knows_it(install):
    plain = yaml.safe_load((DEPLOY / "kustomize/example/deployment.yaml").read_text())
    every = {kubernetes_validate.utils.major_minor(version)
             for version in kubernetes_validate.utils.all_versions()}
    assert every > set(VERSIONS), "none that has no native sidecars"
    for version, known in [(NATIVE, VERSIONS), (OLD, every)]:
        injected = install(version).inject(pod_of(plain))
        for kubernetes in known:
            kubernetes_validate.utils.validate(injected, kubernetes, strict=True)


def test_the_component_adds_what_the_injector_adds(install):
    text = run("kubectl", "kustomize", DEPLOY / "kustomize/example").stdout
    component = next(document for document in documents(text) if document["kind"] == "Deployment")
    plain = yaml.safe_load((DEPLOY / "kustomize/example/deployment.yaml").read_text())
    injected = install(NATIVE).inject(pod_of(plain))
    expected = {"spec": component["spec"]["template"]["spec"]}
    assert comparable(injected) == comparable(expected)
    for pod in (injected, expected):
        own = plain["spec"]["template"]["spec"]["securityContext"]
        assert pod["spec"]["securityContext"] == own, "whose files the pod has is not ours to say"


def test_what_the_chart_says_of_the_sidecar_holds_for_those_that_are_injected(install):
    plain = yaml.safe_load((DEPLOY / "kustomize/example/deployment.yaml").read_text())
    installation = install(
        NATIVE, "image.pullPolicy=Always", "sidecar.startupSeconds=30", "sidecar.native=false",
        "sidecar.preStopSeconds=5", "sidecar.resources.limits.memory=128Mi",
        "sidecar.resources.limits.cpu=2", "sidecar.resources.requests.cpu=50m")
    pod = pod_of(plain)
    container = sidecar_of(installation.inject(pod))
    assert container["resources"] == {"requests": {"cpu": "50m", "memory": "16Mi"},
                                      "limits": {"cpu": "2", "memory": "128Mi"}}
    assert container["imagePullPolicy"] == "Always"
    assert container["lifecycle"]["postStart"]["exec"]["command"][-1] == "30"
    assert container["lifecycle"]["preStop"] == {"sleep": {"seconds": 5}}
    pod["metadata"]["annotations"] = {"bearerd/mode": "native", "bearerd/memory-limit": "96Mi"}
    container = sidecar_of(installation.inject(pod))
    assert container["restartPolicy"] == "Always"
    assert container["resources"]["limits"]["memory"] == "96Mi"
    refused = helm(CHART, [ENABLED, "sidecar.resources.limits.ephemeral-storage=1Gi"], check=False)
    assert "the injector knows cpu and memory only" in refused.stderr


def test_helm_test_asks_the_injector_at_its_service_as_whom_the_api_server_trusts(install):
    installation = install(NATIVE)
    done = installation.helm_test()
    assert done.returncode == 0, done.stderr
    injected = 'bearerd_injector_reviews_total{outcome="injected"} 1'
    assert injected in installation.told("/metrics")
    # Another installation's authority.
    other = install(NATIVE).the("Secret")["data"]["ca.crt"]
    installation.the("Secret")["data"]["ca.crt"] = other
    done = installation.helm_test()
    assert done.returncode == 69 and "cannot be asked" in done.stderr, done.stderr


def test_the_api_server_is_told_whom_to_trust_and_whom_not_to_ask_about(install):
    installation = install(NATIVE, "injector.excludedNamespaces={legacy}")
    webhook = installation.webhook
    assert webhook["reinvocationPolicy"] == "IfNeeded"
    assert webhook["sideEffects"] == "None"
    assert webhook["admissionReviewVersions"] == ["v1", "v1beta1"]
    assert webhook["objectSelector"] == {"matchLabels": {"bearerd/inject": "true"}}
    [expression] = webhook["namespaceSelector"]["matchExpressions"]
    assert (expression["key"], expression["operator"]) == ("kubernetes.io/metadata.name", "NotIn")
    excluded = ["kube-system", "kube-public", "kube-node-lease", "shop", "legacy"]
    assert expression["values"] == excluded
    # And the program leaves them alone even if it is asked. The release is in the namespace shop.
    pod = pod_of(yaml.safe_load((DEPLOY / "kustomize/example/deployment.yaml").read_text()))
    for namespace in excluded:
        answer = installation.review(pod, namespace)
        assert answer == {"uid": "1", "allowed": True}
    assert "patch" in installation.review(pod)


def test_the_webhook_is_the_one_that_the_emulated_cluster_was_tested_with():
    rendered = documents(run(
        "helm", "template", "bearerd", CHART, "--namespace", "bearerd-system", "--set",
        ENABLED).stdout)
    [webhook] = next(document["webhooks"] for document in rendered
                     if document["kind"] == "MutatingWebhookConfiguration")
    del webhook["clientConfig"]["caBundle"]
    tested = json.loads((DEPLOY / "injector/tests/webhook.json").read_text())
    assert webhook == tested


def test_a_refusal_says_why(install):
    pod = pod_of(yaml.safe_load((DEPLOY / "kustomize/example/deployment.yaml").read_text()))
    pod["spec"]["hostNetwork"] = True
    answer = install(NATIVE).review(pod)
    assert not answer["allowed"] and "loopback is the node's" in answer["status"]["message"]


def test_its_metrics_are_clean(install):
    installation = install(NATIVE)
    metrics = installation.told("/metrics")
    assert "bearerd_injector_reviews_total" in metrics
    run("promtool", "check", "metrics", stdin=metrics)
    assert installation.told("/readyz") == "ok\n"


KINDS = {
    "v1": ["Secret", "Service", "ServiceAccount"],
    "apps/v1": ["Deployment"],
    "policy/v1": ["PodDisruptionBudget"],
    "networking.k8s.io/v1": ["NetworkPolicy"],
    "admissionregistration.k8s.io/v1": ["MutatingWebhookConfiguration"],
}


def discovery():
    """What an API server says about its kinds."""
    versions = [{"groupVersion": name, "version": "v1"} for name in KINDS]
    answers = {
        "/version": {"major": "1", "minor": "31", "gitVersion": "v1.31.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [
            {"name": version["groupVersion"].partition("/")[0], "versions": [version],
             "preferredVersion": version} for version in versions[1:]]},
    }
    for name, kinds in KINDS.items():
        answers[f"/{'apis' if '/' in name else 'api'}/{name}"] = {
            "kind": "APIResourceList", "groupVersion": name, "resources": [
                {"name": f"{kind.lower()}s", "singularName": kind.lower(), "kind": kind,
                 "namespaced": kind != "MutatingWebhookConfiguration", "verbs": ["get"]}
                for kind in kinds]}
    return answers


class Cluster(BaseHTTPRequestHandler):
    """As much of an API server as Helm asks for: its kinds, and one Secret."""

    def do_GET(self):
        path = self.path.partition("?")[0]
        answer = discovery().get(path)
        if path.startswith("/api/v1/namespaces/shop/secrets/"):
            answer = self.server.secret
        status = 200 if answer else 404
        answer = answer or {"kind": "Status", "apiVersion": "v1", "status": "Failure",
                            "reason": "NotFound", "code": 404}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def cluster(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Cluster)
    server.secret = None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    name = {"cluster": "emulated"}
    (tmp_path / "config").write_text(yaml.safe_dump({
        "apiVersion": "v1", "kind": "Config", "current-context": "emulated",
        "clusters": [{"name": "emulated", "cluster": {
            "server": f"http://127.0.0.1:{server.server_port}"}}],
        "contexts": [{"name": "emulated", "context": name}]}))
    server.environment = {"KUBECONFIG": str(tmp_path / "config")}
    yield server
    server.shutdown()
    server.server_close()


def test_an_upgrade_keeps_the_generated_certificate_until_it_is_to_be_renewed(cluster):
    def rendered():
        text = run("helm", "template", "platform", CHART, "--namespace", "shop",
                   "--dry-run=server", "--disable-openapi-validation", "--set", ENABLED,
                   env=cluster.environment).stdout
        objects = {document["kind"]: document for document in documents(text)}
        webhook = objects["MutatingWebhookConfiguration"]["webhooks"][0]
        return objects["Secret"], webhook["clientConfig"]["caBundle"]

    secret, trusted = rendered()
    assert secret["data"]["ca.crt"] == trusted
    again, _ = rendered()
    assert again["data"] != secret["data"], "nothing was there, so it was made anew"
    annotations = secret["metadata"]["annotations"]
    renew_after = int(annotations["bearerd/renew-after"])
    assert renew_after == pytest.approx(time.time() + 0.8 * 3650 * 86400, abs=3600)
    # As Helm marks what it has installed.
    annotations |= {"meta.helm.sh/release-name": "platform", "meta.helm.sh/release-namespace": "shop"}
    cluster.secret = secret
    kept, still_trusted = rendered()
    assert (kept["data"], still_trusted) == (secret["data"], trusted)
    assert kept["metadata"]["annotations"]["bearerd/renew-after"] == str(renew_after)
    annotations["bearerd/renew-after"] = str(int(time.time()) - 1)
    renewed, now_trusted = rendered()
    assert renewed["data"] != kept["data"]
    # Both, until the kubelet has given the new one to every replica.
    both = renewed["data"]["ca.crt"], kept["data"]["ca.crt"]
    assert base64.b64decode(now_trusted) == b"".join(map(base64.b64decode, both))
    cluster.secret = {**renewed, "metadata": {**renewed["metadata"], "annotations": {
        **annotations, "bearerd/renew-after": str(renew_after)}}}
    assert rendered()[1] == renewed["data"]["ca.crt"], "and then the new one alone"
    cluster.secret = secret
    # One that does not say how long it is good is not trusted to be.
    del annotations["bearerd/renew-after"]
    assert rendered()[0]["data"] != kept["data"]


def test_the_certificate_says_the_services_name_and_lasts_as_long_as_it_should(tmp_path):
    secret = next(document for document in documents(helm(CHART, [ENABLED]).stdout)
                  if document["kind"] == "Secret")
    for name in ("tls.crt", "ca.crt"):
        (tmp_path / name).write_bytes(base64.b64decode(secret["data"][name]))
    shown = run("openssl", "x509", "-in", tmp_path / "tls.crt", "-noout", "-ext", "subjectAltName",
                "-checkend", str(3649 * 86400)).stdout
    assert "DNS:platform-bearerd-injector.shop.svc" in shown
    run("openssl", "verify", "-CAfile", tmp_path / "ca.crt", tmp_path / "tls.crt")


def test_an_injected_pod_runs(install, start, tmp_path):
    plain = yaml.safe_load((DEPLOY / "kustomize/example/deployment.yaml").read_text())
    pod = pod_of(plain)
    pod["metadata"]["annotations"] = {"bearerd/secret": "orders-oauth"}
    injected = install(NATIVE).inject(pod)
    assert sidecar_of(injected)["image"] == IMAGE
    plain["spec"]["template"] = {name: injected[name] for name in ("metadata", "spec")}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "data": {
        "bearerd.toml": (DEPLOY / "kustomize/example/bearerd.toml").read_text()}}
    manifest = tmp_path / "injected.yaml"
    manifest.write_text(yaml.safe_dump_all([config, plain]))
    application = APPLICATION.replace("http://127.0.0.1:8080", "$BEARERD_BASE_URL")
    running = start(manifest, application, {"client-secret": "first"}, WORLD)
    until("requests", lambda: running.ask()["ok"] > 3)
    assert running.stop("orders") == 0
    assert "failed request" not in running.logs("orders"), running.logs("orders")
    assert running.stop("bearerd") == 0

"""The role of shared.yaml at an API server: it is enough for the program, and for nothing else."""

import base64
import json
import os
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest

from conftest import DEPLOY
from containers import ROOT
from manifests import documents, pod_spec

SHARED = documents((DEPLOY / "kubernetes/shared.yaml").read_text())
SECRETS = "/api/v1/namespaces/shop/secrets"
PLACES = {
    "Secret": SECRETS,
    "ServiceAccount": "/api/v1/namespaces/shop/serviceaccounts",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings",
}


class Cluster:
    """The emulated API server, with what shared.yaml has for one."""

    def __init__(self, said):
        self.url, self.ca, self.admin = said["url"], said["ca"], said["token"]
        self.context = ssl.create_default_context(cadata=self.ca)
        for document in SHARED:
            if document["kind"] in PLACES:
                assert self.ask("POST", PLACES[document["kind"]], document)[0] == 201
        request = {"spec": {"expirationSeconds": 3607}}
        account = f"{PLACES['ServiceAccount']}/orders/token"
        self.token = self.ask("POST", account, request)[1]["status"]["token"]

    def ask(self, method, path, body=None, token=None):
        request = urllib.request.Request(
            self.url + path, method=method, data=body and json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {token or self.admin}",
                     "Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, context=self.context, timeout=20) as answer:
                return answer.status, json.loads(answer.read() or "null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or "null")


@pytest.fixture
def cluster():
    server = os.environ.get("BEARERD_API_SERVER", "none")
    if not os.path.isfile(server):
        pytest.fail("BEARERD_API_SERVER names no program; run `make test-deploy`", pytrace=False)
    process = subprocess.Popen([server], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        yield Cluster(json.loads(process.stdout.readline()))
        process.stdin.close()


def test_the_role_allows_one_secret_and_three_verbs(cluster):
    def status(method, path, body=None):
        return cluster.ask(method, path, body, cluster.token)[0]

    by_name = f"{SECRETS}?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3D"
    found, secret = cluster.ask("GET", f"{SECRETS}/orders-tokens", token=cluster.token)
    assert (found, "data" in secret) == (200, False)
    assert status("PUT", f"{SECRETS}/orders-tokens", secret) == 200
    watched, event = cluster.ask("GET", by_name + "orders-tokens", token=cluster.token)
    assert (watched, event["type"]) == (200, "ADDED")
    for method, path, body in [
        ("GET", SECRETS, None), ("POST", SECRETS, secret), ("GET", f"{SECRETS}/other", None),
        ("PUT", f"{SECRETS}/other", secret), ("DELETE", f"{SECRETS}/orders-tokens", None),
        ("PATCH", f"{SECRETS}/orders-tokens", {}), ("GET", f"{SECRETS}?watch=1", None),
        ("GET", by_name + "other", None), ("GET", "/api/v1/secrets", None),
        ("GET", "/api/v1/namespaces/other/secrets/orders-tokens", None),
        ("GET", PLACES["Role"], None),
    ]:
        assert status(method, path, body) == 403, (method, path)


@contextmanager
def running(program, cluster, home):
    """The program with the configuration of the manifest, as its container sees it."""
    pod = next(filter(None, map(pod_spec, SHARED)))
    config = next(document for document in SHARED if document["kind"] == "ConfigMap")
    config = config["data"]["bearerd.toml"]
    account, secrets = home / "account", home / "secrets"
    for directory, files in [(account, {"ca.crt": cluster.ca, "token": cluster.token}),
                             (secrets, {"client-secret": "s", "refresh-token": "r"})]:
        directory.mkdir()
        for name, text in files.items():
            (directory / name).write_text(text)
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["initContainers"][0]["volumeMounts"]}
    store = 'store = "kubernetes:shop/orders-tokens"'
    for there, here in [
        (mounts["bearerd-secrets"], str(secrets)), ("0.0.0.0:9901", "127.0.0.1:0"),
        ("[server]\n", '[server]\nlisten = ["127.0.0.1:0"]\n'),
        # Nobody is there: what lies in the store is seen before any answer.
        ("https://idp.example/oauth2/token", "http://127.0.0.1:1/token"),
        (store, f'{store}\nstore_options = {{ service_account = "{account}" }}'),
    ]:
        assert there in config
        config = config.replace(there, here)
    assert mounts["bearerd-account"] == "/var/run/secrets/kubernetes.io/serviceaccount"
    (home / "bearerd.toml").write_text(config)
    host, _, port = cluster.url.removeprefix("https://").partition(":")
    environment = {**os.environ, "KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    with subprocess.Popen([program, "run", "--config", home / "bearerd.toml"], cwd=ROOT,
                          env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield
        finally:
            process.terminate()
            process.communicate(timeout=60)


def test_the_program_gets_on_with_it(program, cluster, tmp_path):
    with running(program, cluster, tmp_path):
        ends = time.monotonic() + 60
        while "bearerd" not in (held := cluster.ask("GET", f"{SECRETS}/orders-tokens")[1].get("data", {})):
            assert time.monotonic() < ends, "nothing was written"
            time.sleep(0.1)
    document = json.loads(base64.b64decode(held["bearerd"]))["document"]
    assert document["epoch"] > 0 and document["generation"] == 0

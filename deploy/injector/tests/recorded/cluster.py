"""etcd and a kube-apiserver on loopback, the injector, and the recorder between them."""

import base64
import contextlib
import http.client
import http.server
import json
import os
import socket
import ssl
import subprocess
import threading
import time

DEADLINE = 60
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
SERVICE_ACCOUNTS = {"kube-system": ["replicaset-controller", "job-controller", "daemon-set-controller"],
                    "shop": ["default", "orders"]}


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def certificate(home):
    """An authority, a certificate for all who serve here, and the key that the API server signs with."""
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj"]
    openssl("req", "-x509", *new, "/CN=authority", "-days", "2", "-addext", "keyUsage=critical,keyCertSign",
            "-keyout", home / "ca.key", "-out", home / "ca.crt")
    openssl("req", "-new", *new, "/CN=recorder", "-keyout", home / "tls.key", "-out", home / "tls.csr")
    (home / "extensions").write_text(
        "basicConstraints=critical,CA:FALSE\nsubjectAltName=IP:127.0.0.1\n"
        "authorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n")
    openssl("x509", "-req", "-in", home / "tls.csr", "-days", "2", "-extfile", home / "extensions",
            "-CA", home / "ca.crt", "-CAkey", home / "ca.key", "-CAcreateserial", "-out", home / "tls.crt")
    openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", home / "tokens.key")


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def end(process):
    process.terminate()
    process.wait(timeout=DEADLINE)


class Cluster:
    """Nothing but an API server and its store: no controllers, no nodes."""

    def __init__(self, apiserver, etcd, home):
        self.home, self.port = home, free_port()
        client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self.tokens = {"admin": "of-the-administrator", "alice": "of-alice"}
        (home / "users.csv").write_text(
            'of-the-administrator,admin,admin,"system:masters"\nof-alice,alice,alice,"developers"\n')
        self.etcd = self.spawn("etcd", [
            etcd, "--data-dir", home / "etcd", "--listen-client-urls", client,
            "--advertise-client-urls", client, "--listen-peer-urls", peer,
            "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"])
        self.apiserver = self.spawn("apiserver", [
            apiserver, "--etcd-servers", client, "--bind-address", "127.0.0.1",
            "--advertise-address", "127.0.0.1", "--secure-port", str(self.port), "--tls-cert-file", home / "tls.crt",
            "--tls-private-key-file", home / "tls.key", "--token-auth-file", home / "users.csv",
            "--authorization-mode", "RBAC", "--service-cluster-ip-range", "10.0.0.0/24",
            "--endpoint-reconciler-type", "none", "--service-account-issuer", "https://kubernetes.example",
            "--service-account-key-file", home / "tokens.key",
            "--service-account-signing-key-file", home / "tokens.key"])

    def spawn(self, name, command):
        log = (self.home / f"{name}.log").open("wb")
        return subprocess.Popen(command, stdout=log, stderr=log)

    def __enter__(self):
        self.eventually("the API server is ready", self.is_ready)
        told = self.must(200, "GET", "/version")
        self.version = told["gitVersion"].removeprefix("v").partition("-")[0].partition("+")[0]
        self.minor = int(self.version.split(".")[1])
        return self

    def __exit__(self, *_):
        end(self.apiserver)
        end(self.etcd)

    def is_ready(self):
        if self.apiserver.poll() is not None:
            raise SystemExit((self.home / "apiserver.log").read_text()[-4000:])
        try:
            return self.call("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def eventually(self, what, holds):
        end = time.monotonic() + DEADLINE
        while not holds():
            assert time.monotonic() < end, f"not in time: {what}"
            time.sleep(0.2)

    def call(self, method, path, body=None, user="admin", kind="application/json"):
        context = ssl.create_default_context(cafile=self.home / "ca.crt")
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=DEADLINE)
        with contextlib.closing(connection):
            fields = {"Authorization": f"Bearer {self.tokens[user]}", "Content-Type": kind,
                      "User-Agent": "recorder"}
            connection.request(method, path, None if body is None else json.dumps(body), fields)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def must(self, status, *arguments, **more):
        answered, body = self.call(*arguments, **more)
        assert answered == status, f"{arguments}: {answered} {body.decode()}"
        return json.loads(body)

    def prepare(self):
        """What controllers would have made, and what the users may do."""
        self.must(201, "POST", "/api/v1/namespaces", {"metadata": {"name": "shop", "labels": RESTRICTED}})
        for namespace, names in SERVICE_ACCOUNTS.items():
            for name in names:
                self.service_account(namespace, name)
        rules = [{"apiGroups": [""], "resources": ["*"], "verbs": ["*"]}]
        roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop"
        self.must(201, "POST", f"{roles}/roles", {"metadata": {"name": "pods"}, "rules": rules})
        subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "developers"}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "pods"}
        binding = {"metadata": {"name": "pods"}, "roleRef": role, "subjects": [subject]}
        self.must(201, "POST", f"{roles}/rolebindings", binding)

    def service_account(self, namespace, name):
        accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        account = {"metadata": {"name": name}}
        if self.minor < 21:
            # Before tokens were bound to pods they were in Secrets that a controller made.
            account["secrets"] = [{"name": f"{name}-token-5wq8n"}]
        uid = self.must(201, "POST", accounts, account)["metadata"]["uid"]
        if self.minor < 21:
            kind = "kubernetes.io/service-account"
            secret = {"metadata": {"name": f"{name}-token-5wq8n", "annotations": {
                f"{kind}.name": name, f"{kind}.uid": uid}}, "type": f"{kind}-token",
                "data": {"token": base64.b64encode(b"none").decode()}}
            self.must(201, "POST", f"/api/v1/namespaces/{namespace}/secrets", secret)
        if namespace == "kube-system":
            wanted = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
            granted = self.must(201, "POST", f"{accounts}/{name}/token", wanted)
            self.tokens[name] = granted["status"]["token"]


@contextlib.contextmanager
def controllers(program, home, cluster):
    """The controllers that make pods, each with its own account, and a node for them to think of."""
    server = {"server": f"https://127.0.0.1:{cluster.port}", "certificate-authority": str(home / "ca.crt")}
    (home / "kubeconfig").write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "here", "cluster": server}],
        "users": [{"name": "admin", "user": {"token": cluster.tokens["admin"]}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "admin"}}]}))
    cluster.must(201, "POST", "/api/v1/nodes", {"metadata": {"name": "node-1"}})
    untainted = {"spec": {"taints": None}}
    cluster.must(200, "PATCH", "/api/v1/nodes/node-1", untainted, kind="application/merge-patch+json")
    command = [
        program, "--kubeconfig", home / "kubeconfig", "--use-service-account-credentials",
        "--leader-elect=false", "--controllers", "deployment,replicaset,statefulset,daemonset,job",
        "--service-account-private-key-file", home / "tokens.key",
        "--bind-address", "127.0.0.1", "--secure-port", str(free_port())]
    if cluster.minor < 24:
        # No listener without TLS.
        command.append("--port=0")
    process = cluster.spawn("controllers", command)
    try:
        yield
    finally:
        end(process)


def is_ready(admin):
    connection = http.client.HTTPConnection(admin, timeout=DEADLINE)
    with contextlib.closing(connection):
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200


@contextlib.contextmanager
def injector(program, home, cluster):
    """The program; it asks the API server for its version."""
    (home / "token").write_text(cluster.tokens["alice"])
    process = subprocess.Popen(
        [program, "run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--linger", "0",
         "--image", "registry.example/bearerd:0.1.0", "--certificate", home / "tls.crt",
         "--key", home / "tls.key", "--exclude-namespace", "bearerd-system",
         "--api-server", f"127.0.0.1:{cluster.port}", "--api-server-credentials", home],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "RUST_LOG": "info"})
    told = (json.loads(line) for line in process.stderr)
    told = next(line for line in told if "listen" in line)
    threading.Thread(target=process.stderr.read, daemon=True).start()
    try:
        cluster.eventually("the injector is ready", lambda: is_ready(told["admin"]))
        yield told["listen"]
    finally:
        end(process)


class Recorder:
    """Takes reviews down and passes them on. At /mesh it is another webhook, which adds a container."""

    def __init__(self, home, injector):
        self.home, self.injector, self.count = home, injector, 0
        self.reviews, self.lock = [], threading.Lock()
        self.ca = base64.b64encode((home / "ca.crt").read_bytes()).decode()
        recorder = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = recorder.answer(self.path, body)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(home / "tls.crt", home / "tls.key")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()

    def answer(self, path, body):
        kept = path.partition("?")[0]
        with self.lock:
            self.reviews.append((kept, body))
            self.count += 1
        return (200, mesh(json.loads(body))) if kept == "/mesh" else self.pass_on(path, body)

    def pass_on(self, path, body):
        context = ssl.create_default_context(cafile=self.home / "ca.crt")
        connection = http.client.HTTPSConnection(self.injector, context=context, timeout=DEADLINE)
        with contextlib.closing(connection):
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def taken(self):
        """What has come since the last time."""
        with self.lock:
            taken, self.reviews = self.reviews, []
        return taken


def mesh(review):
    """As service meshes do."""
    response = {"uid": review["request"]["uid"], "allowed": True}
    present = review["request"]["object"]["spec"]["containers"]
    if all(one["name"] != "mesh" for one in present):
        new = present[-1] | {"name": "mesh", "image": "registry.example/mesh:1.0.0", "ports": [], "env": []}
        patch = json.dumps([{"op": "add", "path": "/spec/containers/-", "value": new}])
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(patch.encode()).decode()}
    return json.dumps({"apiVersion": review["apiVersion"], "kind": review["kind"],
                       "response": response}).encode()

"""The pods that are recorded. Those that are not refused comply with Pod Security `restricted`."""

ASKS = {"bearerd/inject": "true"}


def container(name, **more):
    return {"name": name, "image": f"registry.example/{name}:1.0.0", "securityContext": {
        "runAsNonRoot": True, "runAsUser": 10001, "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
    }} | more


def plain(name, **spec):
    """As `kubectl run` makes it."""
    return {"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"run": name} | ASKS},
            "spec": {"containers": [container("orders")]} | spec}


def owned(kind, version, owner, account="orders", annotations=None, labels=None, **spec):
    """As a controller makes it."""
    orders = container(
        "orders", ports=[{"name": "http", "containerPort": 8000}],
        env=[{"name": "LOG_LEVEL", "value": "info"}],
        resources={"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}})
    metadata = {
        "generateName": f"{owner}-",
        "labels": {"app.kubernetes.io/name": "orders"} | ASKS | (labels or {}),
        "ownerReferences": [{
            "apiVersion": version, "kind": kind, "name": owner, "controller": True,
            "blockOwnerDeletion": True, "uid": "6a1f3d0e-2b4c-4e57-9a3b-0d5c1f7e8a92",
        }],
    }
    if annotations:
        metadata["annotations"] = {f"bearerd/{key}": value for key, value in annotations.items()}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata,
            "spec": {"serviceAccountName": account, "containers": [orders]} | spec}


def replica(**more):
    labels = more.pop("labels", {}) | {"pod-template-hash": "7d4b9c6f5"}
    return owned("ReplicaSet", "apps/v1", "orders-7d4b9c6f5", labels=labels, **more)


def workloads(suffix):
    """What controllers make pods of, by the kind of those pods' owners: where it is created, and as what."""
    apps, batch = (f"/apis/{group}/v1/namespaces/shop" for group in ("apps", "batch"))
    made = {}
    for kind, where in [("ReplicaSet", f"{apps}/deployments"), ("StatefulSet", f"{apps}/statefulsets"),
                        ("DaemonSet", f"{apps}/daemonsets"), ("Job", f"{batch}/jobs")]:
        name = f"{kind.lower()}-{suffix}"
        labels = {"app.kubernetes.io/name": name}
        pod = replica()["spec"] | ({"restartPolicy": "Never"} if kind == "Job" else {})
        spec = {"template": {"metadata": {"labels": labels | ASKS}, "spec": pod}}
        if kind != "Job":
            spec["selector"] = {"matchLabels": labels}
        if kind == "StatefulSet":
            spec["serviceName"] = "orders"
        made[kind] = (where, {"metadata": {"name": name}, "spec": spec})
    return made


ANNOTATIONS = {
    "config": "orders-bearerd", "secret": "orders-oauth", "token-audience": "https://api.example",
    "store": "claim:orders-store", "port": "8081", "admin-port": "9911", "memory-limit": "128Mi",
    "env": "ORDERS_API,BILLING_API=/billing",
}


def created(native):
    """By name: who creates it, how, the pod, and what the API server says to it."""
    replicas, jobs, daemons = (f"{one}-controller" for one in ("replicaset", "job", "daemon-set"))
    account = {"serviceAccountName": "orders"}
    job = owned("Job", "batch/v1", "reconcile", restartPolicy="Never",
                annotations={"config": "reconcile-bearerd", "secret": "orders-oauth"})
    migrate = container("migrate", args=["migrate"], env=[{"name": "ORDERS_DB", "value": "orders"}])
    mesh_proxy = container("mesh-proxy", restartPolicy="Always")
    windows = replica(nodeSelector={"kubernetes.io/os": "windows"},
                      securityContext={"windowsOptions": {"runAsUserName": "ContainerUser"}})
    windows["spec"]["containers"][0]["securityContext"] = {"runAsNonRoot": True}
    agent = owned("DaemonSet", "apps/v1", "node-agent", hostNetwork=True)
    annotated = replica(annotations=ANNOTATIONS)
    annotated_ordinary = replica(annotations=ANNOTATIONS | {"mode": "ordinary"})
    ordinary = {"mode": "ordinary"}
    meshed = {"mesh": "true"}
    reviews = {
        "plain": ("alice", "", plain("orders-debug"), 201),
        "dry-run": ("alice", "?dryRun=All&fieldManager=kubectl", plain("orders-debug", **account), 201),
        "deployment": (replicas, "", replica(), 201),
        "annotated": (replicas, "", annotated, 201),
        "annotated-ordinary": (replicas, "", annotated_ordinary, 201),
        "ordinary": (replicas, "", replica(annotations=ordinary), 201),
        "shared": (replicas, "", replica(annotations={"store": "kubernetes"}), 201),
        "job": (jobs, "", job, 201),
        "init-container": (replicas, "", replica(initContainers=[migrate]), 201),
        # Another webhook adds a container to these, after which the injector is asked once more.
        "meshed": (replicas, "", replica(labels=meshed), 201),
        "meshed-ordinary": (replicas, "", replica(labels=meshed, annotations=ordinary), 201),
        "host-network": (daemons, "", agent, 403),
        "windows": (replicas, "", windows, 403),
    }
    if native:
        reviews["native-sidecars"] = (replicas, "", replica(initContainers=[mesh_proxy, migrate]), 201)
    return reviews

"""Everything that deploy/ gives to a cluster, rendered."""

import shutil
from functools import cache
from pathlib import Path

import yaml

from conftest import DEPLOY, run

CHART = DEPLOY / "helm/bearerd"
APPLICATION_CHART = Path(__file__).parent / "application-chart"

# Every switch of the chart on and off, in the combinations that render something of their own.
CONFIG = 'config=[credentials.c]'
CHART_VALUES = {
    "defaults": [],
    "configured": [CONFIG, "secrets.secretName=orders"],
    "watched": ["podMonitor.enabled=true", "prometheusRule.enabled=true", "dashboard.enabled=true"],
    "labelled": ["podMonitor.enabled=true", "podMonitor.namespaces={shop,billing}",
                 "podMonitor.labels.release=prometheus", "prometheusRule.enabled=true",
                 "prometheusRule.labels.release=prometheus", "dashboard.enabled=true",
                 "dashboard.annotations.folder=platform"],
    "tested": ["existingConfig=shared", "secrets.serviceAccountToken.audience=https://api.example",
               "image.digest=sha256:" + "0" * 64, "image.pullPolicy=Always"],
    "injecting": ["injector.enabled=true"],
    "injecting-own": ["injector.enabled=true", "injector.certificate.source=secret",
                      "injector.certificate.secretName=webhook", "injector.failurePolicy=Ignore",
                      "injector.certificate.caBundle=-----BEGIN CERTIFICATE-----",
                      "injector.nodeSelector.pool=system", "injector.priorityClassName=critical",
                      "injector.tolerations[0].operator=Exists"],
    "injecting-managed": ["injector.enabled=true", "injector.certificate.source=certManager",
                          "podMonitor.enabled=true", "imagePullSecrets[0].name=registry",
                          "injector.monitoringNamespace=observability"],
    "injecting-issued": ["injector.enabled=true", "injector.certificate.source=certManager",
                         "injector.certificate.issuerRef.name=platform",
                         "injector.certificate.issuerRef.kind=ClusterIssuer",
                         "injector.replicas=1", "injector.networkPolicy=false",
                         "injector.kubernetesVersion=v1.31", "injector.excludedNamespaces={a,b}"],
    "storing": ["storeSecret.name=orders-store", "storeSecret.serviceAccounts={orders,billing}"],
}
APPLICATION_VALUES = {
    "native": [],
    "ordinary": ["bearerd.sidecar.native=false", "bearerd.sidecar.preStopSeconds=5"],
    "projected": ["bearerd.secrets.secretName=", "bearerd.secrets.serviceAccountToken.audience=api"],
    "claimed": ["bearerd.store.kind=claim", "bearerd.store.claimName=orders-store"],
    "temporary": ["bearerd.store.kind=emptyDir", "bearerd.image.pullPolicy=Always"],
    "shared": ["bearerd.store.kind=kubernetes", "bearerd.storeSecret.name=orders-tokens",
               "bearerd.storeSecret.serviceAccounts={orders}"],
}


def helm(chart, values=(), version="1.37.0", check=True):
    """`helm template`, with everything that the values switch on."""
    sets = [word for value in values for word in ("--set", value)]
    return run("helm", "template", "platform", chart, "--namespace", "shop",
               "--kube-version", version, "--api-versions", "monitoring.coreos.com/v1", *sets,
               check=check)


@cache
def application_chart(home):
    """The application's chart with its dependency."""
    chart = Path(home) / "orders"
    shutil.copytree(APPLICATION_CHART, chart)
    shutil.copytree(CHART, chart / "charts/bearerd")
    return chart


def rendered(home, version="1.37.0"):
    """Name and text of every form that this repository offers."""
    for file in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        yield f"kubernetes/{file.name}", file.read_text()
    yield "kustomize", run("kubectl", "kustomize", DEPLOY / "kustomize/example").stdout
    for name, values in CHART_VALUES.items():
        yield f"chart-{name}", helm(CHART, values, version).stdout
    for name, values in APPLICATION_VALUES.items():
        yield f"application-{name}", helm(application_chart(home), values, version).stdout


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document]


def pod_spec(document):
    """The pod in a document, if there is one."""
    spec = document.get("spec", {})
    if document["kind"] == "Pod":
        return spec
    return spec.get("template", {}).get("spec")


def sidecar(text):
    """The container bearerd, whether it is a native sidecar, and its pod."""
    for document in documents(text):
        pod = pod_spec(document) or {}
        for native, field in [(True, "initContainers"), (False, "containers")]:
            for container in pod.get(field, []):
                if container["name"] == "bearerd":
                    return container, native, pod
    return None

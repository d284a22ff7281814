"""Manifests, component and chart: accepted by every Kubernetes that they are for, and what a platform
team looks for in them."""

import base64
import json
from pathlib import Path

import kubernetes_validate.utils
import pytest
import yaml

from conftest import DEPLOY, run
from manifests import (
    APPLICATION_VALUES, CHART, CHART_VALUES, application_chart, documents, helm, pod_spec, rendered,
    sidecar,
)

VERSIONS = sorted({kubernetes_validate.utils.major_minor(version)
                   for version in kubernetes_validate.utils.all_versions()}, key=len)
VERSIONS = [version for version in VERSIONS if int(version.partition(".")[2]) >= 29]
# Kinds of the Prometheus operator and of cert-manager, whose types come from their own packages.
FOREIGN = {"PodMonitor", "PrometheusRule", "Certificate", "Issuer"}

# What checkov says, in which of the forms, and why it stays.
TEST_POD = "the pod of `helm test` listens to nobody and ends by itself"
EXPLAINED = {
    ("CKV_K8S_8", "chart"): TEST_POD,
    ("CKV2_K8S_6", "chart"): TEST_POD,
    ("CKV_K8S_9", "chart"): TEST_POD,
    ("CKV_K8S_8", "injector"): TEST_POD,
    ("CKV2_K8S_6", "injector"): TEST_POD,
    ("CKV_K8S_9", "injector"): TEST_POD,
    ("CKV_K8S_9", "kubernetes"): "bearerd has no readiness probe: pods that are taken out because "
                                 "an identity provider is down help nobody",
    **{("CKV_K8S_11", form): "no CPU limit: throttling would delay the application's every request"
       for form in ("chart", "kubernetes", "kustomize")},
    ("CKV_K8S_11", "injector"): "no CPU limit: throttling would delay the creation of every pod",
    **{("CKV_K8S_15", form): "a tag that does not move needs no pull at every start"
       for form in ("chart", "injector", "kubernetes", "kustomize")},
    **{("CKV_K8S_43", form): "the examples' registry does not exist; the chart takes a digest"
       for form in ("chart", "injector", "kubernetes", "kustomize")},
}


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("charts")


@pytest.fixture(scope="session")
def all_rendered(home):
    return dict(rendered(str(home)))


@pytest.mark.parametrize("version", VERSIONS)
def test_every_form_is_valid_in_every_kubernetes_from_1_29_on(version, home):
    checked = 0
    for name, text in rendered(str(home), f"{version}.0"):
        for document in documents(text):
            if document["kind"] not in FOREIGN:
                kubernetes_validate.utils.validate(document, version, strict=True)
                checked += 1
        assert name
    assert checked > 30


def test_before_native_sidecars_the_chart_gives_ordinary_containers_that_every_kubernetes_takes(home):
    chart = application_chart(str(home))
    for version, sleeps in [("1.25.0", False), ("1.28.0", False), ("1.29.0", False), ("1.30.0", True)]:
        text = helm(chart, ["bearerd.sidecar.native=false"], version).stdout
        container, native, _ = sidecar(text)
        assert not native and ("preStop" in container["lifecycle"]) == sleeps, version
    refused = helm(chart, [], "1.28.0", check=False)
    assert refused.returncode != 0 and "set sidecar.native: false" in refused.stderr


def test_what_is_for_operators_is_valid_by_their_own_types(all_rendered):
    foreign = [document for text in all_rendered.values() for document in documents(text)
               if document["kind"] in FOREIGN]
    assert {document["kind"] for document in foreign} == FOREIGN
    assert operators_say(foreign) == ""
    # It is checked in earnest.
    monitor = next(document for document in foreign if document["kind"] == "PodMonitor")
    for wrong in ({"podMetricsEndpoint": []}, {"selector": "all"}):
        assert operators_say([{**monitor, "spec": {**monitor["spec"], **wrong}}]) != ""


def operators_say(objects):
    script = Path(__file__).parent / "operators/validate.mjs"
    return run("node", script, stdin=json.dumps(objects)).stdout


def test_the_newest_kubernetes_is_among_them():
    assert len(VERSIONS) >= 9


def test_checkov_finds_nothing_that_is_not_explained(all_rendered, tmp_path):
    for name, text in all_rendered.items():
        file = tmp_path / name.replace("/", "-")
        file.with_suffix(".yaml").write_text(text)
    done = run("checkov", "--directory", tmp_path, "--framework", "kubernetes", "--output", "json",
               "--quiet", "--compact", "--skip-download", check=False,
               env={"LOG_LEVEL": "CRITICAL"})
    report = json.loads(done.stdout)
    assert report["summary"]["passed"] > 300
    found = {}
    for check in report["results"]["failed_checks"]:
        name = check["file_path"].strip("/").removesuffix(".yaml")
        form = "injector" if name.startswith("chart-injecting") else name.partition("-")[0]
        # The application's chart is about the sidecar in it; the application is a sketch.
        if form != "application":
            found[check["check_id"], form] = f"{check['check_name']}: {check['file_path']}"
    assert set(found) == set(EXPLAINED), {
        key: found.get(key) for key in set(found) ^ set(EXPLAINED)}


def test_every_sidecar_is_restricted_and_sized_as_promised(all_rendered):
    seen = 0
    for name, text in all_rendered.items():
        if not (found := sidecar(text)):
            continue
        container, native, pod = found
        seen += 1
        security = {**pod["securityContext"], **container["securityContext"]}
        assert security["runAsNonRoot"] is True, name
        assert (security["runAsUser"], security["runAsGroup"]) == (65532, 65532), name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert security["readOnlyRootFilesystem"] is True, name
        assert security["allowPrivilegeEscalation"] is False, name
        assert security["capabilities"] == {"drop": ["ALL"]}, name
        if name != "kustomize":
            # The component says nothing of the pod.
            assert pod["securityContext"]["fsGroup"] == 65532, name
            assert pod["terminationGracePeriodSeconds"] > 30, name
        assert pod["automountServiceAccountToken"] is False, name
        assert container["resources"] == {
            "requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}}, name
        assert "readinessProbe" not in container, name
        assert container["livenessProbe"]["httpGet"]["path"] == "/livez", name
        assert not any("subPath" in mount for mount in container["volumeMounts"]), name
        if native:
            assert container["restartPolicy"] == "Always", name
            assert container["startupProbe"]["httpGet"]["path"] == "/startupz", name
            assert "lifecycle" not in container, name
        else:
            # The others wait for the containers before them, so it must be the first.
            assert pod["containers"][0] is container, name
            assert "--ready" in container["lifecycle"]["postStart"]["exec"]["command"], name
    plain = len(list((DEPLOY / "kubernetes").glob("*.yaml")))
    assert seen == plain + 1 + len(APPLICATION_VALUES)


def test_all_forms_have_the_same_sidecar(all_rendered):
    def comparable(text):
        container, _, pod = sidecar(text)
        container = {**container, "securityContext":
                     {**pod["securityContext"], **container["securityContext"]}}
        for own in ("fsGroup", "fsGroupChangePolicy"):
            container["securityContext"].pop(own, None)
        mounts = {mount["name"]: mount for mount in container.pop("volumeMounts")}
        for own in ("bearerd-store", "bearerd-account"):
            mounts.pop(own, None)
        return container, mounts

    native = comparable(all_rendered["kubernetes/sidecar.yaml"])
    for name in ("kubernetes/rotating.yaml", "kubernetes/shared.yaml", "kustomize",
                 "application-native"):
        assert comparable(all_rendered[name]) == native, name
    legacy, mounts = comparable(all_rendered["kubernetes/legacy.yaml"])
    ordinary, ordinary_mounts = comparable(all_rendered["application-ordinary"])
    ordinary["lifecycle"]["preStop"] = legacy["lifecycle"]["preStop"]
    assert (ordinary, ordinary_mounts) == (legacy, mounts)


def test_only_what_is_meant_comes_in_from_outside(all_rendered):
    for name in ("sidecar", "rotating", "shared", "legacy", "job"):
        policies = [document for document in documents(all_rendered[f"kubernetes/{name}.yaml"])
                    if document["kind"] == "NetworkPolicy"]
        ports = {}
        for rule in policies[0]["spec"]["ingress"]:
            ports |= {port["port"]: rule.get("from") for port in rule["ports"]}
        assert ports["bearerd-admin"], f"{name}: anybody may read the metrics"
        assert set(ports) <= {"bearerd-admin", "http"}


def test_the_component_leaves_other_deployments_alone(tmp_path):
    example = (DEPLOY / "kustomize/example/deployment.yaml").read_text()
    (tmp_path / "deployment.yaml").write_text(example.replace(', bearerd/inject: "true"', ""))
    (tmp_path / "component").symlink_to(DEPLOY / "kustomize/sidecar")
    (tmp_path / "kustomization.yaml").write_text(
        "resources: [deployment.yaml]\ncomponents: [component]\n")
    text = run("kubectl", "kustomize", "--load-restrictor=LoadRestrictionsNone", tmp_path).stdout
    assert documents(text) and sidecar(text) is None


def test_the_component_changes_nothing_that_a_deployment_says(tmp_path):
    plain = yaml.safe_load((DEPLOY / "kustomize/example/deployment.yaml").read_text())
    pod = plain["spec"]["template"]["spec"]
    pod |= {
        "automountServiceAccountToken": True, "terminationGracePeriodSeconds": 300,
        "securityContext": {"runAsUser": 0, "fsGroup": 2000},
        "initContainers": [{"name": "migrate", "image": "registry.example/migrate:1"}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    }
    (tmp_path / "deployment.yaml").write_text(yaml.safe_dump(plain))
    (tmp_path / "component").symlink_to(DEPLOY / "kustomize/sidecar")
    (tmp_path / "kustomization.yaml").write_text(
        "resources: [deployment.yaml]\ncomponents: [component]\n")
    text = run("kubectl", "kustomize", "--load-restrictor=LoadRestrictionsNone", tmp_path).stdout
    [document] = documents(text)
    patched = document["spec"]["template"]["spec"]
    # In front: those after it wait until it has a token, and may use it.
    assert [one["name"] for one in patched["initContainers"]] == ["bearerd", "migrate"]
    del patched["initContainers"][0]
    patched["volumes"] = [one for one in patched["volumes"] if not one["name"].startswith("bearerd-")]
    assert document == plain


def test_the_chart_is_clean():
    run("helm", "lint", "--strict", CHART)


def test_the_application_chart_is_clean(home):
    run("helm", "lint", "--strict", application_chart(str(home)))


@pytest.mark.parametrize("value", [
    "imgae.tag=1", "image.tgo=1", "podMonitor.enabled=yes", "podMonitor.interval=often",
    "sidecar.preStopSeconds=0", "store.kind=disk", "store.kind=claim", "image.digest=sha256:12",
    "secrets.serviceAccountToken.expirationSeconds=60", "sidecar.resources.requests.gpu=1",
    "secrets.secretName=Not_A_Name", "dashboard.labels=x", "injector.enable=true",
    "injector.failurePolicy=Open", "injector.timeoutSeconds=31", "injector.replicas=0",
    "injector.certificate.source=secret", "injector.certificate.source=vault",
    "injector.excludedNamespaces={}x", "injector.kubernetesVersion=newest",
    "injector.certificate.issuerRef.kind=Pod", "injector.monitoringNamespace=",
    "imagePullSecrets[0]=registry", "imagePullSecrets[0].name=Not_A_Name",
    "storeSecret.name=Not_A_Name",
    "storeSecret.serviceAccounts=orders",
])
def test_the_chart_refuses_values_that_mean_nothing(value):
    assert helm(CHART, [value], check=False).returncode != 0


def test_a_configuration_in_two_places_is_refused():
    done = helm(CHART, ["config=x", "existingConfig=y"], check=False)
    assert "leave one of them empty" in done.stderr


INJECTOR = ["Deployment", "MutatingWebhookConfiguration", "Pod", "Service", "ServiceAccount"]


def test_the_chart_makes_what_it_is_asked_for_and_nothing_else(all_rendered):
    kinds = {name: sorted(document["kind"] for document in documents(all_rendered[f"chart-{name}"]))
             for name in CHART_VALUES}
    assert kinds == {
        "defaults": [],
        "configured": ["ConfigMap", "Pod"],
        "watched": ["ConfigMap", "PodMonitor", "PrometheusRule"],
        "labelled": ["ConfigMap", "PodMonitor", "PrometheusRule"],
        "tested": ["Pod"],
        "injecting": sorted([*INJECTOR, "NetworkPolicy", "PodDisruptionBudget", "Secret"]),
        "injecting-own": sorted([
            *INJECTOR, "ConfigMap", "NetworkPolicy", "PodDisruptionBudget"]),
        "injecting-managed": sorted([
            *INJECTOR, "Certificate", "Issuer", "NetworkPolicy", "PodDisruptionBudget",
            "PodMonitor", "PodMonitor"]),
        "injecting-issued": sorted([*INJECTOR, "Certificate"]),
        "storing": ["Role", "RoleBinding", "Secret"],
    }
    labelled = documents(all_rendered["chart-labelled"])
    for document in labelled:
        if document["kind"] in FOREIGN:
            assert document["metadata"]["labels"]["release"] == "prometheus"
    monitor = next(document for document in labelled if document["kind"] == "PodMonitor")
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": ["shop", "billing"]}
    # The dashboard and the rules arrive as they are, template marks of their own included.
    dashboard = next(document for document in labelled if document["kind"] == "ConfigMap")
    assert json.loads(dashboard["data"]["bearerd.json"]) == json.loads(
        (CHART / "files/dashboard.json").read_text())
    rules = next(document for document in labelled if document["kind"] == "PrometheusRule")
    alert = rules["spec"]["groups"][0]["rules"][0]
    assert "{{ $labels.credential }}" in alert["annotations"]["summary"]


def test_the_monitored_port_is_the_sidecars(all_rendered):
    monitor = next(document for document in documents(all_rendered["chart-watched"])
                   if document["kind"] == "PodMonitor")
    endpoint = monitor["spec"]["podMetricsEndpoints"][0]
    container, _, _ = sidecar(all_rendered["kubernetes/sidecar.yaml"])
    assert endpoint["port"] in {port["name"] for port in container["ports"]}


def test_the_store_may_be_read_and_written_by_those_it_is_for_and_nothing_else_may(all_rendered):
    objects = {document["kind"]: document for document in documents(all_rendered["chart-storing"])}
    assert objects["Role"]["rules"] == [{
        "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["orders-store"],
        "verbs": ["get", "watch", "update"]}]
    assert [subject["name"] for subject in objects["RoleBinding"]["subjects"]] == [
        "orders", "billing"]
    assert objects["RoleBinding"]["roleRef"]["name"] == objects["Role"]["metadata"]["name"]
    secret = objects["Secret"]
    assert secret["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    # With data an upgrade would put the first refresh token back.
    assert "data" not in secret and "stringData" not in secret


def test_the_injector_runs_restricted_and_may_do_nothing(all_rendered):
    for name, text in all_rendered.items():
        if not name.startswith("chart-injecting"):
            continue
        objects = {document["kind"]: document for document in documents(text)}
        assert not set(objects) & {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"}
        assert objects["ServiceAccount"]["automountServiceAccountToken"] is False
        pod = objects["Deployment"]["spec"]["template"]["spec"]
        container = pod["containers"][0]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert "cpu" not in container["resources"]["limits"]
        webhook = objects["MutatingWebhookConfiguration"]["webhooks"][0]
        service = webhook["clientConfig"]["service"]
        assert service["name"] == objects["Service"]["metadata"]["name"]
        assert service["namespace"] == objects["Service"]["metadata"]["namespace"]
        [port] = objects["Service"]["spec"]["ports"]
        assert port["port"] == service["port"]
        assert port["targetPort"] in {one["name"] for one in container["ports"]}


def test_a_registry_and_a_prometheus_may_be_elsewhere(all_rendered):
    objects = {document["kind"]: document
               for document in documents(all_rendered["chart-injecting-managed"])}
    for kind in ("Deployment", "Pod"):
        assert pod_spec(objects[kind])["imagePullSecrets"] == [{"name": "registry"}], kind
    rules = objects["NetworkPolicy"]["spec"]["ingress"]
    [source] = next(rule["from"] for rule in rules if "from" in rule)
    assert source == {"namespaceSelector": {
        "matchLabels": {"kubernetes.io/metadata.name": "observability"}}}


def test_the_injector_fails_open_or_closed_as_it_is_told(all_rendered):
    for name, policy in [("injecting", "Fail"), ("injecting-own", "Ignore")]:
        webhook = next(document for document in documents(all_rendered[f"chart-{name}"])
                       if document["kind"] == "MutatingWebhookConfiguration")["webhooks"][0]
        assert webhook["failurePolicy"] == policy


def test_the_test_pod_of_the_chart_owns_no_sidecars_store(home):
    text = helm(CHART, ["config=x", "store.kind=claim", "store.claimName=orders-store"]).stdout
    pod = next(pod_spec(document) for document in documents(text) if document["kind"] == "Pod")
    assert not any("persistentVolumeClaim" in volume for volume in pod["volumes"])
    assert pod["containers"][0]["args"][0] == "check"


def test_the_injectors_test_pod_trusts_whom_the_api_server_does_and_gets_no_key(all_rendered):
    for name, text in all_rendered.items():
        if not name.startswith("chart-injecting"):
            continue
        objects = {document["kind"]: document for document in documents(text)}
        pod = objects["Pod"]["spec"]
        mounted = pod_spec(objects["Deployment"])["volumes"][0]["secret"]["secretName"]
        [volume] = pod["volumes"]
        if name == "chart-injecting-own":
            hook = objects["ConfigMap"]
            assert volume["configMap"]["name"] == hook["metadata"]["name"]
            bundle = objects["MutatingWebhookConfiguration"]["webhooks"][0]["clientConfig"]["caBundle"]
            assert hook["data"]["ca.crt"].strip() == base64.b64decode(bundle).decode().strip()
            hooks = hook["metadata"]["annotations"], objects["Pod"]["metadata"]["annotations"]
            first, second = (int(one.get("helm.sh/hook-weight", 0)) for one in hooks)
            assert first < second, "the pod would wait for it"
        else:
            assert volume["secret"]["secretName"] == mounted
            assert volume["secret"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}]
        assert pod["containers"][0]["args"][0] == "check"


def test_the_notes_say_how_to_go_on():
    notes = run("helm", "install", "platform", CHART, "--dry-run=client", "--namespace", "shop",
                "--set", "config=x").stdout.partition("NOTES:")[2]
    assert "helm test -n shop platform" in notes
    assert '{{- include "bearerd.container" .Subcharts.bearerd | nindent 8 }}' in notes

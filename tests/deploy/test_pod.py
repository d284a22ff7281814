"""Real pods, made from the manifests: application and sidecar under podman."""

import http.client
import re
import subprocess
import time

import pytest

from conftest import APPLICATION, run
from pod import PROXY, until

LIMIT = 64 << 20


def test_requests_go_on_while_the_kubelet_swaps_the_secret(rotating):
    pod = rotating
    load = pod.inside("wrk", "--threads", "1", "--connections", "32", "--duration", "12s",
                      f"http://127.0.0.1:{PROXY}/orders", stdout=subprocess.PIPE, text=True)
    until("the first secret in use", lambda: pod.ask()["by_secret"].get("first", 0) >= 2)
    # The identity provider takes both for a while, as it is done.
    pod.ask(secrets=["first", "second"])
    pod.secrets.swap({"client-secret": "second", "refresh-token": "bootstrap"})
    until("the second secret in use", lambda: pod.ask()["by_secret"].get("second", 0) >= 1)
    before = pod.ask(secrets=["second"])["tokens"]
    until("more tokens", lambda: pod.ask()["tokens"] >= before + 2)
    report, _ = load.communicate()
    assert load.returncode == 0
    assert "Non-2xx" not in report and "Socket errors" not in report, report
    asked = int(re.search(r"(\d+) requests in", report).group(1))
    seen = pod.ask()
    assert seen["refused"] == seen["reused"] == seen["unauthorized"] == 0, seen
    assert seen["ok"] >= asked > 0
    assert seen["names"] > 0
    assert pod.stop("orders") == 0
    application = pod.logs("orders")
    assert "failed request" not in application, application
    assert re.search(r"ended after \d{2,} requests", application), application
    # Within the limit of the manifest, which holds.
    container = pod.containers.inspect(pod.container("bearerd"))
    assert container["HostConfig"]["Memory"] == LIMIT
    assert not container["State"]["OOMKilled"] and container["State"]["Running"]
    assert pod.memory() < LIMIT // 2, f"{pod.memory() >> 20} MiB"


def test_the_sidecar_serves_the_applications_last_requests_and_ends_after_it(rotating):
    pod = rotating
    # The kubelet's order: first the application, then the native sidecar.
    assert pod.stop("orders") == 0
    assert "failed request" not in pod.logs("orders")
    assert pod.state("bearerd")["Running"]
    began = time.monotonic()
    assert pod.stop("bearerd") == 0
    assert time.monotonic() - began < 15
    assert '"stopped"' in pod.logs("bearerd")


def test_a_restarted_sidecar_goes_on_with_the_stored_refresh_token(rotating):
    pod = rotating
    until("a rotation", lambda: pod.ask()["tokens"] >= 2)
    assert pod.stop("bearerd") == 0
    tokens = pod.ask()["tokens"]
    pod.containers.podman("start", pod.container("bearerd"))
    until("another rotation", lambda: pod.ask()["tokens"] > tokens)
    assert pod.ask()["reused"] == 0
    stored = pod.store / "orders.json"
    assert stored.stat().st_mode & 0o777 == 0o600
    assert stored.stat().st_uid == 65532


def test_the_proxy_is_for_the_pod_alone_and_the_metrics_are_for_all(rotating):
    pod = rotating
    until("a request from inside", lambda: pod.ask()["ok"] > 0)
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection(pod.address, PROXY, timeout=10).connect()
    for path in ("/livez", "/startupz", "/readyz", "/status"):
        assert pod.admin(path)[0] == 200, path
    status, metrics = pod.admin("/metrics")
    assert status == 200 and "bearerd_requests_total" in metrics
    run("promtool", "check", "metrics", stdin=metrics)


def test_a_projected_token_is_used_and_followed(start):
    application = APPLICATION.replace("ask() {", "ask() { sleep 0.1;")
    pod = start("sidecar.yaml", application, {"token": "projected-1"}, {
        'upstream = "https://api.example.com"':
            'upstream = "http://api.test:9001"\nallow_plaintext = true'})
    pod.ask(admit={"projected-1": 3600})
    until("the first token", lambda: pod.ask()["ok"] > 0)
    pod.ask(admit={"projected-2": 3600})
    pod.secrets.swap({"token": "projected-2"})
    until("the second token", lambda: pod.ask()["last_token"] == "projected-2")
    assert not list(pod.store.iterdir())


def test_the_legacy_form_holds_the_application_back_until_there_is_a_token(start):
    pod = start("legacy.yaml", APPLICATION, {"client-secret": "first"})
    until("requests", lambda: pod.ask()["ok"] > 3)
    # The kubelet's order: SIGTERM to the application, bearerd's when preStop has slept.
    assert pod.stop("orders") == 0
    assert "failed request" not in pod.logs("orders"), pod.logs("orders")
    assert pod.stop("bearerd") == 0


def test_a_job_ends_its_sidecar_by_itself(start):
    work = ("wget -q -O /dev/null http://127.0.0.1:8080/orders && echo worked;"
            "wget -q -O - --post-data= http://127.0.0.1:9901/quitquitquit")
    pod = start("job.yaml", work, {"client-secret": "first"})
    until("the job's end", lambda: not pod.state("reconcile")["Running"])
    assert pod.state("reconcile")["ExitCode"] == 0, pod.logs("reconcile")
    assert "worked" in pod.logs("reconcile") and "stopping" in pod.logs("reconcile")
    until("the sidecar's end", lambda: not pod.state("bearerd")["Running"])
    assert pod.state("bearerd")["ExitCode"] == 0, pod.logs("bearerd")


def test_nobody_outside_the_pod_can_end_a_jobs_sidecar(start):
    pod = start("job.yaml", "exec busybox sleep 60", {"client-secret": "first"})
    assert pod.admin("/quitquitquit", "POST")[0] == 403
    assert pod.admin("/livez")[0] == 200

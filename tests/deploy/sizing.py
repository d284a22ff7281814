"""Measures what the table in deploy/README.md says. Not a test: run it by its name.

    BEARERD=... INJECTOR=... tests/deploy/.venv/bin/pytest -s tests/deploy/sizing.py
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

from conftest import DEPLOY, WORLD
from injector import install, pod_of, review
from pod import PROXY, until

__all__ = ["install"]

IDLE = """
import socket, sys
held = []
for _ in range(int(sys.argv[1])):
    connection = socket.create_connection(("127.0.0.1", 8080))
    connection.sendall(b"GET /orders HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
    connection.recv(4096)
    held.append(connection)
print("held", flush=True)
sys.stdin.read()
"""


# wrk's own language: a review in every request.
REVIEWS = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = [==[{review}]==]
"""


def resident(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024


def processor_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(pod, connections):
    """Requests and processor seconds of ten seconds of load."""
    before = processor_seconds(pod.sidecar_pid)
    report = pod.inside(
        "wrk", "--threads", "1", "--connections", str(connections), "--duration", "10s",
        f"http://127.0.0.1:{PROXY}/orders", stdout=subprocess.PIPE, text=True).communicate()[0]
    assert "Non-2xx" not in report, report
    return int(re.search(r"(\d+) requests in", report).group(1)), processor_seconds(pod.sidecar_pid) - before


def test_sizing(start):
    # By address: the world's name server loses questions when 512 come at once.
    world = {old: new.replace(".test:", ".0.0.1:").replace("idp", "127").replace("api", "127")
             for old, new in WORLD.items()}
    pod = start("rotating.yaml", "exec busybox sleep 600",
                {"client-secret": "first", "refresh-token": "bootstrap"}, world)
    until("a token", lambda: pod.ask()["tokens"] > 0)
    print(f"\nidle: {resident(pod.sidecar_pid):.1f} MiB")
    for connections in (1, 64, 512):
        requests, seconds = load(pod, connections)
        print(f"{connections} busy connections: {resident(pod.sidecar_pid):.1f} MiB, most "
              f"{pod.memory() / 2**20:.1f} MiB, {seconds / requests * 1e6:.0f} µs of processor a "
              f"request, {requests / 10:.0f} requests/s")
    holder = pod.inside(sys.executable, "-c", IDLE, "1000", stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    print(f"1000 idle connections: {resident(pod.sidecar_pid):.1f} MiB")
    holder.communicate()


def test_sizing_of_the_injector(install, tmp_path):
    installation = install("injector.kubernetesVersion=1.31")
    pid = installation.process.pid
    print(f"\nthe injector, idle: {resident(pid):.1f} MiB")
    pod = pod_of(yaml.safe_load((DEPLOY / "kustomize/example/deployment.yaml").read_text()))
    script = tmp_path / "reviews.lua"
    script.write_text(REVIEWS.replace("{review}", json.dumps(review(pod, "orders"))))
    before = processor_seconds(pid)
    report = subprocess.run(
        ["wrk", "--threads", "1", "--connections", "8", "--duration", "10s", "--script", script,
         f"https://127.0.0.1:{installation.reviews}/inject"],
        stdout=subprocess.PIPE, text=True, check=True).stdout
    assert "Non-2xx" not in report, report
    requests = int(re.search(r"(\d+) requests in", report).group(1))
    seconds = processor_seconds(pid) - before
    print(f"the injector, 8 connections: {resident(pid):.1f} MiB, {seconds / requests * 1e6:.0f} µs "
          f"of processor a review, {requests / 10:.0f} reviews/s")

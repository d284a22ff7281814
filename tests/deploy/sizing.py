"""Measures what the table in deploy/README.md says. Not a test: run it by its name.

    BEARERD=... tests/deploy/.venv/bin/pytest -s tests/deploy/sizing.py
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from conftest import WORLD
from pod import PROXY, until

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


def resident(pod):
    status = Path(f"/proc/{pod.sidecar_pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024


def processor_seconds(pod):
    fields = Path(f"/proc/{pod.sidecar_pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(pod, connections):
    """Requests and processor seconds of ten seconds of load."""
    before = processor_seconds(pod)
    report = pod.inside(
        "wrk", "--threads", "1", "--connections", str(connections), "--duration", "10s",
        f"http://127.0.0.1:{PROXY}/orders", stdout=subprocess.PIPE, text=True).communicate()[0]
    assert "Non-2xx" not in report, report
    return int(re.search(r"(\d+) requests in", report).group(1)), processor_seconds(pod) - before


def test_sizing(start):
    # By address: the world's name server loses questions when 512 come at once.
    world = {old: new.replace(".test:", ".0.0.1:").replace("idp", "127").replace("api", "127")
             for old, new in WORLD.items()}
    pod = start("rotating.yaml", "exec busybox sleep 600",
                {"client-secret": "first", "refresh-token": "bootstrap"}, world)
    until("a token", lambda: pod.ask()["tokens"] > 0)
    print(f"\nidle: {resident(pod):.1f} MiB")
    for connections in (1, 64, 512):
        requests, seconds = load(pod, connections)
        print(f"{connections} busy connections: {resident(pod):.1f} MiB, most "
              f"{pod.memory() / 2**20:.1f} MiB, {seconds / requests * 1e6:.0f} µs of processor a "
              f"request, {requests / 10:.0f} requests/s")
    holder = pod.inside(sys.executable, "-c", IDLE, "1000", stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    print(f"1000 idle connections: {resident(pod):.1f} MiB")
    holder.communicate()

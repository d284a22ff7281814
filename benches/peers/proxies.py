"""bearerd and its peers, each under the same order.

One thread, the same token on every request, keep-alive on both sides, no access log. What each is
told is in conf/; here is how each is started, and how we know that it serves.
"""

import http.client
import os
import time
from dataclasses import dataclass

from processes import Process, free_port
from rig import Absent, Failed, Rig, find
from rig import nginx as nginx_command

START_SECONDS = 10


def bearerd(rig: Rig, port: int) -> list:
    if not os.access(rig.bearerd, os.X_OK):
        raise Absent(f"no program {rig.bearerd}; build it with: cargo build --release")
    configuration = rig.render("bearerd.toml", port=port, admin=free_port())
    return [rig.bearerd, "run", "--config", configuration]


def nginx(rig: Rig, port: int) -> list:
    return nginx_command(rig.home, rig.render("nginx.conf", port=port))


def haproxy(rig: Rig, port: int) -> list:
    return [find("haproxy"), "-db", "-f", rig.render("haproxy.cfg", port=port)]


def tcp_relay(rig: Rig, port: int) -> list:
    return [find("haproxy"), "-db", "-f", rig.render("tcp-relay.cfg", port=port)]


def envoy(rig: Rig, port: int) -> list:
    program = find(os.environ.get("ENVOY") or "envoy")
    options = ["--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id"]
    return [program, "-c", rig.render("envoy.yaml", port=port), *options]


PROXIES = {
    "bearerd": bearerd,
    "nginx": nginx,
    "haproxy": haproxy,
    "tcp-relay": tcp_relay,
    "envoy": envoy,
}


@dataclass
class Proxy:
    """One of them, started."""

    name: str
    port: int
    process: Process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def await_answer(self, body: bytes) -> None:
        """Until the body arrives once, intact: a proxy that injects nothing ends here."""
        deadline = time.monotonic() + START_SECONDS
        seen = "it never answered"
        while self.process.alive() and time.monotonic() < deadline:
            try:
                status, received = get(self.port)
                if status == 200 and received == body:
                    return
                seen = f"status {status}, {len(received)} bytes"
            except (OSError, http.client.HTTPException) as error:
                seen = repr(error)
            time.sleep(0.05)
        raise self.failure(seen)

    def failure(self, what: str) -> Failed:
        """With the end of what the proxy itself has to say about it."""
        said = self.process.log.read_text(errors="replace")[-2000:]
        return Failed(f"{self.name} does not serve: {what}\n{said}".rstrip())


def start(rig: Rig, name: str) -> Proxy:
    port = free_port()
    command = PROXIES[name](rig, port)
    return Proxy(name, port, Process(command, rig.proxy_core, rig.home / f"{name}.out"))


def get(port: int) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()

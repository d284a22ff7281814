"""bearerd and its peers, each under the same order.

One thread, the same token on every request, keep-alive on both sides, no access log, all metrics on.
What each is told is in conf/; here is how each is started, and how we know that it serves.
"""

import http.client
import os
import time
from dataclasses import dataclass

from processes import Process, free_ports
from rig import SMALL_BODY, Absent, Failed, Rig, built, find
from rig import envoy as envoy_program
from rig import nginx as nginx_command

START_SECONDS = 10


def bearerd(rig: Rig, values: dict) -> list:
    if not os.access(rig.bearerd, os.X_OK):
        raise Absent(f"no program {rig.bearerd}; build it with: cargo build --release")
    tls = {"scheme": "https", "tls": f'tls = {{ ca_file = "{rig.home}/authority.pem" }}'}
    plain = {"scheme": "http", "tls": ""}
    values = values | (tls if values["tls"] else plain)
    configuration = rig.render("bearerd.toml", f"bearerd-{values['port']}.toml", **values)
    return [rig.bearerd, "run", "--config", configuration]


def never_swapped(rig: Rig, values: dict, milliseconds: int = 0) -> list:
    """The data plane alone; its tokens are not those that the guarded upstream expects."""
    values = values | {"api": rig.values["open"]}
    return [built("swapping"), bearerd(rig, values)[-1], milliseconds]


def swapped(rig: Rig, values: dict) -> list:
    return never_swapped(rig, values, 100)


def nginx(rig: Rig, values: dict) -> list:
    values |= {"scheme": "https" if values["tls"] else "http", "http2": "http2" if values["h2"] else ""}
    return nginx_command(rig.home, rig.render("nginx.conf", **values))


def haproxy(rig: Rig, values: dict) -> list:
    verified = f"ssl verify required verifyhost localhost ca-file {rig.home}/authority.pem"
    values |= {"tls": verified if values["tls"] else ""}
    return [find("haproxy"), "-db", "-f", rig.render("haproxy.cfg", **values)]


def tcp_relay(rig: Rig, values: dict) -> list:
    return [find("haproxy"), "-db", "-f", rig.render("tcp-relay.cfg", **values)]


def envoy(rig: Rig, values: dict) -> list:
    options = ["--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id"]
    values |= {"tls": ENVOY_TLS % {"home": rig.home} if values["tls"] else ""}
    return [envoy_program(), "-c", rig.render("envoy.yaml", **values), *options]


ENVOY_TLS = """
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
          common_tls_context:
            validation_context: { trusted_ca: { filename: %(home)s/authority.pem } }"""

PROXIES = {
    "bearerd": bearerd,
    "nginx": nginx,
    "haproxy": haproxy,
    "tcp-relay": tcp_relay,
    "envoy": envoy,
    "never swapped": never_swapped,
    "swapped every 100 ms": swapped,
}


@dataclass
class Proxy:
    """One of them, started."""

    name: str
    port: int
    process: Process
    h2: bool

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def await_answer(self) -> None:
        """Until the body arrives once, intact: a proxy that injects nothing ends here."""
        deadline = time.monotonic() + START_SECONDS
        seen = "it never answered"
        while self.process.alive() and time.monotonic() < deadline:
            try:
                if self.h2 and self.name == "nginx":
                    return  # it speaks nothing else on that listener; the load tells
                status, received = get(self.port)
                if status == 200 and received == SMALL_BODY:
                    return
                seen = f"status {status}, {len(received)} bytes"
            except (OSError, http.client.HTTPException) as error:
                seen = repr(error)
            time.sleep(0.02)
        raise self.failure(seen)

    def failure(self, what: str) -> Failed:
        """With the end of what the proxy itself has to say about it."""
        said = self.process.log.read_text(errors="replace")[-2000:]
        return Failed(f"{self.name} does not serve: {what}\n{said}".rstrip())


def start(rig: Rig, name: str, options: dict) -> Proxy:
    port, admin = free_ports(2)
    values = {"tls": False, "h2": False, "port": port, "admin": admin} | options
    values["api"] = rig.values["secure" if values["tls"] else "guarded"]
    command = PROXIES[name](rig, dict(values))
    log = rig.home / f"{name.replace(' ', '-')}.out"
    return Proxy(name, port, Process(command, rig.proxy_core, log), values["h2"])


def get(port: int) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()

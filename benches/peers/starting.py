"""How long from the start of the program until a request has been proxied, with the first token
fetched on the way from an identity provider on this machine."""

import http.client
import http.server
import json
import subprocess
import threading
import time
from pathlib import Path

from processes import free_ports
from rig import TOKEN, Absent, Failed

PATIENCE_SECONDS = 10


def measure(bench, _) -> list[dict]:
    rig = bench.rig
    if not rig.bearerd.exists():
        raise Absent(f"no program {rig.bearerd}; build it with: cargo build --release")
    megabytes = stripped_bytes(rig) / 1e6
    provider = http.server.ThreadingHTTPServer(("127.0.0.1", 0), TokenEndpoint)
    threading.Thread(target=provider.serve_forever, daemon=True).start()
    secret = rig.home / "client-secret"
    secret.write_text("secret")
    try:
        rounds = []
        for _ in range(2 * bench.rounds + 1):
            port, admin = free_ports(2)
            configuration = rig.render(
                "starting.toml",
                port=port,
                admin=admin,
                provider=provider.server_address[1],
            )
            rounds.append({"bearerd": {"start_ms": start(rig, configuration, port), "program_mb": megabytes}})
        return rounds
    finally:
        provider.shutdown()


def start(rig, configuration: Path, port: int) -> float:
    """Milliseconds until the first answer."""
    begun = time.monotonic()
    with (rig.home / "starting.out").open("wb") as log:
        child = subprocess.Popen(
            [rig.bearerd, "run", "--config", configuration],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        status = ask(port, begun + PATIENCE_SECONDS)
        took = (time.monotonic() - begun) * 1e3
    finally:
        child.terminate()
        child.wait(PATIENCE_SECONDS)
    if status != 200:
        raise Failed(f"the first request was answered with {status}")
    return took


def ask(port: int, until: float) -> int:
    """The status of the first answer: the request waits in bearerd until there is a token."""
    while time.monotonic() < until:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status
        except ConnectionRefusedError:
            time.sleep(0.0005)
        finally:
            connection.close()
    raise Failed("bearerd did not begin to listen")


def stripped_bytes(rig) -> int:
    copy = rig.home / "stripped"
    subprocess.run(["strip", "-o", copy, rig.bearerd], check=True)
    return copy.stat().st_size


class TokenEndpoint(http.server.BaseHTTPRequestHandler):
    """Gives everybody the token."""

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        answer = {"access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

"""The program between an identity provider and an upstream, as its users run it."""

import json
import os
import subprocess
import threading
from pathlib import Path
from urllib.request import Request, urlopen

DEADLINE = 20.0  # seconds; whoever waits so long has failed


class Bearerd:
    """A running `bearerd run`. It is ready: its first token has come."""

    def __init__(self, home: Path, token_url: str, route: str, *, listen="127.0.0.1:0", server="",
                 credential="", environment=None):
        (home / "secret").write_text("secret")
        config = home / "bearerd.toml"
        config.write_text(f"""
[server]
listen = ["{listen}"]
admin = "127.0.0.1:0"
{server}
[credentials.c]
grant = "client_credentials"
token_url = "{token_url}"
client_id = "client"
client_secret = {{ file = "{home / "secret"}" }}
{credential}
[[routes]]
credential = "c"
{route}
""")
        self.logs = []
        self._listening = threading.Event()
        self._process = subprocess.Popen(
            [program(), "run", "--config", config], stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
            env={**os.environ, "RUST_LOG": "debug", **(environment or {})})
        threading.Thread(target=self._read, daemon=True).start()
        if not self._listening.wait(DEADLINE):
            self.stop()
            raise AssertionError(f"not listening in time: {self.logs}")
        wait = ["healthcheck", "--admin", self.admin, "--ready", "--wait", str(int(DEADLINE))]
        subprocess.run([program(), *wait], check=True, timeout=2 * DEADLINE)

    def _read(self):
        for line in self._process.stderr:
            self.logs.append(line)
            if "bearerd is listening" in line:
                told = json.loads(line)
                self.listen, self.admin = told["listen"], told["admin"]
                self._listening.set()

    @property
    def address(self):
        """`ADDRESS:PORT`, also of a TLS listener."""
        return self.listen.removeprefix("tls:")

    @property
    def port(self):
        return int(self.address.rsplit(":", 1)[1])

    @property
    def url(self):
        return f"http://{self.address}"

    @property
    def pid(self):
        return self._process.pid

    def metric(self, name, *labels):
        """The sum of the series that have all of `labels`."""
        with urlopen(f"http://{self.admin}/metrics", timeout=DEADLINE) as answer:
            lines = answer.read().decode().splitlines()
        series = (line.rsplit(" ", 1) for line in lines if line.startswith((name + "{", name + " ")))
        return sum(float(value) for key, value in series if all(label in key for label in labels))

    def terminate(self):
        """SIGTERM; the exit code is `wait`'s."""
        self._process.terminate()

    def wait(self):
        return self._process.wait(timeout=2 * DEADLINE)

    def stop(self):
        self._process.kill()
        self._process.wait()


def program():
    """What `make test` has built."""
    path = Path(os.environ.get("BEARERD", "none")).absolute()
    assert path.is_file(), "BEARERD names no program; run `make test`"
    return path


def get(url, headers=None):
    """A plain GET, for what is not under test."""
    with urlopen(Request(url, headers=headers or {}), timeout=DEADLINE) as answer:
        return answer.status, answer.read()

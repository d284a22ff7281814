"""What all proxies of one work share: a directory, two cores, a token, and the upstream."""

import os
import shutil
import subprocess
from pathlib import Path

from processes import Process, free_ports

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = Path(__file__).parent / "conf"
SEARCH_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
TOKEN = "a" * 800  # the size of a usual JWT
SMALL_BODY = b"x" * 128
BLOCK = 2048  # nginx takes no literal over 4 KiB: a longer body is a row of references to a block


class Absent(Exception):
    """A program that this machine does not have, or something else that it does not offer."""


class Failed(Exception):
    """Something did not do its part, so that no figure would mean anything."""


def find(program: str) -> str:
    found = shutil.which(program, path=SEARCH_PATH)
    if not found:
        raise Absent(f"no {program} on PATH")
    return found


def built(example: str) -> Path:
    """One of our own, made by `cargo build --profile quick --examples`."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    program = target / "quick" / "examples" / example
    if not program.exists():
        raise Absent(f"no {program}; build it with: cargo build --profile quick --example {example}")
    return program


def envoy() -> str:
    """$ENVOY, or that which `tests/deps/install.sh bench` brought: a wheel holds the program."""
    brought = sorted(Path(__file__).parent.glob(".venv/lib/python3*/site-packages/envoy/_bin/envoy"))
    return find(os.environ.get("ENVOY") or str(brought[0] if brought else "envoy"))


def nginx(home: Path, configuration: Path) -> list:
    """-e, since nginx opens the log of its build before it reads where ours is."""
    return [find("nginx"), "-p", home, "-e", "stderr", "-c", configuration]


class Rig:
    """The proxies run on one core, the upstream and the load generator on the other."""

    def __init__(self, home: Path, bearerd: Path):
        self.home = home
        self.bearerd = bearerd
        self.load_core, self.proxy_core = two_cores()
        self.values = {
            "home": home,
            "token": TOKEN,
            "threads": 1,
            "worker_connections": 8192,
            "small": SMALL_BODY.decode(),
            "block": "x" * BLOCK,
            "blocks_16k": "$b" * (16 * 1024 // BLOCK),
            "blocks_1m": "$b" * (1024 * 1024 // BLOCK),
            **dict(zip(("guarded", "secure", "open"), free_ports(3), strict=True)),
            # As root, nginx would give its workers to a user who may not enter our directory.
            "user": "user root;" if os.geteuid() == 0 else "",
        }
        self._lay_out()

    def _lay_out(self):
        token = self.home / "token"
        token.touch(mode=0o600)
        token.write_text(TOKEN)
        self.render("temporary.conf")
        self._make_certificate()

    def _make_certificate(self):
        """Of the upstream, for TLS to it, and of the authority that it is from."""
        authority = {"-CA": self.home / "authority.pem", "-CAkey": self.home / "authority.key"}
        for name, issuer in (("authority", {}), ("upstream", authority)):
            command = [find("openssl"), "req", "-x509", "-config", TEMPLATES / "openssl.cnf"]
            command += ["-extensions", name, "-subj", f"/CN={name}", "-days", "2", "-nodes"]
            command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
            command += ["-out", self.home / f"{name}.pem", "-keyout", self.home / f"{name}.key"]
            command += [part for option in issuer.items() for part in option]
            made = subprocess.run(command, capture_output=True, text=True, check=False)
            if made.returncode:
                raise Failed(f"openssl makes no certificate:\n{made.stderr}")

    def render(self, template: str, name: str | None = None, **values) -> Path:
        """Fills in a template of conf/, and says where the result is."""
        filled = self.home / (name or template)
        filled.write_text((TEMPLATES / template).read_text() % (self.values | values))
        return filled

    def upstream(self) -> Process:
        command = nginx(self.home, self.render("upstream.conf", worker_connections=20000))
        return Process(command, self.load_core, self.home / "upstream.out")

    def upload_script(self, size: int) -> Path:
        """For wrk."""
        script = self.home / "upload.lua"
        script.write_text(f'wrk.method = "POST"\nwrk.body = string.rep("x", {size})\n')
        return script


def two_cores() -> list[int]:
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise Failed("two cores are needed: one for the proxies, one for the load")
    return cores

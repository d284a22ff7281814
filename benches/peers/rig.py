"""What all proxies of one run share: a directory, two cores, a token, and the upstream."""

import os
import shutil
from pathlib import Path

from processes import Process, free_port

TEMPLATES = Path(__file__).parent / "conf"
SEARCH_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
TOKEN = "a" * 800  # the size of a usual JWT
BLOCK = 2048  # nginx takes no literal over 4 KiB: a longer body is a row of references to a block
MAX_BODY = 2 * 1024 * 1024  # and this is what such a row amounts to
WORKER_CONNECTIONS = 8192
MAX_CLIENTS = 4000  # each may need a second connection, to the upstream


class Absent(Exception):
    """A program that this machine does not have."""


class Failed(Exception):
    """Something did not do its part, so that no figure would mean anything."""


def find(program: str) -> str:
    found = shutil.which(program, path=SEARCH_PATH)
    if not found:
        raise Absent(f"no {program} on PATH")
    return found


def nginx(home: Path, configuration: Path) -> list:
    """-e, since nginx opens the log of its build before it reads where ours is."""
    return [find("nginx"), "-p", home, "-e", "stderr", "-c", configuration]


class Rig:
    """The proxies run on one core, the upstream and the load generator on the other."""

    def __init__(self, home: Path, bearerd: Path, body_bytes: int):
        self.home = home
        self.bearerd = bearerd
        self.body = b"x" * body_bytes
        self.load_core, self.proxy_core = two_cores()
        self.values = {
            "home": home,
            "token": TOKEN,
            "worker_connections": WORKER_CONNECTIONS,
            "block": "x" * BLOCK,
            "body": "x" * (body_bytes % BLOCK) + "$b" * (body_bytes // BLOCK),
            "guarded": free_port(),
            "open": free_port(),
            # As root, nginx would give its workers to a user who may not enter our directory.
            "user": "user root;" if os.geteuid() == 0 else "",
        }
        self._lay_out()

    def _lay_out(self):
        token = self.home / "token"
        token.touch(mode=0o600)
        token.write_text(TOKEN)
        self.render("temporary.conf")

    def render(self, template: str, **values) -> Path:
        """Fills in a template of conf/, and says where the result is."""
        filled = self.home / template
        filled.write_text((TEMPLATES / template).read_text() % (self.values | values))
        return filled

    def upstream(self) -> Process:
        command = nginx(self.home, self.render("upstream.conf"))
        return Process(command, self.load_core, self.home / "upstream.out")


def two_cores() -> list[int]:
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise Failed("two cores are needed: one for the proxies, one for the load")
    return cores

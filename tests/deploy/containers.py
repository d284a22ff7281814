"""podman and buildah with a storage of their own, so that nothing of the machine's is touched."""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# What a machine without systemd and without a desktop user's privileges needs.
CONFIGURATION = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
infra_image = "localhost/pause"
"""

# The infra container of a pod, and the application: a shell and its tools in one static program.
BUSYBOX = """\
FROM scratch
COPY busybox /bin/busybox
COPY busybox /bin/sh
COPY busybox /bin/wget
COPY nsswitch.conf /etc/nsswitch.conf
"""
PAUSE = BUSYBOX + """\
ENTRYPOINT ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do /bin/busybox sleep 3600 & wait; done"]
"""


class Containers:
    """One storage; it ends with everything in it."""

    def __init__(self):
        # Short: sockets are made below it, and their paths have a limit.
        self.home = Path(tempfile.mkdtemp(prefix="bearerd-", dir="/tmp"))
        configuration = self.home / "containers.conf"
        configuration.write_text(CONFIGURATION)
        self.environment = {
            "CONTAINERS_CONF": str(configuration),
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.home),
        }
        storage = ["--root", self.home / "root", "--runroot", self.home / "run"]
        self._storage = [str(part) for part in [*storage, "--storage-driver", "vfs"]]

    def podman(self, *arguments, check=True, timeout=120, stdin=None):
        """Runs podman to its end."""
        own = ["--tmpdir", str(self.home / "tmp"), "--volumepath", str(self.home / "volumes"),
               "--network-config-dir", str(self.home / "networks")]
        return self._run(["podman", *self._storage, *own, *arguments], check, timeout, stdin)

    def build(self, directory, *arguments):
        """Runs `buildah build` in a directory; what it prints."""
        command = ["buildah", *self._storage, "build", "--isolation", "chroot", "--no-cache"]
        return self._run([*command, *map(str, arguments), str(directory)], True, 300, None)

    def build_busybox(self, tag, text=BUSYBOX):
        """Builds an image around the machine's static busybox."""
        context = self.home / f"context-{tag}"
        context.mkdir()
        shutil.copy(shutil.which("busybox"), context / "busybox")
        # Without it a static glibc looks for shared libraries to resolve names.
        (context / "nsswitch.conf").write_text("hosts: files dns\n")
        (context / "Dockerfile").write_text(text)
        self.build(context, "--tag", f"localhost/{tag}")

    def inspect(self, name, *arguments):
        """What podman knows about a container, a pod or an image."""
        output = self.podman(*arguments, "inspect", name).stdout
        found = json.loads(output)
        return found[0] if isinstance(found, list) else found

    def _run(self, command, check, timeout, stdin):
        done = subprocess.run(
            command, env=self.environment, input=stdin, capture_output=True, text=True,
            timeout=timeout, check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        return done

    def remove(self):
        """Ends and deletes all of it."""
        self.podman("pod", "rm", "--all", "--force", "--time", "0", check=False)
        self.podman("rm", "--all", "--force", "--time", "0", check=False)
        self.podman("network", "prune", "--force", check=False)
        subprocess.run(["umount", "--recursive", "--quiet", str(self.home / "root")], check=False,
                       stderr=subprocess.DEVNULL)
        shutil.rmtree(self.home, ignore_errors=True)

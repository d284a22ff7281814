"""One Pod of deploy/kubernetes under podman, with what the kubelet does for it done here."""

import http.client
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import yaml

PROXY, ADMIN = 8080, 9901
DEADLINE = 30.0


class Directory:
    """A mounted ConfigMap or Secret, swapped as the kubelet's AtomicWriter swaps it: the files are
    links through `..data`, which is itself a link that is replaced by a rename."""

    def __init__(self, path, files, mode, group=0):
        self.path, self.mode, self.group, self.version = path, mode, group, 0
        path.mkdir(parents=True)
        self.swap(files)
        for name in files:
            (path / name).symlink_to(f"..data/{name}")

    def swap(self, files):
        former = self.path / f"..version_{self.version}"
        self.version += 1
        new = self.path / f"..version_{self.version}"
        new.mkdir(mode=0o755)
        for name, content in files.items():
            (new / name).write_text(content)
            os.chown(new / name, 0, self.group)
            (new / name).chmod(self.mode)
        link = self.path / "..data_tmp"
        link.symlink_to(new.name)
        link.rename(self.path / "..data")
        shutil.rmtree(former, ignore_errors=True)


def group_of(spec):
    return spec.get("securityContext", {}).get("fsGroup", 0)


def access(spec, name):
    """Mode and group of a volume's files, as the kubelet gives them."""
    volume = next(volume for volume in spec["volumes"] if volume["name"] == name)
    projected, secret = volume.get("projected", {}), volume.get("secret", {})
    mode = projected.get("defaultMode", secret.get("defaultMode", 0o644))
    return mode, group_of(spec)


class Pod:
    """A pod that runs; `world` is inside it."""

    def __init__(self, containers, home, manifest, *, application, secrets, replace):
        self.containers, self.home = containers, home
        documents = list(yaml.safe_load_all(manifest.read_text()))
        config = next(d for d in documents if d["kind"] == "ConfigMap")["data"]["bearerd.toml"]
        for old, new in replace.items():
            assert old in config, f"{manifest.name} does not hold {old}"
            config = config.replace(old, new)
        workload = next(d for d in documents if d["kind"] in ("Deployment", "Job"))
        spec = workload["spec"]["template"]["spec"]
        self.config = Directory(home / "config", {"bearerd.toml": config}, 0o644)
        self.secrets = Directory(home / "secrets", secrets, *access(spec, "bearerd-secrets"))
        self.store = home / "store"
        self.store.mkdir()
        if group_of(spec):
            # As fsGroup leaves a volume.
            os.chown(self.store, 0, group_of(spec))
            self.store.chmod(0o2775)
        else:
            # An emptyDir.
            self.store.chmod(0o777)
        self.name = workload["metadata"]["name"]
        self.pod = self._as_podman_takes_it(workload, application)
        # The infra container holds the network; the world is there before the first container.
        file = home / "pod.yaml"
        file.write_text(json.dumps(self.pod))
        containers.podman("kube", "play", "--start=false", str(file))
        infra = containers.inspect(self.name, "pod")["InfraContainerID"]
        containers.podman("start", infra)
        self.address = self._address(infra)
        self.network = f"--net=/proc/{containers.inspect(infra)['State']['Pid']}/ns/net"
        self.world = self.inside(
            sys.executable, str(Path(__file__).parent / "world.py"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert json.loads(self.world.stdout.readline()) == "ready"
        for container in self.names():
            containers.podman("start", self.container(container))
            self._started(container)
        self.sidecar_pid = containers.inspect(self.container("bearerd"))["State"]["Pid"]

    def _as_podman_takes_it(self, workload, application):
        """The pod of a workload, as it is but for what podman does not know:

        - it would run a native sidecar to its end before all else, so that becomes a container;
        - it does not probe by HTTP from outside the container and knows no hooks: `_started` does;
        - volumes are directories that the test keeps as the kubelet keeps them;
        - images are those of the tests.
        """
        template = workload["spec"]["template"]
        spec = template["spec"]
        for container in spec.pop("initContainers", []):
            assert container.pop("restartPolicy") == "Always"
            spec["containers"].insert(0, container)
        self.held_back_by = {}
        for container in spec["containers"]:
            self_made = container["name"] == "bearerd"
            container["image"] = "localhost/bearerd" if self_made else "localhost/application"
            container["imagePullPolicy"] = "Never"
            hooks = container.pop("lifecycle", {})
            startup = container.pop("startupProbe", None)
            self.held_back_by[container["name"]] = (startup, hooks.get("postStart"))
            for probe in ("livenessProbe", "readinessProbe"):
                container.pop(probe, None)
            if not self_made:
                container["command"], container["args"] = ["/bin/sh", "-c"], [application.strip()]
        directories = {"bearerd-config": "config", "bearerd-secrets": "secrets",
                       "bearerd-store": "store"}
        for volume in spec["volumes"]:
            path = self.home / directories[volume["name"]]
            volume.clear()
            volume.update(name=next(k for k, v in directories.items() if v == path.name),
                          hostPath={"path": str(path), "type": "Directory"})
        spec |= {"restartPolicy": "Never", "dnsPolicy": "None",
                 "dnsConfig": {"nameservers": ["127.0.0.1"]}}
        metadata = {"name": self.name, "labels": template["metadata"]["labels"]}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

    def _started(self, container):
        """What the kubelet waits for before it starts the next container."""
        startup, hook = self.held_back_by[container]
        if hook:
            self.containers.podman("exec", self.container(container), *hook["exec"]["command"])
        if startup:
            assert startup["httpGet"]["port"] == "bearerd-admin"
            until("the startup probe", lambda: self._answers(startup["httpGet"]["path"]))

    def _answers(self, path):
        try:
            return self.admin(path)[0] == 200
        except OSError:
            return False

    def admin(self, path, method="GET"):
        """An answer of bearerd's admin listener, asked from outside the pod."""
        connection = http.client.HTTPConnection(self.address, ADMIN, timeout=10)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def names(self):
        return [container["name"] for container in self.pod["spec"]["containers"]]

    def container(self, name):
        return f"{self.name}-{name}"

    def _address(self, infra):
        settings = self.containers.inspect(infra)["NetworkSettings"]
        networks = settings.get("Networks") or {}
        return next(iter(networks.values()))["IPAddress"] if networks else settings["IPAddress"]

    def inside(self, *command, **options):
        """Starts a program of this machine in the pod's network."""
        return subprocess.Popen(["nsenter", self.network, "--", *command], **options)

    def ask(self, **command):
        """Says something to the world; what has happened there."""
        self.world.stdin.write(json.dumps(command) + "\n")
        self.world.stdin.flush()
        return json.loads(self.world.stdout.readline())

    def logs(self, name):
        done = self.containers.podman("logs", self.container(name))
        return done.stdout + done.stderr

    def state(self, name):
        return self.containers.inspect(self.container(name))["State"]

    def stop(self, name, grace=30):
        """SIGTERM, and the exit code."""
        self.containers.podman("stop", "--time", str(grace), self.container(name))
        return self.state(name)["ExitCode"]

    def memory(self):
        """The most that bearerd has had resident, in bytes."""
        status = Path(f"/proc/{self.sidecar_pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024

    def remove(self):
        self.world.stdin.close()
        self.world.wait()
        self.containers.podman("pod", "rm", "--force", "--time", "0", self.name)


def until(what, holds, pause=0.05):
    """Waits until `holds()` is true, and gives what it says."""
    end = time.monotonic() + DEADLINE
    while not (result := holds()):
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(pause)
    return result

"""What the tests of deploy/ share: the tools, the program, the image, the charts."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from containers import PAUSE, ROOT, Containers
from pod import Pod

TOOLS = Path(__file__).parent / ".venv" / "bin"
DEPLOY = ROOT / "deploy"

# Asks for ever, says so when an answer is not 200, and makes its last requests after SIGTERM.
APPLICATION = """
ask() { wget -q -O /dev/null http://127.0.0.1:8080/orders; }
trap 'ending=yes' TERM
while [ -z "$ending" ]; do
    if ask; then ok=$((ok + 1)); else echo "failed request"; fi
done
for last in 1 2 3; do ask || echo "failed request"; done
echo "ended after $ok requests"
"""

WORLD = {
    "https://idp.example/oauth2/token": "http://idp.test:9000/token",
    'upstream = "https://api.example.com"':
        'upstream = "http://api.test:9001"\nallow_plaintext = true',
    'client_id = "orders-sidecar"': 'client_id = "orders-sidecar"\nallow_plaintext = true',
}


def run(*command, stdin=None, check=True, cwd=ROOT, env=None):
    """Runs a program to its end, one of the installed tools or the machine's; what it printed."""
    tool = TOOLS / str(command[0])
    command = [str(tool) if tool.exists() else command[0], *command[1:]]
    done = subprocess.run(
        [str(part) for part in command], input=stdin, capture_output=True, text=True, cwd=cwd,
        check=False, timeout=600, env={**os.environ, **(env or {})})
    if check and done.returncode != 0:
        pytest.fail(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}", pytrace=False)
    return done


def built(variable):
    path = Path(os.environ.get(variable, "none")).absolute()
    if not path.is_file():
        pytest.fail(f"{variable} names no program; run `make test-deploy`", pytrace=False)
    return path


@pytest.fixture(scope="session")
def program():
    """The static bearerd that `make test-deploy` has built."""
    return built("BEARERD")


@pytest.fixture(scope="session")
def injector_program():
    """The static bearerd-injector that `make test-deploy` has built."""
    return built("INJECTOR")


@pytest.fixture(scope="session")
def containers():
    containers = Containers()
    yield containers
    containers.remove()


@pytest.fixture(scope="session")
def build_stage(program, injector_program, tmp_path_factory):
    """What the image file's build stage leaves: no compiler image can be had without a registry of
    images, so this directory stands in for that stage, and the rest is built as it is."""
    stage = tmp_path_factory.mktemp("build-stage")
    image = stage / "image"
    (image / "etc/ssl/certs").mkdir(parents=True)
    (image / "var/lib/bearerd").mkdir(parents=True)
    (image / "var/lib/bearerd").chmod(0o700)
    shutil.copy(program, image / "bearerd")
    run("strip", image / "bearerd")
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", image / "etc/ssl/certs")
    injector = stage / "injector"
    (injector / "etc").mkdir(parents=True)
    shutil.copy(injector_program, injector / "bearerd-injector")
    run("strip", injector / "bearerd-injector")
    for root in (image, injector):
        (root / "etc/nsswitch.conf").write_text("hosts: files dns\n")
    return stage


@pytest.fixture(scope="session")
def image(containers, build_stage):
    """The image, under a name that the manifests of the tests use."""
    build_image(containers, build_stage, "--tag", "localhost/bearerd", "--format", "docker")
    return "localhost/bearerd"


@pytest.fixture(scope="session")
def images(containers, image):
    """All images of a pod."""
    containers.build_busybox("pause", PAUSE)
    containers.build_busybox("application")
    return image


@pytest.fixture
def start(containers, images, tmp_path_factory):
    """Starts a pod from one of the manifests."""
    pods = []

    def start(manifest, application, secrets, replace=WORLD):
        home = tmp_path_factory.mktemp("pod")
        home.chmod(0o755)
        pods.append(Pod(containers, home, DEPLOY / "kubernetes" / manifest,
                        application=application, secrets=secrets, replace=replace))
        return pods[-1]

    yield start
    for pod in pods:
        pod.remove()


@pytest.fixture
def rotating(start):
    return start("rotating.yaml", APPLICATION,
                 {"client-secret": "first", "refresh-token": "bootstrap"})


def build_image(containers, build_stage, *arguments):
    """Builds deploy/Dockerfile with a stand-in for its build stage."""
    return containers.build(
        ROOT, "--file", DEPLOY / "Dockerfile", "--timestamp", "0",
        "--build-context", f"build={build_stage}", *arguments)

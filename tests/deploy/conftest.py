"""What the tests of deploy/ share: the tools, the program, the image, the charts."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from containers import PAUSE, ROOT, Containers

TOOLS = Path(__file__).parent / ".venv" / "bin"
DEPLOY = ROOT / "deploy"


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


@pytest.fixture(scope="session")
def program():
    """The static bearerd that `make test-deploy` has built."""
    path = Path(os.environ.get("BEARERD", "none")).absolute()
    if not path.is_file():
        pytest.fail("BEARERD names no program; run `make test-deploy`", pytrace=False)
    return path


@pytest.fixture(scope="session")
def containers():
    containers = Containers()
    yield containers
    containers.remove()


@pytest.fixture(scope="session")
def build_stage(program, tmp_path_factory):
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
    (image / "etc/nsswitch.conf").write_text("hosts: files dns\n")
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


def build_image(containers, build_stage, *arguments):
    """Builds deploy/Dockerfile with a stand-in for its build stage."""
    return containers.build(
        ROOT, "--file", DEPLOY / "Dockerfile", "--timestamp", "0",
        "--build-context", f"build={build_stage}", *arguments)

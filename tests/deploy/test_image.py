"""The image: what is in it, and that building it again gives the same."""

import io
import json
import tarfile
import zlib

import pytest

from conftest import DEPLOY, build_image, run
from pod import until


def test_the_image_file_is_clean():
    run("hadolint", DEPLOY / "Dockerfile")


def test_the_programs_need_no_library(program, injector_program):
    for one in (program, injector_program):
        assert "NEEDED" not in run("readelf", "--dynamic", one).stdout


def test_the_programs_say_what_they_are_built_of(build_stage, tmp_path):
    """Stripped as they are in the images: the section of cargo-auditable, JSON in zlib."""
    metadata = json.loads(run("cargo", "metadata", "--format-version", "1", "--locked", "--offline").stdout)
    known = {(package["name"], package["version"]) for package in metadata["packages"]}
    for name in ("image/bearerd", "injector/bearerd-injector"):
        section = tmp_path / "section"
        run("objcopy", "--dump-section", f".dep-v0={section}", build_stage / name, tmp_path / "copy")
        told = json.loads(zlib.decompress(section.read_bytes()))["packages"]
        root, = (package["name"] for package in told if package.get("root"))
        assert root == name.rpartition("/")[2]
        assert {(package["name"], package["version"]) for package in told} <= known
        built_of = {package["name"] for package in told if package.get("kind") != "build"}
        assert {"hyper", "rustls", "tokio", "aws-lc-rs"} <= built_of
        assert not {"proptest", "criterion", "bearerd-emulator"} & built_of, "only tests need those"


def files_in(containers, image):
    archive = containers.home / f"{image.rpartition('/')[2]}.tar"
    containers.podman("save", "--output", str(archive), image)
    files = {}
    with tarfile.open(archive) as saved:
        for layer in json.load(saved.extractfile("manifest.json"))[0]["Layers"]:
            with tarfile.open(fileobj=io.BytesIO(saved.extractfile(layer).read())) as layer:
                files |= {entry.name: entry for entry in layer}
    return files


def test_the_image_holds_the_program_certificates_and_a_place_for_the_store(containers, image):
    files = files_in(containers, image)
    content = {name for name, entry in files.items() if entry.isfile()}
    assert content == {"bearerd", "etc/nsswitch.conf", "etc/ssl/certs/ca-certificates.crt"}
    store = files["var/lib/bearerd"]
    assert (store.uid, store.gid, store.mode & 0o777) == (65532, 65532, 0o700)
    assert all(files[name].uid == 0 for name in content)
    assert {entry.mtime for entry in files.values()} == {0}


def test_the_image_runs_as_a_numeric_user_and_says_what_it_is(containers, image):
    config = containers.inspect(image, "image")["Config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["/bearerd"]
    assert config["Cmd"] == ["run", "--config", "/etc/bearerd/bearerd.toml"]
    labels = config["Labels"]
    version = run("cargo", "metadata", "--no-deps", "--format-version", "1", "--offline").stdout
    packages = {package["name"]: package for package in json.loads(version)["packages"]}
    assert labels["org.opencontainers.image.version"] == packages["bearerd"]["version"]
    assert labels["org.opencontainers.image.licenses"] == packages["bearerd"]["license"]
    assert labels["org.opencontainers.image.title"] == "bearerd"


@pytest.mark.parametrize("target", [(), ("--target", "injector")], ids=["bearerd", "injector"])
def test_the_same_program_gives_the_same_image(containers, build_stage, target):
    built = []
    for name in ("once", "again"):
        build_image(
            containers, build_stage, "--format", "oci", "--tag", f"localhost/{name}", *target)
        image = containers.inspect(f"localhost/{name}", "image")
        built.append((image["Digest"], image["RootFS"]["Layers"]))
    assert built[0] == built[1]


def test_the_injectors_image_holds_nothing_but_it_and_runs_as_a_numeric_user(
        containers, build_stage, tmp_path):
    image = "localhost/bearerd-injector"
    build_image(containers, build_stage, "--target", "injector", "--tag", image,
                "--format", "docker")
    files = files_in(containers, image)
    content = {name for name, entry in files.items() if entry.isfile()}
    assert content == {"bearerd-injector", "etc/nsswitch.conf"}
    assert all(files[name].uid == 0 and not files[name].mode & 0o022 for name in content)
    config = containers.inspect(image, "image")["Config"]
    assert config["User"] == "65532:65532"
    assert config["Labels"]["org.opencontainers.image.title"] == "bearerd-injector"
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=injector",
        "-keyout", tmp_path / "tls.key", "-out", tmp_path / "tls.crt")
    for file in tmp_path.iterdir():
        file.chmod(0o444)
    tmp_path.chmod(0o755)
    containers.podman(
        "run", "--detach", "--name", "injector", "--network", "none", "--read-only",
        "--cap-drop", "all", "--memory", "64m", "--volume", f"{tmp_path}:/certificate:ro", image,
        "run", "--certificate=/certificate/tls.crt", "--key=/certificate/tls.key", "--image=bearerd",
        "--kubernetes-version=1.31", "--linger=0")
    until("it listens", lambda: "is listening" in containers.podman("logs", "injector").stderr)
    containers.podman("stop", "--time", "30", "injector")
    state = containers.inspect("injector")["State"]
    assert state["ExitCode"] == 0, containers.podman("logs", "injector").stderr
    containers.podman("rm", "injector")


def test_the_health_check_asks_the_program(containers, image, tmp_path):
    (tmp_path / "token").write_text("abc")
    (tmp_path / "bearerd.toml").write_text(
        '[credentials.c]\nprovider = "file"\npath = "/etc/bearerd/token"\n'
        '[[routes]]\nupstream = "https://api.example.com"\ncredential = "c"\n')
    tmp_path.chmod(0o755)
    checked = containers.podman(
        "run", "--rm", "--network", "none", "--volume", f"{tmp_path}:/etc/bearerd:ro", image,
        "check", "--config", "/etc/bearerd/bearerd.toml")
    assert "api.example.com" in checked.stdout
    containers.podman(
        "run", "--detach", "--name", "health", "--network", "none", "--read-only",
        "--volume", f"{tmp_path}:/etc/bearerd:ro", image)
    try:
        containers.podman("wait", "--condition", "running", "health", timeout=20)
        assert until_healthy(containers), containers.podman("logs", "health").stderr
        # By name, as /status and the alert tell the command for a login.
        said = containers.podman("exec", "health", "bearerd", "--version").stdout
        assert said.startswith("bearerd "), said
        containers.podman("pause", "health")
        assert containers.podman("healthcheck", "run", "health", check=False).returncode != 0
    finally:
        containers.podman("unpause", "health", check=False)
        containers.podman("rm", "--force", "--time", "5", "health")


def until_healthy(containers):
    """Asks until the listener is there; each attempt has the image's own deadline."""
    for _ in range(50):
        if containers.podman("healthcheck", "run", "health", check=False).returncode == 0:
            return True
    return False

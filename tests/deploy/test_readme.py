"""The commands of deploy/README.md, as they stand there."""

import base64
import json
import re
import shlex
import tomllib

import yaml

from conftest import DEPLOY, ROOT, run
from manifests import CHART, documents, sidecar

README = (DEPLOY / "README.md").read_text()
STEPS = [block.strip().splitlines() for block in re.findall(
    r"^   ```sh\n(.*?)^   ```", README.split("## What to know")[0], re.MULTILINE | re.DOTALL)]


def words(step, line=0):
    return shlex.split(STEPS[step - 1][line])


def manifest():
    command = words(4)
    assert command[:3] == ["kubectl", "apply", "-f"]
    return (ROOT / command[3]).read_text()


def test_there_are_five_steps():
    assert len(STEPS) == 5


def test_steps_1_and_2_build_the_image_and_check_the_configuration(
        containers, build_stage, tmp_path):
    build = words(1)
    assert build[:2] == ["buildah", "build"] and build[-1] == "."
    containers.build(ROOT, "--build-context", f"build={build_stage}", *build[2:-1])
    config = next(d for d in documents(manifest()) if d["kind"] == "ConfigMap")
    (tmp_path / "bearerd.toml").write_text(config["data"]["bearerd.toml"])
    (tmp_path / "secrets").mkdir()
    for key in secret_keys(config["data"]["bearerd.toml"]):
        (tmp_path / "secrets" / key).write_text(f"a {key}")
    tmp_path.chmod(0o755)
    check = [word.replace("./", f"{tmp_path}/", 1) if word.startswith("./") else word
             for word in words(2)]
    done = containers.podman(*check[1:])
    assert "https://api.example.com" in done.stdout


def secret_keys(config):
    """The files below the mounted secrets that a configuration names."""
    credential = tomllib.loads(config)["credentials"]["orders"]
    return {value["file"].rpartition("/")[2] for value in credential.values()
            if isinstance(value, dict) and "file" in value}


def test_step_3_makes_the_secret_that_the_manifest_of_step_4_wants(tmp_path):
    config = next(d for d in documents(manifest()) if d["kind"] == "ConfigMap")
    keys = secret_keys(config["data"]["bearerd.toml"])
    (tmp_path / "secrets").mkdir()
    for key in keys:
        (tmp_path / "secrets" / key).write_text("secret")
    made = run(*words(3), "--dry-run=client", "-o", "yaml", cwd=tmp_path).stdout
    secret = yaml.safe_load(made)
    _, _, pod = sidecar(manifest())
    volume = next(v for v in pod["volumes"] if v["name"] == "bearerd-secrets")
    workload = next(d for d in documents(manifest()) if d["kind"] == "Deployment")
    assert secret["metadata"]["name"] == volume["secret"]["secretName"]
    assert secret["metadata"]["namespace"] == workload["metadata"]["namespace"]
    assert set(secret["data"]) == keys


def test_step_5_looks_at_the_pod_of_step_4(rotating):
    assert words(4)[3].endswith("kubernetes/rotating.yaml")
    forward, ask = words(5), words(5, 1)
    assert forward[3:] == ["port-forward", f"deployment/{rotating.name}", "9901"]
    path = ask[1].removeprefix("http://127.0.0.1:9901")
    status, body = rotating.admin(path)
    assert status == 200 and '"expires_at"' in body


def test_the_chart_is_installed_as_the_readme_says(tmp_path):
    command = README.split("## Helm\n\n```sh\n")[1].split("helm test")[0].replace("\\\n", " ")
    (tmp_path / "bearerd.toml").write_text("[server]\n")
    arguments = [word.replace("deploy/", f"{DEPLOY}/", 1) if word.startswith("deploy/") else word
                 for word in shlex.split(command)]
    text = run(*arguments, "--dry-run=client", cwd=tmp_path).stdout
    for kind in ("PodMonitor", "PrometheusRule", "ConfigMap"):
        assert f"kind: {kind}" in text


INJECTOR = README.split("## The injector")[1].split("## Observing")[0]


def test_the_injector_is_built_and_installed_as_the_readme_says(containers, build_stage):
    build, install = (shlex.split(line) for line in
                      INJECTOR.split("```sh\n")[1].split("```")[0].strip().splitlines())
    assert build[:2] == ["buildah", "build"] and build[-1] == "."
    containers.build(ROOT, "--build-context", f"build={build_stage}", *build[2:-1])
    assert install[:2] == ["helm", "install"]
    text = run(*install, "--dry-run=client").stdout
    assert "kind: MutatingWebhookConfiguration" in text
    assert "injector" in text.partition("NOTES:")[2]


def test_the_annotations_that_the_readme_lists_are_those_that_the_injector_knows():
    table = INJECTOR.split("| annotation |")[1].split("\n\n")[0]
    listed = set(re.findall(r"`bearerd/([a-z-]+)`", table))
    source = (DEPLOY / "injector/src/settings.rs").read_text()
    keys = source.split("const KEYS")[1].split("= [")[1].split("]")[0]
    assert listed == set(re.findall(r'"([a-z-]+)"', keys))
    example = yaml.safe_load(INJECTOR.split("```yaml\n")[1].split("```")[0])["metadata"]
    assert example["labels"] == {"bearerd/inject": "true"}
    assert {key.removeprefix("bearerd/") for key in example["annotations"]} <= listed


def test_the_readme_names_every_alert_and_no_other():
    rules = yaml.safe_load((CHART / "files/alerts.yaml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    assert set(re.findall(r"`(Bearerd[A-Za-z]+)`", README)) == alerts


def test_the_values_that_the_readme_names_are_the_charts():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    sections = "|".join(name for name, value in values.items() if isinstance(value, dict))
    named = set(re.findall(rf"`((?:{sections})\.(?!yaml|json)[A-Za-z.]+)`", README))
    assert len(named) > 5
    for path in named:
        found = values
        for part in path.split("."):
            assert part in found, path
            found = found[part]


def test_the_command_of_the_rotation_makes_the_secret_anew(tmp_path):
    runbook = README.split("## Rotating a secret")[1].split("## Signing in")[0]
    command, _, applied = runbook.split("```sh\n")[1].split("```")[0].strip().partition(" | ")
    assert applied == "kubectl apply -f -"
    (tmp_path / "secrets").mkdir()
    for key in ("client-secret", "refresh-token"):
        (tmp_path / "secrets" / key).write_text("second")
    secret = yaml.safe_load(run(*shlex.split(command), cwd=tmp_path).stdout)
    assert (secret["metadata"]["name"], secret["metadata"]["namespace"]) == (words(3)[6], "shop")
    assert secret["data"] == dict.fromkeys(
        ("client-secret", "refresh-token"), base64.b64encode(b"second").decode())


def test_the_paths_that_the_readme_links_to_are_there():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert (DEPLOY / link).exists(), link


def logged_fields():
    """The fields of every log line that the product writes at INFO and above, from its source."""
    fields = set()
    for file in (ROOT / "src").rglob("*.rs"):
        if "tests" in file.parts or file.name == "tests.rs":
            continue
        code = file.read_text().split("#[cfg(test)]")[0]
        for call in re.finditer(r"\b(?:info|warn|error)!\(([^;]*?)\"", code):
            for part in call.group(1).split(","):
                if name := re.match(r"\s*[%?]?([a-z_]+)\s*(=|$)", part):
                    fields.add(name.group(1))
    return fields


def test_the_fields_of_the_log_are_those_that_the_readme_lists(rotating):
    table = README.split("### Logs")[1].split("## Rotating")[0]
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    listed = {field for row in rows for field in re.findall(r"`([a-z_]+)`", row)}
    assert listed == logged_fields()
    assert rotating.stop("bearerd") == 0
    lines = [json.loads(line) for line in rotating.logs("bearerd").splitlines()]
    assert {"token refreshed", "stopping", "stopped"} <= {line["message"] for line in lines}
    always = {"timestamp", "level", "target", "message"}
    for line in lines:
        assert always <= set(line) <= always | listed, line

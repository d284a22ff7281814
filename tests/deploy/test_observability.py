"""Alert rules and dashboard: valid, tested one by one, and answered by a live Prometheus."""

import http.client
import json
import math
import re
import shutil
import subprocess
from urllib.parse import quote

import pytest
import yaml

from conftest import DEPLOY, run
from pod import until

FILES = DEPLOY / "helm/bearerd/files"
UNIT_TESTS = DEPLOY.parent / "tests/deploy/alerts.test.yaml"
SCRAPE = """\
global: { scrape_interval: 1s, evaluation_interval: 1s }
rule_files: [alerts.yaml]
scrape_configs:
  - job_name: pods
    static_configs:
      - targets: ["127.0.0.1:9901"]
        labels: { namespace: shop, pod: orders-1, container: bearerd }
"""


def alerts():
    rules = yaml.safe_load((FILES / "alerts.yaml").read_text())
    return {rule["alert"] for group in rules["groups"] for rule in group["rules"]}


def queries():
    """Every query of the dashboard, with what Grafana would put in."""
    dashboard = json.loads((FILES / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            query = target["expr"].replace("$namespace", ".*").replace("$pod", ".*")
            query = query.replace("$__rate_interval", "10s")
            assert "$" not in query, query
            yield f"{panel['title']} {target['refId']}", query


def test_every_alert_fires_when_it_should_and_not_otherwise(tmp_path):
    shutil.copy(FILES / "alerts.yaml", tmp_path)
    shutil.copy(UNIT_TESTS, tmp_path)
    run("promtool", "check", "rules", "--lint=all", "--lint-fatal", "alerts.yaml", cwd=tmp_path)
    run("promtool", "test", "rules", UNIT_TESTS.name, cwd=tmp_path)
    cases = [case for test in yaml.safe_load(UNIT_TESTS.read_text())["tests"]
             for case in test["alert_rule_test"]]
    for fires in (True, False):
        told = {case["alertname"] for case in cases if bool(case["exp_alerts"]) == fires}
        assert told == alerts()


def test_every_query_of_the_dashboard_is_valid(tmp_path):
    rules = [{"record": f"panel:{number}", "expr": query}
             for number, (_, query) in enumerate(queries())]
    assert len(rules) > 15
    file = tmp_path / "dashboard.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    run("promtool", "check", "rules", file)


def test_alerts_and_dashboard_name_every_metric_that_the_readme_lists_and_no_other():
    texts = [(DEPLOY.parent / "README.md").read_text(), (DEPLOY / "README.md").read_text()]
    listed = set(re.findall(r"^\| `(bearerd_[a-z_]+)` \|", "".join(texts), re.MULTILINE))
    used = set()
    for text in [*(query for _, query in queries()), (FILES / "alerts.yaml").read_text()]:
        used |= set(re.findall(r"\bbearerd_[a-z_]+", text))
    used = {re.sub(r"_(bucket|count|sum)$", "", name) for name in used}
    assert used <= listed
    # The generation is for programs that wait for a new token; the injector has no dashboard.
    assert listed - used == {
        "bearerd_token_generation", "bearerd_injector_build_info",
        "bearerd_injector_review_duration_seconds", "bearerd_injector_certificate_reloads_total"}


@pytest.fixture
def prometheus(rotating):
    """A Prometheus in the pod's network that scrapes the sidecar there."""
    home = rotating.home / "prometheus"
    home.mkdir()
    (home / "prometheus.yml").write_text(SCRAPE)
    shutil.copy(FILES / "alerts.yaml", home)
    server = rotating.inside(
        "prometheus", f"--config.file={home}/prometheus.yml", f"--storage.tsdb.path={home}/data",
        "--web.listen-address=0.0.0.0:9090", stderr=subprocess.DEVNULL)

    def ask(path):
        connection = http.client.HTTPConnection(rotating.address, 9090, timeout=10)
        try:
            connection.request("GET", f"/api/v1/{path}")
            answer = json.loads(connection.getresponse().read())
        except (ConnectionError, json.JSONDecodeError):
            return None
        finally:
            connection.close()
        assert answer["status"] == "success", answer
        return answer["data"]

    yield ask
    server.terminate()
    server.wait()


def finite(result):
    return any(math.isfinite(float(series["value"][1])) for series in result)


def test_every_query_of_the_dashboard_finds_data_in_a_live_prometheus(prometheus):
    until("scrapes", lambda: prometheus("query?query=bearerd_requests_total"))
    for title, query in queries():
        def found(query=query):
            return finite(prometheus(f"query?query={quote(query)}")["result"])
        until(f"data for {title}: {query}", found, pause=0.2)
    groups = prometheus("rules")["groups"]
    rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert set(rules) == alerts()
    until("rules evaluated", lambda: all(
        rule["health"] == "ok"
        for group in prometheus("rules")["groups"] for rule in group["rules"]))
    assert {name for name, rule in rules.items() if rule["state"] != "inactive"} == set()

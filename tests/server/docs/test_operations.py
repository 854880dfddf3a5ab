"""The documents for operators speak of what is there."""

import json
import os
import re
import shutil
import subprocess
import tomllib
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import yaml

from server.settings import Settings
from server.telemetry.metrics import Metrics
from server.telemetry.story import STAGES
from tests.server.support import nginx
from tests.server.support.certificate import make_certificate
from tests.server.support.process import REPOSITORY
from tests.server.telemetry.test_metrics import SNAPSHOT

DOCS = Path(__file__).parents[3] / "server" / "docs"
EXPORTED = dict(
    line.split()[2:4]
    for line in Metrics().render(replace(SNAPSHOT, outbox=0, webhooks=0, reserved=0)).decode().splitlines()
    if line.startswith("# TYPE ")
)
"""The type of each metric, by name."""


def series(name: str) -> set[str]:
    """The names that the samples of a metric have."""
    return (
        {f"{name}_{part}" for part in ("bucket", "sum", "count")} if EXPORTED[name] == "histogram" else {name}
    )


def test_the_dashboard_asks_for_metrics_that_exist_and_for_all_of_them() -> None:
    dashboard = json.loads((DOCS / "grafana.json").read_text("utf-8"))
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    queries = " ".join(target["expr"] for panel in panels for target in panel["targets"])
    asked = set(re.findall(r"\b(?:tilewire|process)_\w+", queries))
    assert asked <= {name for metric in EXPORTED for name in series(metric)}
    assert not [
        metric for metric in EXPORTED if metric.startswith("tilewire_") and not asked & series(metric)
    ]


def test_the_table_of_metrics_is_complete_and_true() -> None:
    text = (DOCS / "operations.md").read_text("utf-8")
    rows = re.findall(r"^\| (`tilewire_.*?) \| (\w+) \|", text, re.MULTILINE)
    documented = {name: kind for names, kind in rows for name in re.findall(r"`(\w+)`", names)}
    assert documented == {name: kind for name, kind in EXPORTED.items() if name.startswith("tilewire_")}


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_is_explained(stage: str) -> None:
    assert f"`{stage}`" in (DOCS / "operations.md").read_text("utf-8")


@pytest.mark.skipif(not nginx.is_installed(), reason="nginx is not installed")
def test_nginx_takes_its_configuration(tmp_path: Path) -> None:
    site = nginx.block("several-servers", "nginx")
    for kind, file in zip(("pem", "key"), make_certificate(tmp_path), strict=True):
        site = site.replace(f"/etc/ssl/up.example.org.{kind}", str(file))
    checked = subprocess.run(
        [*nginx.command(tmp_path, site), "-t"], capture_output=True, encoding="utf-8", check=False
    )
    assert checked.returncode == 0, checked.stderr
    assert "[warn]" not in checked.stderr


@pytest.mark.skipif(shutil.which("caddy") is None, reason="Caddy is not installed")
def test_caddy_takes_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "Caddyfile").write_text(nginx.block("several-servers", "caddyfile"), encoding="utf-8")
    command = ["caddy", "validate", "--adapter", "caddyfile", "--config", tmp_path / "Caddyfile"]
    environment = {**os.environ, "HOME": str(tmp_path)}
    checked = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, env=environment)
    assert checked.returncode == 0, checked.stderr
    assert "not formatted" not in checked.stderr


def test_alerts_ask_for_metrics_that_exist() -> None:
    rules = (DOCS / "alerts.yml").read_text("utf-8")
    asked = set(re.findall(r"\b(?:tilewire|process)_\w+", rules))
    assert asked
    assert asked <= {name for metric in EXPORTED for name in series(metric)}
    labels_of_alerts = re.findall(r"- alert: (\w+)", rules)
    assert len(labels_of_alerts) == len(set(labels_of_alerts)) == rules.count("summary: ")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_takes_the_alerts_and_they_fire(tmp_path: Path) -> None:
    checked = subprocess.run(
        ["promtool", "check", "rules", "--lint-fatal", DOCS / "alerts.yml"],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    (tmp_path / "test.yml").write_text(FIRING.replace("ALERTS", str(DOCS / "alerts.yml")), encoding="utf-8")
    tested = subprocess.run(
        ["promtool", "test", "rules", tmp_path / "test.yml"],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    program, unit = tmp_path / "tilewire", tmp_path / "tilewire.service"
    program.touch(0o755)
    unit.write_text(
        (DOCS / "tilewire.service").read_text("utf-8").replace("/opt/tilewire/bin/tilewire", str(program)),
        encoding="utf-8",
    )
    checked = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, encoding="utf-8", check=False
    )
    ours = [line for line in checked.stderr.splitlines() if "tilewire" in line]
    assert (checked.returncode, ours) == (0, [])


def test_the_container_has_what_there_is() -> None:
    container = (DOCS / "Containerfile").read_text("utf-8")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    lists = re.findall(r"EXTRAS=(\w+(?:,\w+)*)", container)
    assert {extra for one in lists for extra in one.split(",")} <= set(project["optional-dependencies"])
    assert f"EXPOSE {Settings().port}" in container
    assert f":{Settings().port}/readyz" in container
    for name in re.findall(r"\bTILEWIRE_(\w+)=", container):
        assert name.lower() in Settings.__struct_fields__


CONTAINER = {
    "type": "object",
    "required": ["name", "image", "resources"],
    "additionalProperties": False,
    "properties": dict.fromkeys(
        (
            *("name", "image", "command", "args", "env", "ports", "resources", "volumeMounts"),
            *("livenessProbe", "readinessProbe", "startupProbe"),
        ),
        True,
    ),
}
POD = {
    "type": "object",
    "required": ["spec"],
    "additionalProperties": False,
    "properties": {
        "metadata": {"required": ["labels"]},
        "spec": {
            "required": ["containers"],
            "additionalProperties": False,
            "properties": {
                "containers": {"type": "array", "minItems": 1, "items": CONTAINER},
                "volumes": {"items": {"required": ["name", "emptyDir"]}},
                "securityContext": True,
                "terminationGracePeriodSeconds": {"type": "integer"},
            },
        },
    },
}
STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
GROUP = {
    "type": "object",
    "required": ["rayStartParams", "template"],
    "additionalProperties": False,
    "properties": {"rayStartParams": STRINGS, "template": POD},
}
COUNT = {"type": "integer", "minimum": 0}
KINDS = {
    # https://ray-project.github.io/kuberay/reference/api/
    "RayCluster": {
        "required": ["headGroupSpec", "rayVersion"],
        "additionalProperties": False,
        "properties": {
            "rayVersion": {"type": "string"},
            "headGroupSpec": GROUP,
            "workerGroupSpecs": {
                "type": "array",
                "items": {
                    "required": ["groupName", *GROUP["required"]],
                    "additionalProperties": False,
                    "properties": {
                        **GROUP["properties"],
                        "groupName": {"type": "string"},
                        **dict.fromkeys(("replicas", "minReplicas", "maxReplicas"), COUNT),
                    },
                },
            },
        },
    },
    "Deployment": {
        "required": ["selector", "template"],
        "additionalProperties": False,
        "properties": {"replicas": COUNT, "selector": {"required": ["matchLabels"]}, "template": POD},
    },
    "Service": {
        "required": ["selector", "ports"],
        "additionalProperties": False,
        "properties": {"selector": STRINGS, "ports": {"type": "array"}},
    },
}
"""What of each kind the example may have, and must."""


def test_the_example_for_kubernetes_is_of_kinds_and_fields_that_exist() -> None:
    documents = {
        each["kind"]: each for each in yaml.safe_load_all((DOCS / "kuberay.yaml").read_text(encoding="utf-8"))
    }
    assert set(documents) == set(KINDS)
    for kind, document in documents.items():
        assert set(document) == {"apiVersion", "kind", "metadata", "spec"}
        jsonschema.validate(document["spec"], KINDS[kind])
    versions = {kind: document["apiVersion"] for kind, document in documents.items()}
    assert versions == {"RayCluster": "ray.io/v1", "Deployment": "apps/v1", "Service": "v1"}


def test_the_example_for_kubernetes_holds_together() -> None:
    cluster, deployment, service = yaml.safe_load_all((DOCS / "kuberay.yaml").read_text(encoding="utf-8"))
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    pods = [each["template"]["spec"] for each in (*groups, deployment["spec"])]
    for pod in pods:
        volumes = {volume["name"] for volume in pod.get("volumes", ())}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container.get("volumeMounts", ())} == volumes
            ports = {port["name"] for port in container.get("ports", ())}
            probed = [probe for name, probe in container.items() if name.endswith("Probe")]
            named = [action["port"] for probe in probed for action in probe.values() if _has_port(action)]
            assert set(named) <= ports
            for variable in container["env"]:
                assert variable["name"].startswith(("TILEWIRE_", "RAY_"))
                name = variable["name"].removeprefix("TILEWIRE_").lower()
                assert variable["name"].startswith("RAY_") or name in Settings.__struct_fields__
    (server,) = pods[-1]["containers"]
    assert f"--address={cluster['metadata']['name']}-head-svc:6379" in server["args"][0]
    assert server["ports"] == [{"containerPort": Settings().port, "name": "http"}]
    assert service["spec"]["ports"][0]["targetPort"] == "http"
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels == deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]


def _has_port(action: object) -> bool:
    return isinstance(action, dict) and "port" in action


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
def test_hadolint_takes_the_container() -> None:
    command = ["hadolint", "--failure-threshold", "warning", DOCS / "Containerfile"]
    checked = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert checked.returncode == 0, checked.stdout


FIRING = """
rule_files: [ALERTS]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'up{job="tilewire", instance="a"}', values: "1x30"}
      - {series: 'up{job="tilewire", instance="b"}', values: "0x30"}
      - {series: 'tilewire_reserved_usd{job="tilewire", instance="c"}', values: "0x30"}
      - {series: 'tilewire_device_up{instance="a", device="cpu"}', values: "1x30"}
      - {series: 'tilewire_account_charged_usd_total{account="ada"}', values: "0x10 0+1x20"}
      - {series: 'tilewire_account_tasks_total{account="ada", outcome="failed"}', values: "0+9x40"}
      - {series: 'tilewire_account_tasks_total{account="ada", outcome="succeeded"}', values: "0+1x40"}
    alert_rule_test:
      - eval_time: 5m
        alertname: TilewireDown
        exp_alerts:
          - exp_labels: {severity: page, job: tilewire, instance: b}
            exp_annotations: {summary: "b does not answer"}
      - eval_time: 5m
        alertname: TilewireDatabaseAway
        exp_alerts:
          - exp_labels: {severity: page, job: tilewire, instance: a}
            exp_annotations: {summary: "a cannot use its database: tasks are refused"}
      - {eval_time: 5m, alertname: TilewireDeviceLost, exp_alerts: []}
      - eval_time: 31m
        alertname: TilewireAccountFails
        exp_alerts:
          - exp_labels: {severity: ticket, account: ada}
            exp_annotations: {summary: "90% of the tasks of ada fail"}
"""

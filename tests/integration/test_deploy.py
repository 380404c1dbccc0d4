"""The examples for systemd and Kubernetes: well formed, and true to what streamq serves, takes and tells."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from prometheus_client import CollectorRegistry

from streamq.worker.health import HealthServer
from tests.docs.commands import check
from tests.faults.workers import ROOT
from tests.integration.scraping import PATIENCE
from tests.unit.test_metrics import listed

UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
KUBERNETES = ROOT / "deploy" / "kubernetes"
FILES = [KUBERNETES / name for name in yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]]
THINGS: list[dict[str, Any]] = [thing for path in FILES for thing in yaml.safe_load_all(path.read_text())]
NATIVE = ("apps/v1", "v1", "policy/v1")


def things(kind: str) -> dict[str, dict[str, Any]]:
    return {thing["metadata"]["name"]: thing for thing in THINGS if thing["kind"] == kind}


DEPLOYMENTS = things("Deployment")


def container(deployment: dict[str, Any]) -> dict[str, Any]:
    (only,) = deployment["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = only
    return found


# systemd --------------------------------------------------------------------------------------------------------------


def settings_of(unit: Path) -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed here")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_accepts_the_unit(unit: Path, tmp_path: Path) -> None:
    copy = tmp_path / unit.name.replace("@", "@emails")
    copy.write_text(unit.read_text().replace("/opt/streamq/bin/streamq", shutil.which("true") or "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_starts_what_streamq_takes_and_holds_no_secret(unit: Path) -> None:
    settings = settings_of(unit)
    program, *arguments = shlex.split(settings["ExecStart"].replace("%i", "emails"))
    assert program == "/opt/streamq/bin/streamq"
    check(arguments)
    assert settings["EnvironmentFile"] == "/etc/streamq/streamq.env"
    assert "Environment" not in settings
    assert settings["DynamicUser"] == "yes"


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE)
        yield systemd


def test_the_workers_unit_hears_that_it_is_ready_alive_and_stopping(
    heard: socket.socket, redis_url: str, tmp_path: Path
) -> None:
    (unit,) = (unit for unit in UNITS if "worker" in unit.name)
    settings = settings_of(unit)
    assert settings["Type"] == "notify"
    _, *arguments = shlex.split(settings["ExecStart"].replace("%i", "emails"))
    grace = float(arguments[arguments.index("--grace") + 1])
    assert float(settings["TimeoutStopSec"]) > grace
    watchdog = str(int(float(settings["WatchdogSec"]) * 100_000))  # ten times as often, so as not to wait for long
    env = {**os.environ, "REDIS_URL": redis_url, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": watchdog,
           "PYTHONPATH": str(ROOT), "STREAMQ_LEDGER_URL": f"sqlite:///{tmp_path}/ledger.db"}  # fmt: skip
    command = [sys.executable, "-m", "streamq", *arguments]
    process = subprocess.Popen(command, env=env, cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        for word in (b"READY=1", b"WATCHDOG=1"):
            while word not in heard.recv(1024):
                pass
        process.send_signal(signal.SIGTERM)
        while b"STOPPING=1" not in heard.recv(1024):
            pass
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait(PATIENCE)


# Kubernetes -----------------------------------------------------------------------------------------------------------


def test_every_manifest_is_in_the_kustomization() -> None:
    assert {path.name for path in FILES} == {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}


@pytest.mark.parametrize(
    "thing",
    [thing for thing in THINGS if thing["apiVersion"] in NATIVE],
    ids=lambda thing: f"{thing['kind']}-{thing['metadata']['name']}",
)
def test_a_manifest_fits_the_schema_of_kubernetes(thing: dict[str, Any]) -> None:
    kubernetes_validate.validate(thing, "1.31", strict=True)


def test_a_manifest_that_does_not_fit_is_found() -> None:
    wrong = {**THINGS[0], "spec": {**THINGS[0]["spec"], "replicasWanted": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.31", strict=True)


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_container_runs_what_streamq_takes_as_the_images_user(name: str) -> None:
    pod = DEPLOYMENTS[name]["spec"]["template"]["spec"]
    found = container(DEPLOYMENTS[name])
    assert found["args"][0] == "streamq"
    check(found["args"][1:])
    (uid,) = re.findall(r"useradd .*--uid (\d+)", (ROOT / "Dockerfile").read_text())
    assert pod["securityContext"]["runAsUser"] == int(uid)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert found["securityContext"]["readOnlyRootFilesystem"] is True
    assert found["resources"]["limits"]["memory"]
    assert not [one for one in found.get("env", []) if re.search(r"PASSWORD|SECRET|TOKEN|URL", one["name"])]
    assert found["envFrom"][0] == {"secretRef": {"name": "streamq"}}


def health_paths(kind: str) -> set[str]:
    """What answers 200 there: asked of the real server."""
    if kind == "http":
        return {"/login"}  # tests/integration/test_compose.py asks the dashboard for it
    server = HealthServer("127.0.0.1", 0, CollectorRegistry(), alive=str, ready=str)
    try:
        return {path for path in ("/livez", "/readyz", "/metrics", "/healthz") if answers(server.port, path)}
    finally:
        server.close()


def answers(port: int, path: str) -> bool:
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        return b" 200 " in connection.recv(64)


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_probes_ask_for_paths_that_are_served_at_the_port_that_is(name: str) -> None:
    found = container(DEPLOYMENTS[name])
    (port,) = found["ports"]
    probes = [found[probe] for probe in found if probe.endswith("Probe")]
    assert probes
    paths = health_paths(port["name"])
    for probe in probes:
        assert probe["httpGet"]["path"] in paths
        assert probe["httpGet"]["port"] == port["name"]
    arguments = found["args"]
    if "--metrics-port" in arguments:
        assert int(arguments[arguments.index("--metrics-port") + 1]) == port["containerPort"]
    else:
        from streamq.cli import dashboard, exporter

        assert port["containerPort"] == {"exporter": exporter.PORT, "dashboard": dashboard.PORT}[arguments[1]]


def test_a_worker_has_longer_to_stop_than_its_jobs_have_to_end() -> None:
    for name, deployment in DEPLOYMENTS.items():
        if name.startswith("streamq-worker"):
            arguments = container(deployment)["args"]
            grace = float(arguments[arguments.index("--grace") + 1])
            assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > grace


def test_services_and_monitors_find_what_they_name() -> None:
    pods = [deployment["spec"]["template"]["metadata"]["labels"] for deployment in DEPLOYMENTS.values()]
    services = things("Service")
    for service in services.values():
        chosen = [labels for labels in pods if service["spec"]["selector"].items() <= labels.items()]
        assert chosen
        (port,) = service["spec"]["ports"]
        assert all(
            port["targetPort"] == container(deployment)["ports"][0]["name"]
            for deployment in DEPLOYMENTS.values()
            if service["spec"]["selector"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
        )
    for name, monitor in things("ServiceMonitor").items():
        labels = monitor["spec"]["selector"]["matchLabels"]
        (service,) = (one for one in services.values() if labels.items() <= one["metadata"]["labels"].items())
        assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
        # A target's job is its service's name, and the alerts go by it.
        assert re.fullmatch(r"streamq-.*", service["metadata"]["name"]) is not None, name
    for budget in things("PodDisruptionBudget").values():
        assert any(budget["spec"]["selector"]["matchLabels"].items() <= labels.items() for labels in pods)


def test_the_autoscaler_asks_for_series_that_exist_of_the_queue_that_the_workers_serve() -> None:
    (scaled,) = things("ScaledObject").values()
    deployment = DEPLOYMENTS[scaled["spec"]["scaleTargetRef"]["name"]]
    arguments = container(deployment)["args"]
    queue = arguments[arguments.index("--queues") + 1]
    (trigger,) = scaled["spec"]["triggers"]
    query = trigger["metadata"]["query"]
    names = set(re.findall(r"streamq_\w+", query))
    assert "streamq_queue_oldest_waiting_age_seconds" in names
    assert names <= set(listed())
    assert set(re.findall(r'queue="(\w+)"', query)) == {queue}
    assert scaled["spec"]["minReplicaCount"] >= 1
    exporter = container(DEPLOYMENTS["streamq-exporter"])["args"]
    assert queue in exporter


def test_the_autoscalers_query_answers(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed here")
    (scaled,) = things("ScaledObject").values()
    query = scaled["spec"]["triggers"][0]["metadata"]["query"]
    age = 'streamq_queue_oldest_waiting_age_seconds{queue="emails",priority="%s",pod="x"}'
    series = {age % "low": "3x5", age % "high": "40x5", 'streamq_queue_paused{queue="emails",pod="x"}': "0 0 1 1"}
    asked = [(query, "1m", 40), (query, "3m", 0)]
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {"expr": expression, "eval_time": at, "exp_samples": [{"labels": "{}", "value": value}]}
            for expression, at, value in asked
        ],
    }
    tests = {"rule_files": [], "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(tests))
    done = subprocess.run(["promtool", "test", "rules", str(tmp_path / "test.yml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

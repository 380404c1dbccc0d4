"""docker-compose.yml and the Dockerfile, without Docker: the file is right, and each command that is ours serves.

What needs docker-compose (the one of Debian, or the plugin) is skipped where it isn't there.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from tests.faults.workers import ROOT, eventually
from tests.integration.scraping import PATIENCE

FILE = ROOT / "docker-compose.yml"
TEXT = FILE.read_text()
DEPLOYMENT: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = DEPLOYMENT["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]
EVERYWHERE = "0.0.0.0"  # noqa: S104 - what the containers bind to
SECRET = re.compile(r"\$\{(\w+):\?[^}]*\}")
NAMES = {"redis", "worker-1", "worker-2", "exporter", "dashboard", "prometheus", "grafana", "postgres", "mail"}


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of secrets that the deployment's script makes."""
    path = tmp_path_factory.mktemp("secrets") / ".env"
    made = subprocess.run(["sh", "deploy/compose/secrets.sh"], cwd=ROOT, capture_output=True, text=True, check=True)
    path.write_text(made.stdout)
    return path


@pytest.fixture
def values(secrets: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in secrets.read_text().splitlines())


def test_the_secrets_are_made_by_the_script_and_stand_in_no_file(values: dict[str, str]) -> None:
    assert set(SECRET.findall(TEXT)) == set(values)
    assert all(re.fullmatch(r"[0-9a-f]{48}", value) for value in values.values())
    assert len(set(values.values())) == len(values)
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|TOKEN|KEY", name):
                assert SECRET.fullmatch(value), name


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not installed here")
def test_compose_accepts_the_file_once_the_secrets_are_there_and_says_what_to_do_before(secrets: Path) -> None:
    bare = {name: value for name, value in os.environ.items() if name not in secrets.read_text()}

    def config(*options: str) -> subprocess.CompletedProcess[str]:
        command = ["docker-compose", "--project-directory", str(ROOT), "--file", str(FILE), *options, "config"]
        return subprocess.run(
            command, cwd=secrets.parent.parent, env=bare, capture_output=True, text=True, timeout=PATIENCE
        )

    accepted = config("--env-file", str(secrets))
    assert accepted.returncode == 0, accepted.stderr
    assert set(yaml.safe_load(accepted.stdout)["services"]) == NAMES
    (secrets.parent / "none").touch()
    refused = config("--env-file", str(secrets.parent / "none"))
    assert refused.returncode != 0
    assert "run sh deploy/compose/secrets.sh > .env" in refused.stderr


def test_every_service_has_a_health_check_limits_and_what_it_mounts() -> None:
    assert set(SERVICES) == NAMES
    for name, service in SERVICES.items():
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL"), name
        assert service["mem_limit"], name
        assert service["cpus"], name
        assert service["restart"] == "unless-stopped", name
        assert service["logging"]["options"]["max-size"], name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith("./") else source in DEPLOYMENT["volumes"], volume
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), port
        for other, condition in (service["depends_on"] if isinstance(service.get("depends_on"), dict) else {}).items():
            assert condition == {"condition": "service_healthy"}
            assert other in SERVICES


def test_our_services_can_change_nothing_but_their_data() -> None:
    for name in OURS:
        assert SERVICES[name]["read_only"] is True
        assert SERVICES[name]["cap_drop"] == ["ALL"]
        assert SERVICES[name].get("volumes", []) in ([], ["data:/data"])
    assert DEPLOYMENT["services"]["worker-1"] == DEPLOYMENT["services"]["worker-2"]


# Redis ----------------------------------------------------------------------------------------------------------------


def test_redis_runs_with_its_configuration_and_the_password(tmp_path: Path, values: dict[str, str]) -> None:
    service = SERVICES["redis"]
    own = (ROOT / "deploy/compose/redis.conf").read_text().replace("dir /data", f"dir {tmp_path}")
    (tmp_path / "own.conf").write_text(f"{own}port 0\nunixsocket {tmp_path}/r.sock\n")
    script = service["command"][2].replace("$$", "$").replace("/tmp/redis.conf", f"{tmp_path}/redis.conf")
    script = script.replace("/etc/streamq/redis.conf", f"{tmp_path}/own.conf")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not on PATH")
    password = values["REDIS_PASSWORD"]
    process = subprocess.Popen(
        ["sh", "-c", script], env={**os.environ, "REDIS_PASSWORD": password}, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        assert any("eady to accept" in line for line in process.stdout)
        with closing(redis.Redis(unix_socket_path=f"{tmp_path}/r.sock", password=password)) as client:
            found = client.config_get("maxmemory-policy", "appendonly", "appendfsync", "maxmemory", "save")
        assert found == {
            "maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "everysec",
            "maxmemory": str(2**30), "save": "",
        }  # fmt: skip
        probe = shlex.join(["redis-cli", "-s", f"{tmp_path}/r.sock"])
        check = service["healthcheck"]["test"][1].replace("$$", "$").replace("redis-cli", probe)
        healthy = subprocess.run(["sh", "-c", check], env={**os.environ, "REDIS_PASSWORD": password}, check=False)
        assert healthy.returncode == 0
        wrong = subprocess.run(["sh", "-c", check], env={**os.environ, "REDIS_PASSWORD": "wrong"}, check=False)
        assert wrong.returncode != 0
        process.send_signal(signal.SIGTERM)  # to the shell's process, which the server has replaced
        assert process.wait(PATIENCE) == 0
    assert oct((tmp_path / "redis.conf").stat().st_mode)[-3:] == "600"


# Our commands ---------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(name: str, redis_url: str, folder: Path, values: dict[str, str]) -> Iterator[tuple[Any, list[str]]]:
    """Run a service's command here, at a free port and on our server; yields the process and its health check."""
    service = SERVICES[name]
    check: list[str] = service["healthcheck"]["test"][1:]
    (old,) = re.findall(r":(\d+)/", check[-1])
    new = str(free_port())
    command = [new if word == old else word.replace(EVERYWHERE, "127.0.0.1") for word in service["command"]]
    if new not in command:
        command += ["--port", new]
    said = {k: SECRET.sub(lambda found: values[found[1]], v) for k, v in service["environment"].items()}
    assert said.pop("REDIS_HOST") == "redis"
    said.pop("REDIS_PASSWORD")
    said |= {"REDIS_URL": redis_url, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    if "STREAMQ_LEDGER_URL" in said:
        said |= {"STREAMQ_LEDGER_URL": f"sqlite:///{folder}/ledger.db", "STREAMQ_STORAGE_URL": f"{folder}/files"}
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("REDIS_", "STREAMQ_", "QUEUE_", "JOB_"))}
    if command[0] == "streamq":
        command[:1] = [sys.executable, "-m", "streamq"]  # this tree's
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env={**plain, **said, "PYTHONPATH": str(ROOT)}, stdout=log, stderr=log,
                                   cwd=folder)  # fmt: skip
    try:
        yield process, [part.replace(f":{old}/", f":{new}/") for part in check]
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(PATIENCE)


@pytest.mark.parametrize("name", OURS)
async def test_a_service_of_ours_starts_answers_its_health_check_and_stops(
    name: str, redis_url: str, tmp_path: Path, values: dict[str, str]
) -> None:
    with running(name, redis_url, tmp_path, values) as (process, check):
        assert check[0] == "python"
        check[0] = sys.executable

        def healthy() -> bool:
            return subprocess.run(check, capture_output=True, check=False).returncode == 0

        await eventually(healthy, PATIENCE, lambda: (tmp_path / "log").read_text())
        process.terminate()
        assert process.wait(PATIENCE) == 0, (tmp_path / "log").read_text()
        assert not healthy()


# The image ------------------------------------------------------------------------------------------------------------


def test_the_image_is_built_from_files_that_are_there_and_sent(tmp_path: Path) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    build, final = dockerfile.split("\nFROM ")[-2], dockerfile.split("\nFROM ")[-1]
    copied = [word for line in re.findall(r"^COPY (.+)$", build, re.MULTILINE) for word in line.split()[:-1]]
    sent = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert sorted(copied) == sorted(sent)
    for name in copied:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", str(tmp_path)], capture_output=True, text=True,
        timeout=110,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    extras = re.search(r"'\.\[([\w,]+)\]'", build)
    assert extras is not None
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras[1].split(",")) <= set(project["optional-dependencies"])
    assert {"dashboard", "processors"} <= set(extras[1].split(","))
    assert re.search(r"^USER streamq$", final, re.MULTILINE)
    assert "pip" not in final

"""Ledgers to test on: SQLite in a temporary file, and PostgreSQL in a cluster of the test run's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamq.processor import ActiveJob, Processors
from streamq.processors.ledger import Ledger, open_ledger


def _postgres_bin() -> Path:
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    for folder in [*folders, *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]:
        if all((folder / program).exists() for program in ("initdb", "pg_ctl", "createdb")):
            return folder
    pytest.skip("no PostgreSQL programs (initdb, pg_ctl, createdb) on PATH or under /usr/lib/postgresql")


def _as_other_user(folder: Path) -> list[str]:
    """PostgreSQL refuses to run as root: hand the folder to somebody else and run as them."""
    if os.geteuid() != 0:
        return []
    if not shutil.which("runuser"):
        pytest.skip("PostgreSQL does not run as root, and there is no runuser to become somebody else")
    for user in ("postgres", "nobody"):
        try:
            shutil.chown(folder, user)
        except LookupError:
            continue
        return ["runuser", "-u", user, "--"]
    pytest.skip("PostgreSQL does not run as root, and there is no user postgres or nobody")


@pytest.fixture(scope="session")
def postgres() -> Iterator[tuple[Path, list[str], Path]]:
    """A PostgreSQL cluster on a unix socket: its programs, the words that run them, and the socket's folder."""
    programs = _postgres_bin()
    folder = Path(tempfile.mkdtemp(prefix="sq-pg-", dir="/tmp"))
    prefix = _as_other_user(folder)
    data = folder / "data"
    run = {"check": True, "capture_output": True, "cwd": "/", "timeout": 60}
    try:
        subprocess.run(
            [*prefix, programs / "initdb", "-D", data, "-U", "bank", "-A", "trust", "-N", "-E", "UTF8"], **run
        )
        options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off -c max_connections=30"
        start = [*prefix, programs / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", options, "start"]
        subprocess.run(start, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", timeout=60)
        try:
            yield programs, prefix, folder
        finally:
            subprocess.run([*prefix, programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"], **run)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres: tuple[Path, list[str], Path]) -> str:
    """The URL of an empty PostgreSQL database."""
    programs, prefix, folder = postgres
    name = f"ledger_{uuid.uuid4().hex}"
    subprocess.run([*prefix, programs / "createdb", "-h", folder, "-U", "bank", name], check=True, cwd="/", timeout=60)
    return f"postgresql://bank@/{name}?host={folder}"


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, once on each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def ledger(ledger_url: str) -> AsyncIterator[Ledger]:
    """An open, empty ledger, once on each kind of database."""
    async with open_ledger(ledger_url) as opened:
        yield opened


@pytest.fixture
async def sqlite_ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    """An open, empty ledger on SQLite, for what does not depend on the database."""
    async with open_ledger(f"sqlite:///{tmp_path}/ledger.db") as opened:
        yield opened


class RecordedAttempt:
    """Stands in a worker's place: keeps what a handler reports, and checks that it could be sent."""

    def __init__(self) -> None:
        self.reported: list[Any] = []
        self.lines: list[str] = []

    async def progress(self, value: Any) -> None:
        self.reported.append(msgspec.msgpack.decode(msgspec.msgpack.encode(value)))

    async def log(self, line: str) -> None:
        self.lines.append(line)


class RunJob:
    """Runs one attempt of a job as a worker does: data decoded from bytes to the processor's type, result encoded."""

    def __init__(self) -> None:
        self.attempt = RecordedAttempt()

    async def __call__(
        self, processors: Processors, name: str, data: Any, *, job_id: str = "1", attempt: int = 1
    ) -> Any:
        (processor,) = [one for one in processors if one.name == name]
        self.attempt = RecordedAttempt()
        decoded = msgspec.msgpack.decode(msgspec.msgpack.encode(data), type=processor.data)
        queue = processor.queue or "default"
        job = ActiveJob(self.attempt, job_id, name, queue, decoded, attempt=attempt, attempts=3, stalls=0)
        result = await processor.handler(job)
        msgspec.msgpack.encode(result)
        return result


@pytest.fixture
def run_job() -> RunJob:
    """Call it with a registry, a job's name and its data: one attempt runs, its result comes back or it raises."""
    return RunJob()

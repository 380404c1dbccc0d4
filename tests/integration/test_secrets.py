"""A password in Redis' address is shown by nothing, however the connection fails; neither the right nor a wrong one."""

from __future__ import annotations

import asyncio
import html
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.workers import eventually
from tests.integration.scraping import PATIENCE, Served, _get, served
from tests.servers import RedisServer

SECRETS = ("hunter2", "hunter3")
FAILS = """
import asyncio, logging, streamq
logging.basicConfig(level=logging.DEBUG)
async def main():
    async with streamq.Queue("q") as queue:
        print(queue, queue._store, queue._endpoint)
        await queue.add("work")
asyncio.run(main())
"""
FAILS_IN_SYNC = """
import logging
from streamq.sync import Queue
logging.basicConfig(level=logging.DEBUG)
with Queue("q") as queue:
    print(queue)
    queue.add("work")
"""
FAILS_IN_A_WORKER = """
import asyncio, contextlib, logging
from streamq import Worker, Settings
from streamq.errors import StoreError
logging.basicConfig(level=logging.DEBUG)
async def main():
    worker = Worker("q", {"work": print}, settings=Settings.from_env())
    print(worker)
    with contextlib.suppress(TimeoutError, StoreError):  # it goes on for as long as it is let
        await asyncio.wait_for(worker.run(), 1)
asyncio.run(main())
"""


def addresses(server: RedisServer) -> dict[str, tuple[str, str]]:
    """Addresses that can't work, each with a password, and what is said of them."""
    server.call("ACL", "SETUSER", "bank", "on", ">hunter2", "~*", "&*", "+@all")
    here = f"127.0.0.1:{server.port}"
    away = "no connection to Redis at <Endpoint"
    return {
        "a wrong password": (
            f"redis://bank:hunter3@{here}/0",
            f"{away} {here} db 0>: invalid username-password pair or user is disabled.",
        ),
        "nobody listens": ("redis://bank:hunter2@127.0.0.1:1/0", f"{away} 127.0.0.1:1 db 0>: Error 111 connecting"),
        "no such host": (
            "redis://bank:hunter2@nowhere.invalid:6379/0",
            f"{away} nowhere.invalid:6379 db 0>: ",
        ),
        "no such database": (f"redis://bank:hunter2@{here}/9999", f"{away} {here} db 9999>: DB index is out of range"),
        "no TLS there": (f"rediss://bank:hunter2@{here}/0", f"{away} {here} db 0>: "),
        "no port": (
            "redis://bank:hunter2@127.0.0.1:port/0",
            "redis://bank:***@127.0.0.1:port/0 is no Redis URL: percent-encode special characters in the password",
        ),
    }


@pytest.mark.parametrize("code", [FAILS, FAILS_IN_SYNC, FAILS_IN_A_WORKER], ids=["async", "sync", "worker"])
def test_a_traceback_of_a_connection_that_fails_shows_no_password(server: RedisServer, code: str) -> None:
    for what, (url, text) in addresses(server).items():
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE,
            env={"REDIS_URL": url, "STREAMQ_TIMEOUT": "0.5", "PYTHONPATH": ":".join(sys.path)},
        )  # fmt: skip
        said = done.stdout + done.stderr
        assert text in said, f"{what}: {said[-1500:]}"
        assert not [secret for secret in SECRETS if secret in said], f"{what}: {said[-1500:]}"


@pytest.mark.parametrize("command", ["exporter", "dashboard"])
async def test_what_is_served_while_redis_refuses_shows_no_password(
    server: RedisServer, tmp_path: Path, command: str
) -> None:
    for what in ("a wrong password", "nobody listens"):
        arguments = ["streamq", command, "q", "--port", "0", *(["--json"] if command == "dashboard" else [])]
        url, text = addresses(server)[what]
        with served(tmp_path, arguments, REDIS_URL=url, STREAMQ_TIMEOUT="0.5") as process:
            address = await _address(process)
            shown = [await asyncio.to_thread(_get, address + path) for path in ("/", "/metrics", "/readyz", "/q")]
            await process.ends()
        said = "\n".join([*(text for _, text in shown), process.log])
        assert any(status for status, _ in shown), f"{what}: {said[-1500:]}"
        assert text in html.unescape(said), f"{what}: {said[-1500:]}"
        assert not [secret for secret in SECRETS if secret in said], f"{what}: {said[-1500:]}"


async def _address(process: Served) -> str:
    await eventually(lambda: "http://" in process.log, PATIENCE, lambda: process.log)
    found = re.search(r"http://[\w.:]+\d", process.log)
    assert found is not None
    return found[0]

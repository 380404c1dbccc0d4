"""What real workers write: a line per end, each line bound to its job, and nothing that is nobody's business."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from streamq import JobFailed, Queue
from tests.faults.workers import eventually
from tests.integration.scraping import PATIENCE, Served
from tests.integration.test_metrics import worker_of
from tests.servers import RedisServer

PASSWORD, PAYLOAD = "hunter2-secret", "IBAN-DE89-3704"
Start = Callable[..., Served]


@pytest.fixture
def locked(server: RedisServer) -> str:
    """The address of a server that wants a password."""
    server.call("ACL", "SETUSER", "bank", "on", f">{PASSWORD}", "~*", "&*", "+@all")
    return server.url.replace("redis://", f"redis://bank:{PASSWORD}@")


@pytest.fixture
def start(locked: str, tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as stack:
        yield lambda *options: stack.enter_context(worker_of(locked, tmp_path, *options))


def lines(worker: Served) -> list[dict[str, Any]]:
    """All that it has written, which must be JSON, line by line."""
    whole = worker.log[: worker.log.rfind("\n") + 1]
    return [json.loads(line) for line in whole.splitlines()]


def ends(worker: Served) -> list[dict[str, Any]]:
    return [line for line in lines(worker) if line.get("event") == "attempt_ended"]


@pytest.mark.parametrize("name", ["writes", "writes-in-a-thread", "writes-in-a-process"])
async def test_every_line_of_a_handler_is_bound_to_its_job(start: Start, locked: str, name: str) -> None:
    worker = start("--log-format", "json", "-c", "5")
    async with Queue("m", locked) as queue:
        jobs = [await queue.add(name) for _ in range(5)]
        for job in jobs:
            await job.result(PATIENCE)
    await eventually(lambda: len(ends(worker)) == 5, PATIENCE)
    for job in jobs:
        own = [line for line in lines(worker) if line.get("job_id") == job.id]
        messages = [line["message"] for line in own]
        assert messages[-3:-1] == ["a letter for the bank", "by way of the root logger"]
        assert {(line["queue"], line["attempt"]) for line in own} == {("m", 1)}
    assert not [line for line in lines(worker) if line["logger"] == "bank.letters" and "job_id" not in line]


async def test_each_end_is_one_line_with_its_figures(start: Start, locked: str) -> None:
    worker = start("--log-format", "json")
    async with Queue("m", locked) as queue:
        done, failed, misfit = await queue.add("pid"), await queue.add("fails", "x"), await queue.add("counts", "x")
        await done.result(PATIENCE)
        for job in (failed, misfit):
            with pytest.raises(JobFailed):
                await job.result(PATIENCE)
    await eventually(lambda: len(ends(worker)) == 4, PATIENCE)
    told = {(line["job_id"], line["attempt"]): line for line in ends(worker)}
    assert {key: (line["processor"], line["outcome"], line["error"], line["level"]) for key, line in told.items()} == {
        (done.id, 1): ("pid", "done", "", "info"),
        (failed.id, 1): ("fails", "retry", "ValueError", "info"),
        (failed.id, 2): ("fails", "fail", "ValueError", "warning"),
        (misfit.id, 1): ("counts", "fail", "Unrecoverable", "warning"),
    }
    assert all(line["ran"] >= 0 and line["waited"] >= 0 for line in told.values())


@pytest.mark.parametrize("form", ["json", "console"])
async def test_no_payload_and_no_password_is_written_at_any_level(
    start: Start, locked: str, server: RedisServer, form: str
) -> None:
    worker = start("--log-format", form, "--log-level", "debug")
    async with Queue("m", locked) as queue:
        jobs = [await queue.add(name, PAYLOAD) for name in ("fails", "counts", "pid", "writes-in-a-process")]
        for job in jobs[:2]:
            with pytest.raises(JobFailed):
                await job.result(PATIENCE)
        for job in jobs[2:]:
            await job.result(PATIENCE)
        await worker.answers("/readyz", 200)
        server.call("ACL", "SETUSER", "bank", "off")
        server.call("CLIENT", "KILL", "USER", "bank")
        await eventually(lambda: "Redis is away" in worker.log, PATIENCE)
        server.call("ACL", "SETUSER", "bank", "on")
        server.stop()
        server.start()
        server.call("ACL", "SETUSER", "bank", "on", f">{PASSWORD}", "~*", "&*", "+@all")
        await worker.answers("/readyz", 200)
        assert await worker.ends() == 0
    assert PAYLOAD not in worker.log
    assert PASSWORD not in worker.log
    assert f"{jobs[0].id} of fails: failed for good" in worker.log


async def test_an_error_about_data_that_does_not_fit_quotes_none_of_it(start: Start, locked: str) -> None:
    start()
    async with Queue("m", locked) as queue:
        one = await queue.add("chooses", {"colour": PAYLOAD})
        other = await queue.add("chooses", {"colour": "red", PAYLOAD: 1})
        with pytest.raises(JobFailed, match="Invalid enum value - at") as failed:
            await one.result(PATIENCE)
        with pytest.raises(JobFailed, match="unknown field"):
            await other.result(PATIENCE)
        snapshot = await other.snapshot()
    assert PAYLOAD not in str(failed.value)
    assert snapshot is not None
    assert PAYLOAD not in str(snapshot.error) + (snapshot.error.traceback if snapshot.error else "")

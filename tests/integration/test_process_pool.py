"""Handlers that run in a process: their results, their ends, and the processes' own."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from streamq import InvalidInput, JobFailed, Processors, Queue, Worker
from tests.faults.workers import eventually
from tests.integration.processors_for_processes import processors

PATIENCE = 30.0


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[Queue]:
    async with Queue("processes", redis_url) as queue, Worker("processes", processors, redis=redis_url, concurrency=2):
        yield queue


async def test_a_plain_function_runs_in_another_process_and_tells_its_progress(queue: Queue) -> None:
    job = await queue.add("compute", {"n": 10**30, "bytes": b"\x00\xff"})
    result = await job.result(PATIENCE)
    assert result["pid"] != os.getpid()
    assert result["data"] == {"n": 10**30, "bytes": b"\x00\xff"}
    snapshot = await job.snapshot()
    assert snapshot is not None
    assert (snapshot.progress, snapshot.attempts_made) == (50, 1)
    assert await queue.logs(job.id) == ["half way"]


async def test_processes_are_used_again(queue: Queue) -> None:
    pids = {(await (await queue.add("compute", n)).result(PATIENCE))["pid"] for n in range(5)}
    assert len(pids) == 1


async def test_an_async_function_may_run_in_a_process_too(queue: Queue) -> None:
    assert await (await queue.add("compute-async", 21)).result(PATIENCE) == 42


async def test_a_process_that_crashes_fails_its_attempt_and_nothing_else(queue: Queue) -> None:
    with pytest.raises(JobFailed, match="ProcessLost: its process ended with 9 while running it"):
        await (await queue.add("crash")).result(PATIENCE)
    assert (await (await queue.add("compute", 1)).result(PATIENCE))["data"] == 1


async def test_a_handler_whose_time_is_up_is_killed(queue: Queue, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    with pytest.raises(JobFailed, match=r"HandlerTimeout: it ran longer than its timeout of 0\.5 s"):
        await (await queue.add("spin", str(note))).result(PATIENCE)
    assert not psutil.pid_exists(int(note.read_text()))


async def test_the_start_of_a_process_is_not_the_handlers_time(queue: Queue) -> None:
    assert await (await queue.add("instant")).result(PATIENCE) == "in time"


async def test_what_a_handler_raises_keeps_its_type_and_text(queue: Queue) -> None:
    job = await queue.add("raise", "gone")
    with pytest.raises(JobFailed, match="KeyError: 'gone'"):
        await job.result(PATIENCE)
    snapshot = await job.snapshot()
    assert snapshot is not None
    assert snapshot.error is not None
    assert "processors_for_processes.py" in snapshot.error.traceback


async def test_verdicts_cross_the_border(queue: Queue, tmp_path: Path) -> None:
    refused = await queue.add("refuse", "no such account")
    with pytest.raises(JobFailed, match="Unrecoverable: no such account"):
        await refused.result(PATIENCE)
    napping = await queue.add("nap", str(tmp_path / "slept"))
    assert await napping.result(PATIENCE) == "rested"
    snapshot = await napping.snapshot()
    assert snapshot is not None
    assert snapshot.attempts_made == 1


async def test_no_process_outlives_its_worker(redis_url: str) -> None:
    async with Queue("processes", redis_url) as queue:
        async with Worker("processes", processors, redis=redis_url):
            pid = (await (await queue.add("compute", 1)).result(PATIENCE))["pid"]
            assert psutil.pid_exists(pid)
        await eventually(lambda: not psutil.pid_exists(pid), 5.0)


def test_a_function_that_no_process_could_import_is_refused() -> None:
    local = Processors()
    with pytest.raises(InvalidInput, match="run_in='process' needs a function at the top level of a module"):
        local.register("x", run_in="process")(lambda job: None)
    with pytest.raises(InvalidInput, match="run_in must be loop, thread or process, not 'moon'"):
        local.register("x", run_in="moon")(test_a_function_that_no_process_could_import_is_refused)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="run_in='loop' does not fit"):
        local.register("x", run_in="loop")(test_a_function_that_no_process_could_import_is_refused)

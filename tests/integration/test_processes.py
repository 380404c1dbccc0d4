"""`python -m streamq.worker --processes`: children kept running, recycled, told to stop, and never orphaned."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psutil
import pytest

from streamq import Queue
from tests.faults.workers import ROOT, eventually

PATIENCE = 30.0
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[Queue]:
    async with Queue("processes", redis_url) as queue:
        yield queue


@pytest.fixture
def start(redis_url: str) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def start(
        *options: str, cwd: Path = ROOT, module: str = "tests.integration.processors_for_processes"
    ) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "streamq.worker", "-q", "processes", "-p", module, *options]
        started.append(subprocess.Popen(command, cwd=cwd, env={**os.environ, "REDIS_URL": redis_url}))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
        process.wait(PATIENCE)


def children(process: subprocess.Popen[bytes]) -> set[int]:
    return {child.pid for child in psutil.Process(process.pid).children()}


async def pid_of_a_job(queue: Queue) -> int:
    pid: int = await (await queue.add("pid")).result(PATIENCE)
    return pid


async def workers_alive(queue: Queue, count: int) -> None:
    async def alive() -> bool:
        return (await queue.stats()).workers == count

    await eventually(alive, PATIENCE)


async def test_a_child_that_is_killed_is_started_anew(queue: Queue, start: Start) -> None:
    parent = start("--processes", "2")
    await workers_alive(queue, 2)
    before = children(parent)
    os.kill(min(before), signal.SIGKILL)
    await eventually(lambda: len(children(parent) - before) == 1 and len(children(parent)) == 2, PATIENCE)
    assert await pid_of_a_job(queue) in children(parent)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_all_of_them_cleanly(queue: Queue, start: Start, number: signal.Signals) -> None:
    parent = start("--processes", "2")
    await workers_alive(queue, 2)
    pids = children(parent)
    parent.send_signal(number)
    assert await asyncio.to_thread(parent.wait, PATIENCE) == 0
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert (await queue.stats()).workers == 0


async def test_no_child_outlives_a_parent_that_is_killed(queue: Queue, start: Start) -> None:
    parent = start("--processes", "2")
    await workers_alive(queue, 2)
    pids = children(parent)
    parent.kill()
    await eventually(lambda: not [pid for pid in pids if psutil.pid_exists(pid)], PATIENCE)
    assert (await queue.stats()).workers == 0, "they signed off"


async def test_a_process_is_recycled_after_so_many_jobs(queue: Queue, start: Start) -> None:
    start("--processes", "2", "--max-jobs", "5")
    seen: set[int] = set()

    async def a_third_process_runs_jobs() -> bool:
        seen.add(await pid_of_a_job(queue))
        return len(seen) >= 3

    await eventually(a_third_process_runs_jobs, PATIENCE)
    assert (await queue.stats()).failed == 0


async def test_a_process_is_recycled_at_so_much_memory(queue: Queue, start: Start) -> None:
    alone = start("--max-memory", "1")
    assert await asyncio.to_thread(alone.wait, PATIENCE) == 0


async def test_a_change_of_the_code_starts_them_anew(queue: Queue, start: Start, tmp_path: Path) -> None:
    code = tmp_path / "changing.py"
    text = (
        "from streamq import Processors\n"
        "processors = Processors()\n"
        "@processors.register('version', queue='processes')\n"
        "async def version(job): return {version}\n"
    )
    code.write_text(text.format(version=1))
    start("--autoreload", cwd=tmp_path, module="changing")
    assert await (await queue.add("version")).result(PATIENCE) == 1

    async def the_new_code_runs() -> bool:
        code.write_text(text.format(version=2))
        return await (await queue.add("version")).result(PATIENCE) == 2

    await eventually(the_new_code_runs, PATIENCE)


async def test_no_process_at_all_is_refused(start: Start) -> None:
    refused = start("--processes", "0")
    assert await asyncio.to_thread(refused.wait, PATIENCE) == 2

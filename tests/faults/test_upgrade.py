"""An upgrade without downtime: two releases' producers and workers, with scripts of their own, on one queue."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.workers import ROOT, eventually
from tests.servers import RedisServer

PROCESSORS = """
import asyncio, os
from pathlib import Path
from streamq import Processors

processors = Processors()


@processors.register("note", queue="q")
async def note(job):
    await asyncio.sleep(0.02)
    with Path(os.environ["NOTES"]).open("a") as file:
        file.write(f"{job.id} {job.attempt} {os.environ['RELEASE']}\\n")
"""
PRODUCER = """
import asyncio, os, sys
from streamq import Queue


async def main():
    async with Queue("q") as queue:
        for _ in range(int(sys.argv[1])):
            await queue.add("note")
            await asyncio.sleep(0.004)


asyncio.run(main())
"""


class Release:
    """A copy of the package of which each script differs from those of other releases."""

    def __init__(self, name: str, folder: Path, url: str) -> None:
        self.name, self.root = name, folder / name
        self._env = {**os.environ, "REDIS_URL": url, "NOTES": str(folder / "notes"), "RELEASE": name,
                     "PYTHONPATH": str(self.root)}  # fmt: skip
        skip = shutil.ignore_patterns("__pycache__")
        for part in ("streamq", "lua"):
            shutil.copytree(ROOT / part, self.root / part, ignore=skip)
        for script in (self.root / "lua").glob("*.lua"):
            script.write_text(f"{script.read_text()}-- release {name}\n")
        (self.root / "notes_processors.py").write_text(PROCESSORS)
        (self.root / "producer.py").write_text(PRODUCER)
        self.processes: list[subprocess.Popen[bytes]] = []

    def run(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start Python with this release."""
        log = (self.root / "log").open("ab")
        with log:
            process = subprocess.Popen(
                [sys.executable, *arguments], cwd=self.root, env=self._env, stdout=log, stderr=log
            )
        self.processes.append(process)
        return process

    def worker(self) -> subprocess.Popen[bytes]:
        return self.run("-m", "streamq.worker", "--processors", "notes_processors", "--concurrency", "3")

    def producer(self, jobs: int) -> subprocess.Popen[bytes]:
        return self.run("producer.py", str(jobs))

    def sha(self, script: str) -> str:
        """Return what the server calls a script of this release, in its form for plain jobs."""
        code = f"from streamq._engine.scripts import load; print(load({script!r}, plain=True).sha)"
        return subprocess.check_output([sys.executable, "-c", code], cwd=self.root, env=self._env, text=True).strip()

    def log(self) -> str:
        return (self.root / "log").read_text()


@pytest.fixture
def release(server: RedisServer, tmp_path: Path) -> Iterator[Callable[[str], Release]]:
    made: list[Release] = []

    def make(name: str) -> Release:
        made.append(Release(name, tmp_path, server.url))
        return made[-1]

    yield make
    for process in (process for one in made for process in one.processes if process.poll() is None):
        process.kill()
        process.wait()


async def test_two_releases_side_by_side_lose_nothing_and_repeat_nothing(
    server: RedisServer, release: Callable[[str], Release], tmp_path: Path
) -> None:
    old, new = release("old"), release("new")
    notes = tmp_path / "notes"
    notes.touch()

    def ran(name: str) -> int:
        return Counter(line.split()[2] for line in notes.read_text().splitlines())[name]

    first, second = old.worker(), old.worker()
    producers = [old.producer(1_000), new.producer(1_000)]
    await eventually(lambda: ran("old") > 50, 30, old.log)
    for leaving in (first, second):  # one after the other, as a rollout does
        before = ran("new")
        new.worker()
        await eventually(lambda before=before: ran("new") > before + 20, 30, new.log)  # type: ignore[misc]
        leaving.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(leaving.wait, 30) == 0, old.log()
    for producer in producers:
        assert await asyncio.to_thread(producer.wait, 60) == 0, old.log() + new.log()
    await eventually(lambda: len(notes.read_text().splitlines()) >= 2_000, 60, new.log)
    lines = [line.split() for line in notes.read_text().splitlines()]
    assert Counter(job for job, _, _ in lines).most_common(1)[0][1] == 1
    assert {attempt for _, attempt, _ in lines} == {"1"}
    assert len(lines) == 2_000
    assert server.call("XLEN", "sq:{q}:dead") == 0
    # Each had scripts of its own, and the older ones were there to the end.
    shas = [one.sha("tick") for one in (old, new)]
    assert list(server.call("SCRIPT", "EXISTS", *shas)) == [True, True]
    assert shas[0] != shas[1]

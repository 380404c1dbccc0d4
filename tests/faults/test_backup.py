"""A copy of a queue's files makes another server go on where it stood, as docs/operations.md says."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from streamq import JobState, Priority, Queue, Schedule, Settings, Worker
from tests.faults.workers import eventually
from tests.servers import RedisServer


@pytest.fixture
def other() -> Iterator[RedisServer]:
    """A server that has not been started."""
    server = RedisServer()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def snapshots() -> Iterator[RedisServer]:
    """One without an append-only file."""
    with RedisServer(arguments=("--appendonly", "no")) as server:
        yield server


async def run(job: Any) -> object:
    if job.name == "hangs":
        await asyncio.Event().wait()
    return {"ran": job.data}


async def fill(server: RedisServer) -> Settings:
    """Jobs of every state, a schedule, a job that a worker holds."""
    settings = Settings(redis_url=server.unix_url, lease=2.0)
    async with Queue("q", settings=settings) as queue:
        done = await queue.add("works", 0)
        holds = await queue.add("hangs", 1)
        worker = Worker("q", run, settings=settings, concurrency=2)
        running = asyncio.create_task(worker.run())
        await done.result(timeout=30)
        async for event in queue.events(after="0-0"):
            if (event.kind, event.job_id) == ("active", holds.id):
                break
        await queue.pause()
        await queue.add_many([("works", n) for n in range(1_500)])
        await queue.add("works", "first", priority=Priority.CRITICAL, job_id="own")
        await queue.add("works", "later", delay=0.1)
        await queue.upsert_schedule("hourly", Schedule(name="works", every=3600))
        backed_up(server)
        await worker.stop(grace=0)
        await running
    return settings


def backed_up(server: RedisServer) -> None:
    """Copy its files while it serves."""
    copy = server.folder / "backup"
    if server.call("CONFIG", "GET", "appendonly")[b"appendonly"] == b"yes":
        # So that no rewrite swaps files under the copy.
        server.call("CONFIG", "SET", "auto-aof-rewrite-percentage", 0)
        while server.call("INFO", "persistence")["aof_rewrite_in_progress"]:
            pass
        shutil.copytree(server.folder / "appendonlydir", copy / "appendonlydir")
    else:
        server.call("SAVE")
        copy.mkdir()
        shutil.copy(server.folder / "dump.rdb", copy / "dump.rdb")


async def check_restored(server: RedisServer) -> None:
    """All jobs that were there complete, what was running too, and ids go on."""
    settings = Settings(redis_url=server.unix_url, lease=2.0)

    async def works(job: Any) -> object:
        return {"ran": job.data}

    async with Queue("q", settings=settings) as queue:
        stats = await queue.stats()
        assert stats.paused
        assert (stats.waiting, stats.active, stats.delayed) == (1_501, 1, 1)
        assert [schedule.id for schedule in await queue.schedules()] == ["hourly"]
        assert (await queue.get_job("1")).result == {"ran": 0}  # type: ignore[union-attr]
        again = await queue.add("works", "first", job_id="own")
        assert not again.is_new
        await queue.resume()
        async with Worker("q", works, settings=settings):

            async def over() -> bool:
                found = await queue.stats()
                return not (found.waiting or found.active or found.delayed)

            await eventually(over, 60)
        held = await queue.get_job("2")
        assert held is None or held.state is JobState.COMPLETED
        assert (await queue.stats()).failed == 0
        new = await queue.add("works")
        assert int(new.id) > 1_504


async def test_a_copy_of_the_append_only_file_is_a_backup(server: RedisServer, other: RedisServer) -> None:
    await fill(server)
    shutil.copytree(server.folder / "backup" / "appendonlydir", other.folder / "appendonlydir")
    other.start()
    await check_restored(other)


async def test_a_copy_of_a_snapshot_is_a_backup(snapshots: RedisServer) -> None:
    await fill(snapshots)
    restored = RedisServer(arguments=("--appendonly", "no"))
    try:
        shutil.copy(snapshots.folder / "backup" / "dump.rdb", restored.folder / "dump.rdb")
        restored.start()
        await check_restored(restored)
    finally:
        restored.close()

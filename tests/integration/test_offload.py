"""Large payloads outside Redis: jobs and results run through a store of files, and what goes wrong there is told."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from streamq import (
    ActiveJob,
    Backoff,
    Batch,
    BatchJob,
    FlowJob,
    JobCancelled,
    JobFailed,
    Processors,
    Queue,
    Schedule,
    Settings,
    Worker,
)
from streamq.encryption import Encryption
from streamq.errors import OffloadUnavailable, UnreadablePayload
from streamq.offload import Offload
from streamq.payload import Codec, Codecs, Compression
from streamq.payload_stores import FolderStore
from tests.integration.cli import Cli
from tests.integration.conftest import PATIENCE
from tests.integration.test_middleware import everything

LARGE = "a large payload, " * 2_000
MANY = 1_100


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "payloads")


@pytest.fixture
def codec(store: FolderStore) -> Codec:
    return Offload(store, least=1_000)


def names(store: FolderStore) -> set[str]:
    return {name for day in store.days() for name in store.names(day)}


class LongAgo(Offload):
    """Stores as if it were 40 days ago."""

    def today(self) -> str:
        return f"{datetime.now(UTC) - timedelta(days=40):%Y-%m-%d}"


async def test_data_results_steps_and_cursors_lie_outside_redis(
    settings: Settings, client: redis.Redis, store: FolderStore, codec: Codec
) -> None:
    processors = Processors(codec=codec)

    @processors.register("work")
    async def work(job: ActiveJob[Any]) -> Any:
        step = await job.step("remember", lambda: job.data)
        if job.attempt == 1:
            await job.save_cursor(job.data)
            raise OSError("later")
        return [step, job.cursor, job.data]

    @processors.register("parent")
    async def parent(job: ActiveJob[Any]) -> Any:
        if not job.children:
            await job.add_children([FlowJob("plain", job.data)])
        return await job.children_results()

    @processors.register("plain")
    def plain(job: ActiveJob[Any]) -> Any:
        return job.data

    @processors.register("broken", attempts=1)
    async def broken(job: ActiveJob[Any]) -> None:
        raise ValueError("broken")

    async with Queue("q", settings=settings, codec=codec) as queue:
        await queue.upsert_schedule("s", Schedule(every=3600, name="plain", data=LARGE))
        later = await queue.add("plain", "other", delay=3_600)
        await queue.update_data(later.id, LARGE)
        async with Worker("q", processors, settings=settings):
            job = await queue.add("work", LARGE, attempts=2, backoff=Backoff.fixed(0))
            assert await job.result(PATIENCE) == [LARGE] * 3
            assert await (await queue.add("parent", LARGE)).result(PATIENCE) == [LARGE]
            flow = await queue.add_flow(FlowJob("plain", LARGE, children=[FlowJob("plain", LARGE)]))
            assert await flow.result(PATIENCE) == LARGE
            dead = await queue.add("broken", LARGE)
            with pytest.raises(JobFailed, match="broken"):
                await dead.result(PATIENCE)
            small = await queue.add("plain", "small")
            assert await small.result(PATIENCE) == "small"
        held = everything(client)
        assert b"a large payload" not in held
        assert b"small" in held
        seen = await job.snapshot()
        assert seen is not None
        assert (seen.data, seen.result) == (LARGE, [LARGE] * 3)
        assert [found.data for found in await queue.dead_letters()] == [LARGE]
        assert [end.result for end in await queue.children(flow.id)] == [LARGE]
        schedule = await queue.get_schedule("s")
        assert schedule is not None
        assert schedule.schedule.data == LARGE
    assert all((store._root / name).stat().st_size > 1_000 for name in names(store))


async def test_after_compression_and_encryption_only_what_is_still_large_is_stored(
    settings: Settings, store: FolderStore
) -> None:
    both = Codecs(Compression(), Encryption({"a": os.urandom(32)}, "a"), Offload(store, least=4_000))

    async def run(job: ActiveJob[Any]) -> Any:
        return job.data

    noise = os.urandom(9_000)
    async with (
        Queue("q", settings=settings, codec=both) as queue,
        Worker("q", run, settings=settings, codec=both),
    ):
        assert await (await queue.add("one", LARGE)).result(PATIENCE) == LARGE
        assert names(store) == set()
        jobs = await queue.add_many([("one", noise), ("one", "small")])
        assert [await job.result(PATIENCE) for job in jobs] == [noise, "small"]
    assert len(names(store)) == 2  # the data and the result


async def test_a_lost_object_makes_a_dead_letter_that_says_which_and_runs_once_it_is_back(
    settings: Settings, store: FolderStore, codec: Codec
) -> None:
    async def run(job: ActiveJob[Any]) -> Any:
        return len(job.data)

    async with Queue("q", settings=settings, codec=codec) as queue:
        job = await queue.add("one", LARGE, attempts=5)
        [name] = names(store)
        body = store.get(name, 10**6)
        store.delete(name)
        async with Worker("q", run, settings=settings, codec=codec):
            with pytest.raises(JobFailed, match=f"UnreadablePayload: its data can't be opened: {name} is not, or no"):
                await job.result(PATIENCE)
            [letter] = await queue.dead_letters()
            assert letter.error.type == "UnreadablePayload"
            assert letter.data is None
            store.put(name, body)
            await queue.redrive(letter)
            assert await job.result(PATIENCE) == len(LARGE)


async def test_a_lost_result_is_told_to_whoever_asks_for_it(
    settings: Settings, store: FolderStore, codec: Codec
) -> None:
    async def run(job: ActiveJob[Any]) -> Any:
        return LARGE

    async with Queue("q", settings=settings, codec=codec) as queue:
        async with Worker("q", run, settings=settings, codec=codec):
            job = await queue.add("one")
            assert await job.result(PATIENCE) == LARGE
        for name in names(store):
            store.delete(name)
        with pytest.raises(UnreadablePayload, match="is not, or no longer, in <FolderStore"):
            await job.result(PATIENCE)
        seen = await job.snapshot()
        assert seen is not None
        assert seen.result is None


class Failing(FolderStore):
    """Fails so many times, then goes on."""

    def __init__(self, folder: Path, *, puts: int = 0, gets: int = 0) -> None:
        super().__init__(folder)
        self.puts, self.gets = puts, gets

    def put(self, name: str, body: bytes) -> None:
        if self.puts > 0:
            self.puts -= 1
            raise ConnectionError("the bucket is away")
        super().put(name, body)

    def get(self, name: str, most: int) -> bytes:
        if self.gets > 0:
            self.gets -= 1
            raise ConnectionError("the bucket is away")
        return super().get(name, most)


async def test_an_add_whose_payload_can_not_be_stored_adds_nothing(settings: Settings, tmp_path: Path) -> None:
    failing = Failing(tmp_path, puts=3)
    async with Queue("q", settings=settings, codec=Offload(failing, least=1_000)) as queue:
        with pytest.raises(OffloadUnavailable, match="ConnectionError: the bucket is away"):
            await queue.add("one", LARGE)
        with pytest.raises(OffloadUnavailable):
            await queue.add_many([("one", "small"), ("one", LARGE)])
        with pytest.raises(OffloadUnavailable):
            await queue.add_flow(FlowJob("top", LARGE, children=[FlowJob("below")]))
        assert (await queue.stats()).total == 0
        await queue.add("one", LARGE)
        assert (await queue.stats()).total == 1


@pytest.mark.parametrize("failing", [{"gets": 1}, {"puts": 1}])
async def test_a_store_that_is_away_for_a_moment_costs_an_attempt(
    settings: Settings, tmp_path: Path, failing: dict[str, int]
) -> None:
    runs = []

    async def run(job: ActiveJob[Any]) -> Any:
        runs.append(job.attempt)
        return job.data

    async with (
        Queue("q", settings=settings, codec=Offload(str(tmp_path), least=1_000)) as queue,
        Worker("q", run, settings=settings, codec=Offload(Failing(tmp_path, **failing), least=1_000)),
    ):
        job = await queue.add("one", LARGE, attempts=2, backoff=Backoff.fixed(0))
        assert await job.result(PATIENCE) == LARGE
        seen = await job.snapshot()
    assert seen is not None
    assert str(seen.errors[1]).startswith("OffloadUnavailable: ")
    assert runs == ([2] if "gets" in failing else [1, 2])


class Gated(FolderStore):
    """Waits for a gate before it reads."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.asked, self.gate = threading.Event(), threading.Event()

    def get(self, name: str, most: int) -> bytes:
        self.asked.set()
        assert self.gate.wait(PATIENCE)
        return super().get(name, most)


@pytest.fixture
def gated(tmp_path: Path) -> Iterator[Gated]:
    found = Gated(tmp_path)
    yield found
    found.gate.set()


async def test_a_slow_store_holds_up_no_other_job(settings: Settings, gated: Gated) -> None:
    async def run(job: ActiveJob[Any]) -> Any:
        return job.data

    codec = Offload(gated, least=1_000)
    async with (
        Queue("q", settings=settings, codec=codec) as queue,
        Worker("q", run, settings=settings, codec=codec, concurrency=2),
    ):
        slow = await queue.add("one", LARGE)
        assert await asyncio.to_thread(gated.asked.wait, PATIENCE)
        for n in range(20):
            assert await (await queue.add("one", n)).result(PATIENCE) == n
        gated.gate.set()
        assert await slow.result(PATIENCE) == LARGE


@pytest.mark.parametrize("in_thread", [False, True])
async def test_a_job_that_is_cancelled_while_its_data_is_fetched_never_begins(
    settings: Settings, gated: Gated, in_thread: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []

    def plain(job: ActiveJob[Any]) -> None:
        runs.append(job.id)

    async def on_loop(job: ActiveJob[Any]) -> None:
        runs.append(job.id)

    codec = Offload(gated, least=1_000)
    async with (
        Queue("q", settings=settings, codec=codec) as queue,
        Worker("q", plain if in_thread else on_loop, settings=settings, codec=codec, concurrency=1) as worker,
    ):
        asked, interrupt = asyncio.Event(), worker._parts[0].ticker._runner.interrupt

        def interrupted(attempt: Any, reason: str) -> None:
            interrupt(attempt, reason)
            asked.set()

        monkeypatch.setattr(worker._parts[0].ticker._runner, "interrupt", interrupted)
        job = await queue.add("one", LARGE)
        assert await asyncio.to_thread(gated.asked.wait, PATIENCE)
        await queue.cancel(job.id)
        await asked.wait()
        if in_thread:  # it was told, and nothing was interrupted
            gated.gate.set()
        with pytest.raises(JobCancelled):
            await job.result(PATIENCE)
        gated.gate.set()
        await (await queue.add("two", "its slot is free")).result(PATIENCE)
    assert runs == ["2"]


async def test_a_worker_that_stops_while_data_is_fetched_hands_the_job_back_unused(
    settings: Settings, gated: Gated
) -> None:
    async def run(job: ActiveJob[Any]) -> Any:
        return job.attempt

    codec = Offload(gated, least=1_000)
    async with Queue("q", settings=settings, codec=codec) as queue:
        job = await queue.add("one", LARGE)
        async with Worker("q", run, settings=settings, codec=codec) as worker:
            assert await asyncio.to_thread(gated.asked.wait, PATIENCE)
            await worker.stop(grace=0)
        gated.gate.set()
        async with Worker("q", run, settings=settings, codec=codec):
            assert await job.result(PATIENCE) == 1


async def test_batches_get_their_data_and_store_their_results(settings: Settings, tmp_path: Path) -> None:
    processors = Processors(codec=Offload(Failing(tmp_path, puts=1), least=1_000))

    @processors.register("one", batch=Batch(size=3, max_wait=60), attempts=2, backoff=Backoff.fixed(0))
    async def run(jobs: list[BatchJob[str]]) -> list[str]:
        return [job.data for job in jobs]

    async with Queue("q", settings=settings, codec=Offload(str(tmp_path), least=1_000)) as queue:
        jobs = await queue.add_many([("one", f"{n} {LARGE}") for n in range(5)])
        async with Worker("q", processors, settings=settings):  # one result can't be stored at first: that makes six
            assert [await job.result(PATIENCE) for job in jobs] == [f"{n} {LARGE}" for n in range(5)]


async def test_a_batch_fills_up_with_jobs_whose_data_is_fetched_one_after_the_other(
    settings: Settings, tmp_path: Path
) -> None:
    codec = Offload(str(tmp_path), least=1_000)
    processors = Processors(codec=codec)

    @processors.register("one", batch=Batch(size=4, max_wait=600))
    async def run(jobs: list[BatchJob[str]]) -> list[int]:
        return [len(jobs)] * len(jobs)

    async with Queue("q", settings=settings, codec=codec) as queue:
        jobs = await queue.add_many([("one", LARGE)] * 4)
        async with Worker("q", processors, settings=settings, concurrency=1):
            assert [await job.result(PATIENCE) for job in jobs] == [4] * 4


async def test_a_job_for_a_batch_whose_data_is_still_fetched_runs_before_its_worker_stops(
    settings: Settings, gated: Gated
) -> None:
    codec = Offload(gated, least=1_000)
    processors = Processors(codec=codec)

    @processors.register("one", batch=Batch(size=3, max_wait=600))
    async def run(jobs: list[BatchJob[str]]) -> list[int]:
        return [len(jobs)] * len(jobs)

    async with Queue("q", settings=settings, codec=codec) as queue:
        job = await queue.add("one", LARGE)
        async with Worker("q", processors, settings=settings) as worker:
            assert await asyncio.to_thread(gated.asked.wait, PATIENCE)
            worker._parts[0].ticker.quit()
            gated.gate.set()
            await worker.stop(grace=PATIENCE)
            assert await job.result(PATIENCE) == 1


async def test_clean_deletes_what_is_old_and_spares_all_that_a_job_a_letter_or_a_schedule_needs(
    settings: Settings, redis_url: str, tmp_path: Path, store: FolderStore
) -> None:
    old = LongAgo(store, least=1_000)
    holding = asyncio.Event()

    async def run(job: ActiveJob[Any]) -> Any:
        if job.name == "fails":
            raise ValueError("it fails")
        if job.name == "steps" and job.attempt == 1:
            await job.step("remember", lambda: LARGE)
            raise OSError("later")
        if job.name == "active" and job.attempt == 1:
            holding.set()
            await asyncio.Event().wait()
        return job.data

    async with Queue("q", settings=settings, codec=old) as queue, Queue("r", settings=settings, codec=old) as other:
        delayed = await queue.add("one", LARGE, delay=3_600)
        done = await queue.add("one", LARGE)
        parent = await queue.add_flow(
            FlowJob("one", LARGE, children=[FlowJob("one", LARGE), FlowJob("one", "x", queue="r")])
        )
        dead = await queue.add("fails", LARGE, attempts=1)
        steps = await queue.add("steps", "small", attempts=2, backoff=Backoff.fixed(3_600))
        async with Worker("q", run, settings=settings, codec=old) as worker:
            assert await done.result(PATIENCE) == LARGE
            with pytest.raises(JobFailed):
                await dead.result(PATIENCE)
            async for event in queue.events(after="0-0"):
                if event.job_id == steps.id and event.kind in ("retried", "delayed"):
                    break
            active = await queue.add("active", LARGE)
            await holding.wait()
            await worker.stop(grace=0)
        await queue.upsert_schedule("s", Schedule(every=3_600, name="one", data=LARGE))
        waiting = await queue.add_many([("one", LARGE)] * 2 + [("one", n) for n in range(MANY)])
        await other.add("one", LARGE, job_id="own:batch:1")
        async with Queue("{q}tagged", settings=settings, codec=old) as tagged:
            await tagged.add("one", LARGE, delay=3_600)
        removed = await queue.add("one", LARGE)
        await queue.remove(removed.id)
        store.put(f"{old.today()}/{'a' * 32}", b"of an add that failed")
        young = Offload(store).store
        young.put(f"{Offload.today(old)}/{'b' * 32}", b"of an add that is under way")
        before = names(store)

        cli = Cli(redis_url, tmp_path)
        command = ("offload", "clean", str(store._root), "--older-than", "30d")
        told = cli(*command, "--dry-run", "--json").record
        assert (told["deleted"], told["needed"]) == (2, len(before) - 3)
        assert names(store) == before
        assert "needs --yes where there is no terminal" in cli(*command, code=2).err
        assert f"2 payloads from before {told['before']} deleted, {len(before) - 3} needed" in cli(*command, "-y").out
        assert len(names(store)) == len(before) - 2

        await queue.promote(delayed.id)
        await queue.promote(steps.id)
        await queue.retry(dead.id)
        fired = await queue.trigger_schedule("s")
        async with (
            Worker("q", lambda job: len(job.data), settings=settings, codec=old),
            Worker("r", lambda job: len(job.data), settings=settings, codec=old),
        ):
            for job in (delayed, dead, active, waiting[0], waiting[1], fired, parent):
                assert await job.result(PATIENCE) == len(LARGE)
            assert await other.result("own:batch:1", PATIENCE) == len(LARGE)
        assert await done.result(PATIENCE) == LARGE
        assert (await queue.children(parent.id))[0].result == LARGE


def test_clean_refuses_what_makes_no_sense(redis_url: str, tmp_path: Path) -> None:
    cli = Cli(redis_url, tmp_path)
    assert (
        "--older-than must be at least a day"
        in cli("offload", "clean", str(tmp_path), "--older-than", "1h", "-y", code=2).err
    )
    mistyped = tmp_path / "payload"
    assert f"{mistyped} is no folder" in cli("offload", "clean", str(mistyped), "--dry-run", code=2).err
    assert not mistyped.exists()
    assert "no payloads can be stored there" in cli("offload", "clean", "nowhere://x", "-y", code=2).err
    away = Cli("redis://127.0.0.1:1/0", tmp_path, {"STREAMQ_TIMEOUT": "0.5"})
    assert "no connection to Redis" in away("offload", "clean", str(tmp_path), "-y", code=3).err

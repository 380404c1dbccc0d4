"""Any input comes back exactly on every path, or is refused before anything is sent."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis.asyncio

from streamq import ActiveJob, InvalidInput, JobFailed, JobState, Queue, Settings, Worker
from tests.faults.jobs import misbehave
from tests.faults.scene import KEEP_ALL, Scene
from tests.faults.workers import eventually
from tests.servers import RedisServer

NUMBERS: list[Any] = [
    2**53 + 1,
    2**63,
    -(2**63),
    2**64,
    10**40,
    -(10**40),
    0,
    0.1,
    1e-320,
    -0.0,
    1.0,
    1e308,
    True,
    False,
]
SHAPES: dict[str, Any] = {"a": [], "b": {}, "c": [[]], "d": None, "e": [{}, [None]], "f": "", "g": b"", "": 0}
TEXTS: list[Any] = ["", "a\x00b", "é", "\u2028", "𝄞", "\n", bytes(range(256)), b"\x00", "x" * 2000]
EVERYTHING = {"numbers": NUMBERS, "shapes": SHAPES, "texts": TEXTS}


@pytest.mark.parametrize("path", ["at once", "delayed", "retried", "reclaimed", "released", "with an id of its own"])
async def test_data_and_result_are_the_same_values_and_types_on_every_path(scene: Scene, path: str) -> None:
    """R62 (sidekiq/sidekiq#2478) and R63 (seomoz/qless#73)."""
    gate = scene.ledger.path.with_name("gate")
    (first,) = await scene.start(lease=1, grace=0.2)
    gated = {"path": str(gate), "value": EVERYTHING}
    match path:
        case "at once":
            job = await scene.add("echo", EVERYTHING)
        case "delayed":
            job = await scene.add("echo", EVERYTHING, delay=0.3)
        case "with an id of its own":
            job = await scene.add("echo", EVERYTHING, job_id="own")
        case "retried":
            job = await scene.add("echo-later", {"failures": 2, "value": EVERYTHING})
        case _:
            job = await scene.add("gate", gated)
            await scene.started(job)
            if path == "reclaimed":
                first.kill()
            else:
                first.terminate()
                assert await first.exits(5) == 0
            gate.touch()
            await scene.start(lease=1)
    result = await job.result(timeout=15)
    assert repr(result) == repr(EVERYTHING)
    seen = scene.ledger.lines("start", job=job.id)
    assert len(seen) == {"retried": 3, "reclaimed": 2, "released": 2}.get(path, 1)
    expected = {"retried": {"failures": 2, "value": EVERYTHING}, "reclaimed": gated, "released": gated}
    for line in seen:
        assert line.more["data"] == repr(expected.get(path, EVERYTHING))[:2000]
    snapshot = await scene.queue.get_job(job.id)
    assert snapshot is not None
    assert repr(snapshot.data) == repr(expected.get(path, EVERYTHING))
    scene.clean()


NAMES = ["a:b", "a|b", "{x}", "}{", "123", "007", "../x", "*?[]", "é", "a b", "a\n", "", "x" * 1000, "b'x'", "\x00",
         "\ud800", "-1", "1-0", "0", "٣", "lane:1", "job:1", " ", "%s", "\\", "'", '"']  # fmt: skip


async def test_an_odd_job_id_either_lives_a_whole_life_or_is_refused(scene: Scene) -> None:
    """R64 (rq/rq#2137): ids."""
    await scene.start()
    lived, refused = [], []
    for name in NAMES:
        try:
            job = await scene.queue.add("echo", [name] if name != "\ud800" else ["lone"], job_id=name)
        except ValueError as error:
            assert isinstance(error, InvalidInput)  # noqa: PT017 - refusal is one of the two right outcomes
            refused.append(name)
            continue
        lived.append(name)
        assert job.id == name
        assert await job.result(timeout=5) == [name]
        snapshot = await scene.queue.get_job(name)
        assert snapshot is not None
        assert (snapshot.id, snapshot.state) == (name, JobState.COMPLETED)
        listed = [known.id for known in await scene.queue.jobs(JobState.COMPLETED, count=100)]
        assert name in listed
        assert not (await scene.queue.add("echo", job_id=name)).is_new
        assert await scene.queue.remove(name)
        assert await scene.queue.get_job(name) is None
        again = await scene.queue.add("echo", "again", job_id=name)
        assert again.is_new
        assert await again.result(timeout=5) == "again"
    assert set(lived) | set(refused) == set(NAMES)
    assert {"a:b", "a|b", "../x", "*?[]", "é", "a b"} <= set(lived)
    results = {name: (await scene.queue.get_job(name)) for name in lived}
    assert {name: snapshot.id for name, snapshot in results.items() if snapshot} == {name: name for name in lived}
    scene.accepted += lived
    scene.clean()


async def test_an_odd_queue_name_either_works_wholly_or_is_refused(server: RedisServer) -> None:
    """R64 (rq/rq#2137): queue names."""
    settings = Settings(redis_url=server.url)

    async def echo(job: ActiveJob[Any]) -> Any:
        return [job.queue, job.data]

    worked = []
    for name in NAMES:
        try:
            queue = Queue(name, server.url, settings=settings, defaults=KEEP_ALL)
        except ValueError as error:
            assert isinstance(error, InvalidInput)  # noqa: PT017
            with pytest.raises(InvalidInput):
                Worker(name, echo, redis=server.url, settings=settings)
            continue
        worked.append(name)
        async with queue, Worker(name, echo, redis=server.url, settings=settings):
            job = await queue.add("echo", name)
            assert await job.result(timeout=5) == [name, name]
            later = await queue.add("echo", name, delay=0.05)
            assert await later.result(timeout=5) == [name, name]
            stats = await queue.stats()
            assert (stats.completed, stats.total) == (2, 2)
    assert {"a:b", "123", "*?[]", "é", "a b"} <= set(worked)


async def test_a_result_that_cannot_be_stored_fails_its_job_once_and_clearly(scene: Scene) -> None:
    """R66 (python-arq/arq#148)."""
    (worker,) = await scene.start()
    for kind in ("lock", "socket", "generator", "future", "loop", "lambda", "surrogate"):
        job = await scene.add("unserialisable", kind, attempts=3)
        with pytest.raises(JobFailed, match="ResultNotEncodable"):
            await job.result(timeout=5)
        assert scene.verdict().runs_of(job.id) == 1
    jobs = await scene.add_many([("echo", i) for i in range(10)])
    assert [await job.result(timeout=5) for job in jobs] == list(range(10))
    assert worker.alive
    scene.clean()


async def test_exceptions_of_every_build_are_recorded_and_retried(scene: Scene) -> None:
    """R67 (celery/celery#6185)."""
    (worker,) = await scene.start()
    kinds = {"NeedsTwoArguments": "a b 3", "HoldsALock": "holds a lock", "CannotBeTold": "CannotBeTold",
             "Chain": "the outer one", "ExceptionGroup": "several", "Huge": "xxx", "Surrogate": "lone"}  # fmt: skip
    for kind, text in kinds.items():
        for name in ("raise", "raise-in-thread"):
            failing = await scene.add(name, {"kind": kind}, attempts=1)
            with pytest.raises(JobFailed, match=text):
                await failing.result(timeout=5)
            snapshot = await scene.queue.get_job(failing.id)
            assert snapshot is not None
            assert snapshot.error is not None
            assert snapshot.error.type in (kind, "ValueError")
            assert len(snapshot.error.message) < 10_000
            assert len(snapshot.error.traceback) < 20_000
            recovering = await scene.add(name, {"kind": kind, "times": 1}, attempts=2)
            assert await recovering.result(timeout=5) == "recovered"
    assert worker.alive
    with pytest.raises(AssertionError):
        misbehave("a kind that there is not")
    scene.clean()


async def test_a_client_that_decodes_text_neither_harms_bytes_nor_kills_a_worker(server: RedisServer) -> None:
    """R69 (rq/rq#1748)."""
    settings = Settings(redis_url=server.url)
    client = redis.asyncio.Redis.from_url(server.url, decode_responses=True)

    async def echo(job: ActiveJob[Any]) -> Any:
        return job.data

    async with (
        Queue("faults", client, settings=settings, defaults=KEEP_ALL) as queue,
        Worker("faults", echo, redis=client, settings=settings) as worker,
    ):
        for data in (bytes(range(256)), [bytes([n]) for n in range(256)], {"k\x00": "v\x00"}, "\x00", "é\ufffd"):
            job = await queue.add("echo", data)
            assert await job.result(timeout=5) == data
        for bad in ("\ud800", {"\udfff": 1}, ["ok", "\ud800"]):
            with pytest.raises(InvalidInput):
                await queue.add("echo", bad)
        for bad_bytes in (b"\xc1", b"\x93\x01", b"", b"\xff" * 100):
            number = server.call("INCR", "sq:{faults}:id")
            server.call("XADD", "sq:{faults}:lane:3", f"{number}-0", "d", bad_bytes, "t", "1")
        job = await queue.add("echo", "after")
        assert await job.result(timeout=5) == "after"
        assert worker.healthy
        stats = await queue.stats()
        assert (stats.waiting, stats.active, stats.delayed) == (0, 0, 0)
    await client.aclose()


async def test_a_payload_over_the_limit_is_refused_before_anything_is_sent(scene: Scene) -> None:
    """R70 (OptimalBits/bull#1357)."""
    (worker,) = await scene.start()
    fits = await scene.add("noop", "x" * (1_048_576 - 1024))
    await fits.result(timeout=5)
    before = scene.direct.info("memory")["used_memory"]
    for size in (2 * 1_048_576, 64 * 1_048_576):
        with pytest.raises(InvalidInput, match="over the limit"):
            await scene.queue.add("noop", "x" * size)
        with pytest.raises(InvalidInput, match="over the limit"):
            await scene.queue.add_many([("noop", 1), ("noop", "x" * size)])
    assert scene.direct.info("memory")["used_memory"] < before + 100_000
    large = await scene.add("result-of-size", 64 * 1_048_576, attempts=3)
    with pytest.raises(JobFailed, match="ResultTooLarge"):
        await large.result(timeout=10)
    assert scene.verdict().runs_of(large.id) == 1
    after = await scene.add("echo", "after")
    assert await after.result(timeout=5) == "after"
    assert worker.alive
    scene.clean()


async def test_data_that_would_come_back_changed_is_refused(scene: Scene) -> None:
    """P7."""
    for bad in ((1, 2), {1, 2}, float("nan"), {"t": (1,)}, {1: "a"}.keys(), object(), asyncio):
        with pytest.raises(InvalidInput):
            await scene.queue.add("noop", bad)
    await eventually(lambda: scene.direct.keys("sq:*") == [], 1)

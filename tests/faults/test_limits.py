"""A rate limit loses no job, never stops for good, holds in every window, and costs its workers next to nothing."""

from __future__ import annotations

import time

import pytest

from streamq import RateLimit
from tests.faults.scene import Scene, scaled
from tests.faults.workers import eventually, stays

SLOW = pytest.mark.timeout(300)


def starts_of(scene: Scene) -> list[float]:
    """Return when jobs were handed out, in seconds by the server's clock, which the limit goes by."""
    found: list[float] = []
    for entry, fields in scene.direct.xrange(f"{scene.base}:events"):  # type: ignore[union-attr]
        for kind, ids in fields.items():
            if kind == b"active":
                found += [int(entry.split(b"-")[0]) / 1000] * len(ids.split(b"\0"))
    return found


def most_in_a_window(times: list[float], per: float) -> int:
    """Return how many of these, which are in order, lie within one window of `per` seconds at the most."""
    most, first = 0, 0
    for at, moment in enumerate(times):
        while moment - times[first] >= per:
            first += 1
        most = max(most, at - first + 1)
    return most


@SLOW
async def test_jobs_over_the_rate_limit_wait_and_none_is_lost(scene: Scene) -> None:
    """R82 (OptimalBits/bull#2082)."""
    jobs = scaled(40, 100)
    await scene.queue.set_rate_limit(RateLimit(5, per=1.0))
    (worker,) = await scene.start(concurrency=20)
    began = time.monotonic()
    await scene.add_many([("noop", number) for number in range(jobs)])
    await eventually(lambda: scene.starts() >= jobs // 2, jobs / 5 + 5)
    worker.terminate()
    assert await worker.exits(5) == 0
    await scene.start(concurrency=20)
    await scene.idle(jobs / 5 + 5)
    took = time.monotonic() - began
    assert jobs / 5 - 1 <= took <= jobs / 5 + 3
    assert most_in_a_window(starts_of(scene), 1.0) == 5
    scene.each_ran_once()
    scene.clean()


@SLOW
async def test_a_limited_backlog_flows_evenly_through_restarts(scene: Scene) -> None:
    """R83 (OptimalBits/bull#1110)."""
    slices, length = scaled(4, 12), 5.0
    await scene.queue.set_rate_limit(RateLimit(20, per=1.0))
    await scene.queue.pause()
    await scene.add_many([("noop", number) for number in range(scaled(5_000, 50_000))])
    first, second = await scene.start(2, concurrency=20)
    await scene.queue.resume()
    await eventually(lambda: scene.starts() >= 20, 5)
    await eventually(lambda: scene.starts() >= 40, 5)  # the first, from a standing start, may start at once
    began, used = time.monotonic(), first.cpu_seconds
    for turn in range(slices):
        before = scene.starts()
        if turn == slices // 2:
            second.terminate()
            assert await second.exits(5) == 0
            second.start()
        await stays(lambda: first.alive, began + (turn + 1) * length - time.monotonic(), "the other worker lives")
        assert 90 <= scene.starts() - before <= 110
    assert first.cpu_seconds - used < 0.5 * slices * length
    assert most_in_a_window(starts_of(scene), 1.0) == 20
    await scene.queue.set_rate_limit(None)
    await scene.idle(scaled(30, 120))
    scene.each_ran_once()
    scene.clean()


@SLOW
async def test_workers_sleep_until_the_rate_allows_another_job(scene: Scene) -> None:
    await scene.queue.set_rate_limit(RateLimit(2, per=3.0))
    workers = await scene.start(2, concurrency=20)
    await scene.add_many([("noop", number) for number in range(200)])
    await eventually(lambda: scene.starts() >= 2, 5)
    seconds = scaled(6.0, 30.0)
    before = [worker.cpu_seconds for worker in workers]
    await stays(lambda: scene.starts() <= 2 * (seconds // 3 + 2), seconds, "the limit holds")
    shares = [(worker.cpu_seconds - then) / seconds for worker, then in zip(workers, before, strict=True)]
    assert max(shares) < 0.02, shares
    await scene.queue.set_rate_limit(None)
    await scene.idle(20)
    scene.each_ran_once()
    scene.clean()

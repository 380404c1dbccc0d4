"""Schedules keep their slots whatever happens to workers and to Redis: none twice, none lost, none for ever late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from streamq import ScheduleSnapshot
from tests.faults.scene import LEASE, Scene, scaled
from tests.faults.workers import eventually

SLOW = pytest.mark.timeout(400)


class Firings:
    """What the ledger says of the jobs of one schedule."""

    def __init__(self, scene: Scene, schedule_id: str = "s") -> None:
        self.scene, self.prefix = scene, f"{schedule_id}@"
        self._wall = time.time() - time.monotonic()

    @property
    def starts(self) -> list[tuple[int, float]]:
        """The slot and the start (ms since 1970) of each run, in order."""
        lines = [line for line in self.scene.ledger.lines("start") if line.job.startswith(self.prefix)]
        return [(int(line.job[len(self.prefix) :]), (line.at + self._wall) * 1000) for line in lines]

    @property
    def slots(self) -> list[int]:
        """The slot of each run."""
        return [slot for slot, _ in self.starts]

    async def more(self, count: int = 1, within: float = 10) -> None:
        """Wait for so many more runs."""
        have = len(self.starts)
        await eventually(lambda: len(self.starts) >= have + count, within, lambda: self.scene.remains())

    def gap(self) -> float:
        """Return the longest time between two starts, in seconds."""
        return max(later - earlier for (_, earlier), (_, later) in pairwise(self.starts)) / 1000

    def steps(self) -> set[int]:
        """Return the distances of successive slots, whatever the order in which they ran."""
        return {later - earlier for earlier, later in pairwise(sorted(self.slots))}


@pytest.fixture
async def firings(scene: Scene) -> AsyncIterator[Firings]:
    """The firings of the schedule `s`; at the end it is removed, and all must have ended in order."""
    firings = Firings(scene)
    yield firings
    await scene.queue.remove_schedule("s")
    await scene.idle(20)
    scene.note(sorted({line.job for line in scene.ledger.lines("start")}))
    scene.clean()


async def read(scene: Scene) -> ScheduleSnapshot:
    """Read the schedule."""
    found = await scene.queue.get_schedule("s")
    assert found is not None
    return found


async def test_a_killed_run_does_not_hold_up_its_schedule_for_ever(scene: Scene, firings: Firings) -> None:
    """R45 (tastyware/streaq#38). The killed run is run again, as it must be; the slot after its end fires."""
    every, works, lease = scaled((2.0, 1.5, 1.0), (5.0, 4.0, LEASE))
    (worker,) = await scene.start(1, lease=lease)
    await scene.queue.upsert_schedule("s", every=every, name="sleep", data=works, overlap="skip")
    await firings.more(within=every + 5)
    await asyncio.sleep(works / 2)
    worker.kill()
    await worker.exits(5)
    killed = time.monotonic()
    worker.start()
    await firings.more(2, within=lease + works + 2 * every + 3)
    (first, _), (again, _), (later, _) = firings.starts[:3]
    assert again == first
    assert (later - first) % round(every * 1000) == 0
    assert time.monotonic() - killed < lease + works + 2 * every + 3
    await firings.more(within=2 * every + 2)


@SLOW
async def test_many_workers_fire_each_second_once(scene: Scene, firings: Firings) -> None:
    """R52 (python-arq/arq#196)."""
    seconds = scaled(8, 60)
    await scene.start(scaled(4, 8), lease=LEASE)
    await scene.queue.upsert_schedule("s", cron="* * * * * *", name="noop", overlap="skip")
    begin = time.time()
    await asyncio.sleep(seconds)
    took = time.time() - begin
    starts = firings.starts
    assert abs(len(starts) - took) <= 1.5
    assert len({slot for slot, _ in starts}) == len(starts)
    assert firings.steps() == {1_000}
    assert max(at - slot for slot, at in starts) < 900


@SLOW
async def test_workers_that_take_turns_leave_no_gap_and_repeat_no_slot(scene: Scene, firings: Firings) -> None:
    """R53 (taskforcesh/bullmq#3262). With the default lease, so that nobody looks by chance."""
    timing: dict[str, Any] = {"every": 1.0, "name": "noop"}
    await scene.queue.upsert_schedule("s", **timing)
    (working,) = await scene.start(1, lease=15)
    await firings.more()
    for _ in range(scaled(3, 20)):
        (next_one,) = await scene.start(1, lease=15)
        other = scene.open_queue()
        await other.upsert_schedule("s", **timing)
        await firings.more()
        working.terminate()
        assert await working.exits(15) == 0
        await firings.more(2)
        working = next_one
    assert firings.gap() <= 3
    assert len(set(firings.slots)) == len(firings.slots)
    assert firings.steps() == {1_000}


@pytest.mark.parametrize("missed", ["skip", "once"])
async def test_a_slot_that_came_while_no_worker_was_there(scene: Scene, firings: Firings, missed: Any) -> None:
    """R55 (tastyware/streaq#152)."""
    every, grace, late = scaled((9.0, 1.0, 2.5), (60.0, 5.0, 20.0))
    start = datetime.now(UTC) + timedelta(seconds=0.5)
    await scene.queue.upsert_schedule("s", every=every, start=start, name="noop", missed=missed, grace=grace)
    await asyncio.sleep(0.5 + late)
    await scene.start(1)
    assert time.time() < start.timestamp() + every - 1, "the worker took too long to start for this test"
    await eventually(lambda: len(firings.starts) == (missed == "once") and scene.live_workers(), 3)
    following = start + timedelta(seconds=every)
    await asyncio.sleep(following.timestamp() - time.time() - 0.1)
    assert len(firings.starts) == (missed == "once")
    await firings.more(within=3)
    slot, at = firings.starts[-1]
    assert abs(slot - following.timestamp() * 1000) < 1
    assert at - slot < 1_000
    found = await read(scene)
    assert (found.missed, found.fired) == ((1, 1) if missed == "skip" else (0, 2))


@SLOW
async def test_a_schedule_goes_on_after_each_outage(scene: Scene, firings: Firings) -> None:
    """R57 (sidekiq/sidekiq#3047)."""
    await scene.start(2)
    before = await scene.queue.upsert_schedule("s", cron="* * * * * *", name="noop")
    await firings.more(2)
    for _ in range(scaled(2, 5)):
        scene.server.kill()
        await asyncio.sleep(scaled(2, 4))
        scene.server.start()
        await firings.more(within=3)
        await asyncio.sleep(scaled(1, 8))
    assert (await read(scene)).schedule == before.schedule
    assert len(set(firings.slots)) == len(firings.slots)


@SLOW
async def test_slots_do_not_drift_whatever_the_work_takes(scene: Scene, firings: Firings) -> None:
    """R60 (rq/rq-scheduler#269)."""
    seconds = scaled(8, 120)
    (worker,) = await scene.start(1)
    created = await scene.queue.upsert_schedule("s", every=1, name="sleep", data=0.3)
    assert created.next_at is not None
    first = round(created.next_at.timestamp() * 1000)
    begin = time.time()
    await asyncio.sleep(seconds / 2)
    worker.terminate()
    assert await worker.exits(15) == 0
    worker.start()
    await asyncio.sleep(begin + seconds - time.time())
    starts = firings.starts
    assert sorted(firings.slots) == [first + k * 1_000 for k in range(len(starts))]
    assert abs(len(starts) - seconds) <= 2
    slot, at = starts[-1]
    assert at - slot < 1_000


async def test_a_paused_schedule_goes_on_in_the_same_workers(scene: Scene, firings: Firings) -> None:
    """R61 (chrisguidry/docket#377)."""
    await scene.start(2)
    await scene.queue.upsert_schedule("s", every=1, name="noop")
    await firings.more(2)
    await scene.queue.pause_schedule("s")
    await scene.idle(5)
    before = len(firings.starts)
    await asyncio.sleep(3.2)
    assert len(firings.starts) == before
    await scene.queue.resume_schedule("s")
    await firings.more(within=2.5)
    assert {(slot - firings.slots[0]) % 1_000 for slot in firings.slots} == {0}
    assert firings.slots[before] - firings.slots[before - 1] >= 4_000

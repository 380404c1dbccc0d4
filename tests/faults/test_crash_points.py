"""A process that dies before or after each of its calls to Redis, one after the other, in each kind of life.

Whatever the point, those who come after bring the work to its end, and exactly one end.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from streamq import Backoff, JobState, Queue, Unique, Worker
from tests.faults.crash import BATCH, KEEP_ALL, a_flow, is_done, processor, settings_for
from tests.faults.figures import publish
from tests.faults.ledger import Ledger
from tests.faults.state import clean_state
from tests.faults.storm import endings
from tests.faults.workers import ROOT, eventually
from tests.servers import RedisServer

pytestmark = pytest.mark.timeout(300)

WAVE = 6
"""Points that are tried at once."""
KILLED = -9
SOON = Backoff.fixed(0.05)


class Mortals:
    """The process that forks a child for each life; see `tests.faults.crash`."""

    def __init__(self, process: asyncio.subprocess.Process, server: RedisServer, ledger: Path) -> None:
        self._process, self._server, self._ledger = process, server, ledger
        self._ends: dict[str, asyncio.Future[int]] = {}
        self._reading = asyncio.create_task(self._read())

    async def live(self, life: str, queue: str, at: int, when: str) -> int:
        """Have a life lived until its `at`-th call; return its exit code: 0 if it made fewer calls."""
        assert self._process.stdin is not None
        self._ends[queue] = asyncio.get_running_loop().create_future()
        told = [queue, life, self._server.url, queue, at, when, str(self._ledger)]
        self._process.stdin.write(json.dumps(told).encode() + b"\n")
        return await self._ends[queue]

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            label, status = line.decode().rsplit(" ", 1)
            self._ends.pop(label).set_result(int(status))

    async def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._reading


@pytest.fixture
async def mortals(server: RedisServer, ledger: Ledger) -> AsyncIterator[Mortals]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.faults.crash", cwd=ROOT, env=os.environ,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    mortals = Mortals(process, server, ledger.path)
    yield mortals
    await mortals.close()


@dataclass
class Place:
    """One queue in which somebody has died at one point."""

    queue: Queue
    direct: redis.Redis
    ledger: Ledger

    @property
    def name(self) -> str:
        return self.queue.name

    @property
    def acted(self) -> bool:
        """Whether the one who died knew that its call had been taken."""
        return any(line.more.get("queue") == self.name for line in self.ledger.lines("note"))

    def ends(self) -> dict[tuple[str, str], int]:
        """How often each job ended in which way."""
        return dict(endings(self.direct, self.name))

    def runs(self, job: str) -> list[int]:
        """The attempts that were started of a job."""
        return [line.attempt for line in self.ledger.lines("start", job=f"{self.name}/{job}")]

    async def letters(self) -> int:
        return (await self.queue.stats()).dead


@dataclass(frozen=True)
class Case:
    """A life, what there is before it, what others do after its end, and what must be true then."""

    life: str
    before: Callable[[Place], Awaitable[Any]]
    after: Callable[[Place], Awaitable[Any]]
    judge: Callable[[Place], Awaitable[Any]]


async def nothing(place: Place) -> None: ...


async def add_it(place: Place) -> None:
    await place.queue.add("works", 1, job_id="j")


async def ran_once(place: Place) -> None:
    assert place.ends() == {("completed", "j"): 1}
    assert place.runs("j") == [1]


async def add_unique(place: Place) -> None:
    await place.queue.add("works", 1, unique=Unique("key"))


async def one_of_the_key_ran(place: Place) -> None:
    ((_, job),) = ends = place.ends()
    assert ends == {("completed", job): 1}
    assert place.runs(job) in ([1], [1, 1])
    assert (await place.queue.add("works", 2, unique=Unique("key"))).is_new, "the key was not released"
    await clear_up(place)


async def all_or_none_ran(place: Place) -> None:
    ends = place.ends()
    assert set(ends.values()) <= {1}
    assert len(ends) == BATCH if place.acted else len(ends) in (0, BATCH)


async def cancel_it(place: Place) -> None:
    await place.queue.cancel("j")


async def never_ran(place: Place) -> None:
    assert place.ends() == {("cancelled", "j"): 1}
    assert place.runs("j") == []


async def fail_it(place: Place) -> None:
    await place.queue.add("fails", job_id="j")
    await clear_up(place)
    assert await place.letters() == 1


async def redrive_it(place: Place) -> None:
    await place.queue.redrive(everything=True)


async def redriven_once(place: Place) -> None:
    assert place.ends() == {("failed", "j"): 2}
    assert place.runs("j") == [1, 1]
    assert await place.letters() == 1


async def add_reporting(place: Place) -> None:
    await place.queue.add("reports", 7, job_id="j")


async def completed_once(place: Place) -> None:
    assert place.ends() == {("completed", "j"): 1}
    assert place.runs("j") in ([1], [1, 1])
    assert await place.queue.result("j") == 7


async def add_several(place: Place) -> None:
    for lane in (1, 2, 3, 4, 3):
        await place.queue.add("works", 1, priority=lane)


async def each_completed_once(place: Place) -> None:
    assert place.ends() == {("completed", str(job)): 1 for job in range(1, 6)}


async def add_retried(place: Place) -> None:
    await place.queue.add("fails once", 7, job_id="j", attempts=3, backoff=SOON)


async def retried_once(place: Place) -> None:
    found = await place.queue.get_job("j")
    assert found is not None
    assert (found.state, found.attempts_made) == (JobState.COMPLETED, 2)
    assert place.ends() == {("completed", "j"): 1}
    assert sorted(set(place.runs("j"))) == [1, 2]
    assert len(place.runs("j")) <= 3


async def add_failing(place: Place) -> None:
    await place.queue.add("fails", job_id="j")


async def failed_once(place: Place) -> None:
    assert place.ends() == {("failed", "j"): 1}
    assert len(place.runs("j")) <= 2
    assert await place.letters() == 1


async def schedule_it(place: Place) -> None:
    await place.queue.upsert_schedule("s", every=0.1, name="works", limit=1, missed="all")


async def fired_once(place: Place) -> None:
    found = await place.queue.get_schedule("s")
    assert found is not None
    assert (found.fired, found.missed) == (1, 0)
    assert place.ends() == {("completed", found.last_job_id): 1}
    assert len(place.runs(str(found.last_job_id))) <= 2


async def add_the_flow(place: Place) -> None:
    await place.queue.add_flow(a_flow())


async def add_a_growing_one(place: Place) -> None:
    await place.queue.add("grows", job_id="j")


async def each_of_three_completed_once(place: Place) -> None:
    ends = place.ends()
    assert len(ends) == 3
    assert set(ends.values()) == {1}
    assert {state for state, _ in ends} == {"completed"}
    assert await place.queue.result("j") == 7


CASES = {
    "add": Case("add", nothing, add_it, ran_once),
    "add with a unique key": Case("unique", nothing, add_unique, one_of_the_key_ran),
    "add a batch": Case("batch", nothing, nothing, all_or_none_ran),
    "add a flow": Case("flow", nothing, add_the_flow, each_of_three_completed_once),
    "run a flow": Case("work", add_the_flow, nothing, each_of_three_completed_once),
    "add children from a handler": Case("work", add_a_growing_one, nothing, each_of_three_completed_once),
    "cancel": Case("cancel", add_it, cancel_it, never_ran),
    "redrive": Case("redrive", fail_it, redrive_it, redriven_once),
    "claim, progress, complete": Case("work", add_reporting, nothing, completed_once),
    "claim several": Case("work", add_several, nothing, each_completed_once),
    "run a unique job": Case("work", add_unique, nothing, one_of_the_key_ran),
    "retry": Case("work", add_retried, nothing, retried_once),
    "fail": Case("work", add_failing, nothing, failed_once),
    "fire a schedule": Case("work", schedule_it, nothing, fired_once),
}


async def clear_up(place: Place) -> None:
    """Have another worker run all that is left."""
    async with Worker(place.name, processor(place.ledger), settings=place.queue.settings):
        await eventually(lambda: is_done(place.direct, place.name), 30, f"all of {place.name} ends")


@pytest.mark.parametrize("name", CASES)
async def test_a_death_at_any_call_leaves_work_that_ends_exactly_once(
    mortals: Mortals, server: RedisServer, direct: redis.Redis, ledger: Ledger, name: str
) -> None:
    """P1, P2, P3."""
    case = CASES[name]

    async def die(at: int, when: str) -> bool:
        """Return whether the life was over before that call."""
        settings = settings_for(server.url)
        async with Queue(f"{when}-{at}", settings=settings, defaults=KEEP_ALL) as queue:
            place = Place(queue, direct, ledger)
            await case.before(place)
            code = await mortals.live(case.life, queue.name, at, when)
            assert code in (0, KILLED), f"the life at {queue.name} ended with {code}"
            await case.after(place)
            await clear_up(place)
            try:
                await case.judge(place)
                clean_state(server.url, queue.name, {job for _, job in place.ends()})
            except AssertionError as error:
                error.add_note(f"died {when} call {at}")
                raise
            return code == 0

    deaths, first, lived = 0, 1, False
    while not lived:
        points = [(at, when) for at in range(first, first + WAVE // 2) for when in ("before", "after")]
        over = await asyncio.gather(*(die(*point) for point in points))
        deaths, first, lived = deaths + over.count(False), first + WAVE // 2, any(over)
    publish(f"crash points: {name}", None, {"deaths": deaths}, {"ended other than once": 0})
    assert deaths >= 2

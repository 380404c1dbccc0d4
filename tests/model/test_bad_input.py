"""500 values in each place of an add, each of which goes all four ways: refused with a clear error before anything is
sent, or exactly as given.

What is taken is claimed at once, after a delay, again after a retry, or again after its worker was lost, and runs on a
real worker in the end. Batches have ids of their own making, so there is nothing to give.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from streamq import ActiveJob, Job, Queue, Retention, Settings, StreamqError, Worker
from streamq._engine import codec
from streamq._engine.store import Store
from streamq._engine.transitions import Claim, Outcome, TickArgs
from streamq.encryption import Encryption
from streamq.job import JobError
from streamq.observer import Observer
from streamq.payload import PLAIN, Codec, Codecs, Compression
from streamq.worker.steps import Steps, StoredMemory, drive
from tests.model.odd_values import ODD, VALUES, shown, values
from tests.model.places import PLACES, TIMES, Fields, Place, Seen, due_at, same

WAYS = ("at once", "delayed", "retried", "reclaimed")
PATIENCE = 60
DELAYED = {"delay": 3_600.0}
SEALED = Codecs(Compression(least=0), Encryption({"k": b"0" * 32}, current="k"))
LOST = TickArgs(worker="lost", lease_ms=60_000, max_stalls=9, events_cap=100, dead_cap=100)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


class Way:
    """One queue, whose jobs all go one way to a worker."""

    def __init__(self, redis_url: str, client: redis.Redis, way: str, opener: Codec) -> None:
        self.way, self.client, self.opener = way, client, opener
        self.settings = Settings(
            redis_url=redis_url, concurrency=VALUES, keep_completed=Retention(10_000), keep_failed=Retention(10_000)
        )
        self.queue = Queue(f"q {way}", settings=self.settings, codec=opener)

    @property
    def store(self) -> Store:
        return self.queue._store

    async def go_on(self, claims: list[Claim]) -> None:
        """Have jobs that are claimed go this way, to where a worker may claim them again."""
        if self.way == "at once":
            await self._settle(claims, "release", 0)
        elif self.way == "reclaimed":
            await self.store.leave(LOST.worker)
        else:
            await self._settle(claims, "retry", 3_600_000 if self.way == "delayed" else 0)
            self._make_due()

    async def bring(self, count: int) -> None:
        """Have the queue's `count` jobs go this way, to where a worker may claim them."""
        all_delayed = self.client.zcard(f"{self.store.base}:delayed") == count
        self._make_due()
        if self.way != "at once" and not (self.way == "delayed" and all_delayed):
            await self.go_on(await self.claim_all(count))

    def _make_due(self) -> None:
        """Let every delay be over."""
        delayed = f"{self.store.base}:delayed"
        for job_id in self.client.zrange(delayed, 0, -1):
            self.client.zadd(delayed, {job_id: 1})

    async def claim_all(self, count: int) -> list[Claim]:
        """Claim all there is, as a worker that will never run it."""
        claims: list[Claim] = []
        while len(claims) < count:
            reply = await self.store.tick(LOST, count, ())
            assert reply.claimed or reply.promoted, f"only {len(claims)} of {count} jobs could be claimed"
            claims += reply.claimed
        return claims

    async def _settle(self, claims: list[Claim], kind: str, delay_ms: int) -> None:
        error = codec.encode_error(JobError("ValueError", "boom"))
        body, b, made = (b"", "i", 0) if kind == "release" else (error, 0, 1)
        outcomes = [Outcome(kind, c.lane, c.entry, c.job_id, body, delay_ms, b, made, made) for c in claims]
        assert (await self.store.tick(LOST, 0, outcomes)).stale == []

    async def run_all(self, count: int, handler: Callable[[ActiveJob[Any]], Any]) -> None:
        """Run what there is on a worker, until `count` attempts have ended."""
        counts = Counts(count)
        async with Worker(self.queue.name, {"*": handler}, settings=self.settings, observer=counts, codec=self.opener):
            await asyncio.wait_for(counts.all.wait(), PATIENCE)


class Counts(Observer):
    """Tells when so many attempts have ended."""

    def __init__(self, count: int) -> None:
        self.left, self.all = count, asyncio.Event()

    def ended(self, queue: str, processor: str, outcome: str, ran: float, waited: float, attempt: int) -> None:
        self.left -= 1
        if self.left <= 0:
            self.all.set()


@pytest.mark.parametrize("name", PLACES)
async def test_a_value_is_refused_before_anything_is_sent_or_comes_back_as_it_was(
    redis_url: str, client: redis.Redis, name: str
) -> None:
    place, taken, faults = PLACES[name], 0, []
    for way in WAYS:
        found = Pass(Way(redis_url, client, way, SEALED if name == "sealed data" else PLAIN), name, place)
        async with found.way.queue:
            await found.run()
        faults += found.faults
        assert len(found.jobs) + found.refused == VALUES
        taken += len(found.jobs)
    assert not faults, f"{len(faults)} faults:\n" + "\n".join(faults[:40])
    assert taken
    assert taken < VALUES * len(WAYS) or not place.keeps_data


async def test_the_check_names_the_value_the_place_and_the_way_that_broke(redis_url: str, client: redis.Redis) -> None:
    async def give(queue: Queue, at: int, value: Any, when: Fields) -> Job:
        if value == "a b":
            raise ZeroDivisionError("planted")
        return await queue.add("work", [value] if value == "1e3" else value, **when)

    found = Pass(Way(redis_url, client, "retried", PLAIN), "data", PLACES["data"]._replace(give=give))
    async with found.way.queue:
        await found.run()
    broken, changed = found.faults
    assert broken == f"data, retried, value {ODD.index('a b')}: 'a b' raises ZeroDivisionError: planted"
    assert changed.startswith(f"data, retried, value {ODD.index('1e3')}: '1e3' came back as ")


@pytest.mark.parametrize("place", ["a step's name", "a step's result", "the cursor"])
async def test_what_an_attempt_remembers_is_refused_or_the_next_one_finds_it_as_it_was(
    redis_url: str, client: redis.Redis, place: str
) -> None:
    faults: list[str] = []
    for way_name in WAYS:
        way, given = Way(redis_url, client, way_name, PLAIN), values()
        async with way.queue:
            await way.queue.add_many([("work", at) for at in range(VALUES)])
            claims = await way.claim_all(VALUES)
            kept = {at: await _remember(way.store, c, place, given[at]) for at, c in enumerate(claims)}
            assert 0 < sum(found is not REFUSED for found in kept.values()) < VALUES
            await way.go_on(claims)
            again: dict[int, Any] = {}

            async def find(
                job: ActiveJob[int], queue: Queue = way.queue, kept: Any = kept, again: Any = again, given: Any = given
            ) -> None:
                if kept[job.data] is REFUSED:
                    stored = await queue.steps(job.id)
                    again[job.data] = stored if stored.steps or stored.cursor is not None else REFUSED
                elif place == "the cursor":
                    again[job.data] = job.cursor
                else:
                    name = given[job.data] if place == "a step's name" else "step"
                    again[job.data] = await job.step(name, lambda: "ran again")

            await way.run_all(VALUES, find)
        faults += [
            f"{place}, {way_name}, value {at}: {shown(given[at])} became {shown(again.get(at))}"
            for at in range(VALUES)
            if repr(kept[at]) != repr(again.get(at)) and not same(kept[at], again.get(at))  # results may be NaN
        ]
    assert not faults, f"{len(faults)} faults:\n" + "\n".join(faults[:40])


REFUSED = object()


async def _remember(store: Store, claim: Claim, place: str, value: Any) -> Any:
    """Have an attempt store a value; returns what it is to be found as, or REFUSED."""
    steps = Steps(StoredMemory(store, claim), 1_048_576, drive)
    try:
        if place == "the cursor":
            await steps.save_cursor(value)
            return value
        return await steps.step(
            *(("step", lambda: value) if place == "a step's result" else (value, lambda: claim.job_id)), (), {}
        )
    except StreamqError:
        return REFUSED


class Pass:
    """All values in one place, one way."""

    def __init__(self, way: Way, name: str, place: Place) -> None:
        self.way, self.name, self.place = way, name, place
        self.values = values()
        self.jobs: dict[int, Job] = {}
        """The job of each value that was taken."""
        self.refused = 0
        self.seen: dict[str, ActiveJob[Any]] = {}
        self.faults: list[str] = []

    async def run(self) -> None:
        """Give all, bring what was taken to a worker, and look at each."""
        await asyncio.gather(*(self._give(at, value) for at, value in enumerate(self.values)))
        ids = {job.id for job in self.jobs.values()}
        await self._compare_with_what_was_sent(ids)
        for at, job in self.jobs.items() if self.name in TIMES else ():
            early = await self._snapshot(job)
            due = due_at(self.name, self.values[at], early.created_at)
            if early.run_at != due:
                self._fault(at, f"was added at {early.created_at} and is due at {early.run_at}, not at {due}")
        if not ids:
            return
        await self.way.bring(len(ids))
        parents = len(ids) if self.name.startswith("a child's") else 0
        await self.way.run_all(len(ids) + parents, self._handle)
        await asyncio.gather(*(self._look(at, job) for at, job in self.jobs.items()))

    async def _give(self, at: int, value: Any) -> None:
        when = {} if self.name in TIMES or self.way.way != "delayed" else DELAYED
        try:
            self.jobs[at] = await self.place.give(self.way.queue, at, value, when)
        except StreamqError as error:
            self.refused += 1
            if not str(error):
                self._fault(at, f"is refused without a word: {error!r}")
        except TypeError as error:
            # A list can't be the name of a header in any program: there is nothing to give.
            self.refused += 1
            if "unhashable" not in str(error) or self.name != "a header's name":
                self._fault(at, f"raises {type(error).__name__}: {error!s:.80}")
        except Exception as error:
            self.refused += 1
            self._fault(at, f"raises {type(error).__name__}: {error!s:.80}")

    async def _compare_with_what_was_sent(self, ids: set[str]) -> None:
        """What was refused must not have come to Redis."""
        stats = await self.way.queue.stats()
        there = stats.waiting + stats.delayed
        if there != len(ids) or stats.total != there + stats.waiting_children:
            self.faults.append(f"{self.name}, {self.way.way}: Redis has {there} jobs, {len(ids)} were taken")

    async def _handle(self, job: ActiveJob[Any]) -> None:
        self.seen[job.id] = job

    async def _snapshot(self, job: Job) -> Any:
        found = await self.way.queue.get_job(job.id)
        assert found is not None
        return found

    async def _look(self, at: int, job: Job) -> None:
        value, stored = self.values[at], await self.way.store.get(job.id)
        if stored is None:
            return self._fault(at, f"is unknown under its id {job.id!r}")
        if self.place.is_id and not job.is_new:
            return None  # an equal value came before it
        seen = Seen(self.seen.get(job.id), await self._snapshot(job), stored)
        if stored.state != "completed" and not (self.place.may_expire and seen.snapshot.state == "failed"):
            self._fault(at, f"ended as {stored.state}: {seen.snapshot.error}")
        elif not self.place.as_given(value, seen):
            self._fault(at, f"came back as {seen.job!r:.100}, {seen.snapshot!r:.200}")
        elif self.place.keeps_data and seen.snapshot.data != {"n": at}:
            self._fault(at, f"changed the data of its job: {seen.snapshot.data!r:.100}")
        return None

    def _fault(self, at: int, what: str) -> None:
        self.faults.append(f"{self.name}, {self.way.way}, value {at}: {shown(self.values[at])} {what}")

"""Schedules with real workers, and with the time set to any day: what fires, when, and how often."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
import redis

from streamq import (
    ActiveJob,
    JobOptions,
    JobState,
    Priority,
    Queue,
    Retention,
    Schedule,
    ScheduleSnapshot,
    Settings,
)
from streamq import slots as pure
from streamq._engine.transitions import TickArgs
from streamq.errors import ScheduleNotFound
from streamq.worker.scheduler import Scheduler
from tests.integration.conftest import PATIENCE, Bench

SOON = timedelta(hours=1)


def slot_of(job_id: str) -> int:
    """Return the slot that a job's id names."""
    return int(job_id.rpartition("@")[2])


class Ran:
    """Notes what ran."""

    def __init__(self) -> None:
        self.jobs: list[ActiveJob[Any]] = []
        self._more = asyncio.Event()

    async def note(self, job: ActiveJob[Any]) -> None:
        self.jobs.append(job)
        self._more.set()

    @property
    def ids(self) -> list[str]:
        return [job.id for job in self.jobs]

    @property
    def slots(self) -> list[int]:
        return [slot_of(job_id) for job_id in self.ids]

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until `condition` holds, looking whenever something has run."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._more.clear()
                await self._more.wait()

    async def times(self, count: int) -> None:
        """Wait until so many jobs have run."""
        await self.until(lambda: len(self.jobs) >= count)


@pytest.fixture
def ran() -> Ran:
    """What ran."""
    return Ran()


async def known(queue: Queue, schedule_id: str) -> ScheduleSnapshot:
    """Read a schedule that exists."""
    found = await queue.get_schedule(schedule_id)
    assert found is not None
    return found


# Upserting and looking ------------------------------------------------------------------------------------------------


async def test_a_schedule_is_read_as_it_was_given(queue: Queue) -> None:
    given = Schedule(
        cron="0 6 * * MON",
        name="report",
        data={"month": 11, "parts": [], "big": 2**70},
        options=JobOptions(priority=Priority.LOW, attempts=7, timeout=5.0, keep_completed=Retention(count=3)),
        tz="Europe/Berlin",
        start=datetime(2026, 1, 1, 1, 2, 3, tzinfo=UTC),
        end=datetime(2099, 1, 1, tzinfo=UTC),
        limit=1_000,
        missed="once",
        grace=7.5,
        overlap="queue",
        jitter=12.0,
    )
    created = await queue.upsert_schedule("weekly", given)
    assert created.schedule == given
    assert await queue.get_schedule("weekly") == created
    assert created.next_at is not None
    assert created.next_at.astimezone(ZoneInfo("Europe/Berlin")).strftime("%a %H:%M:%S") == "Mon 06:00:00"
    assert (created.fired, created.missed, created.skipped, created.paused) == (0, 0, 0, False)


async def test_the_same_upsert_from_anywhere_keeps_the_next_slot(queue: Queue) -> None:
    first = await queue.upsert_schedule("hourly", every=3_600, name="report")
    others = await asyncio.gather(*(queue.upsert_schedule("hourly", every=3_600, name="report") for _ in range(20)))
    assert {other.next_at for other in others} == {first.next_at}
    assert first.next_at is not None
    assert timedelta(minutes=59) < first.next_at - datetime.now(UTC) <= timedelta(hours=1)


async def test_a_change_of_the_work_keeps_the_next_slot_and_a_change_of_the_time_does_not(queue: Queue) -> None:
    first = await queue.upsert_schedule("hourly", every=3_600, name="report")
    other_work = await queue.upsert_schedule("hourly", every=3_600, name="other", data=5, missed="all", jitter=9)
    assert other_work.next_at == first.next_at
    assert (other_work.schedule.name, other_work.schedule.data) == ("other", 5)
    other_time = await queue.upsert_schedule("hourly", every=1_800, name="other")
    assert first.next_at is not None
    assert other_time.next_at == first.next_at - timedelta(minutes=30)


async def test_every_begins_with_its_start(queue: Queue) -> None:
    start = datetime.now(UTC).replace(microsecond=0) + SOON
    assert (await queue.upsert_schedule("later", every=60, start=start, name="report")).next_at == start
    past = start - timedelta(days=10)
    found = await queue.upsert_schedule("long ago", every=60, start=past, name="report")
    assert found.next_at is not None
    assert (found.next_at - past) % timedelta(minutes=1) == timedelta(0)
    assert timedelta(0) < found.next_at - datetime.now(UTC) + timedelta(seconds=1) <= timedelta(seconds=61)


async def test_a_schedule_whose_end_has_passed_has_no_next_slot(queue: Queue) -> None:
    ended = await queue.upsert_schedule("over", every=60, name="report", end=datetime(2020, 1, 1, tzinfo=UTC))
    assert ended.next_at is None


async def test_schedules_are_listed_the_next_one_first_and_paused_ones_last(queue: Queue) -> None:
    assert await queue.schedules() == []
    for schedule_id, every in (("paused", 1_000), ("late", 9_000), ("soon", 5_000)):
        await queue.upsert_schedule(schedule_id, every=every, name="report")
    await queue.pause_schedule("paused")
    found = await queue.schedules()
    assert [schedule.id for schedule in found] == ["soon", "late", "paused"]
    assert found[2].paused
    assert found[2].next_at is None


async def test_a_removed_schedule_is_unknown(queue: Queue) -> None:
    await queue.upsert_schedule("gone", every=60, name="report")
    assert await queue.remove_schedule("gone") is True
    assert await queue.remove_schedule("gone") is False
    assert await queue.get_schedule("gone") is None
    for call in (queue.pause_schedule, queue.resume_schedule, queue.trigger_schedule):
        with pytest.raises(ScheduleNotFound, match="schedule gone is unknown"):
            await call("gone")


# With workers ---------------------------------------------------------------------------------------------------------


async def test_a_job_says_its_slot_and_carries_data_and_options(bench: Bench, ran: Ran) -> None:
    created = await bench.queue.upsert_schedule(
        "s@:1",
        every=0.1,
        name="report",
        data={"a": [1]},
        options=JobOptions(priority=Priority.HIGH, attempts=1),
        limit=1,
    )
    async with bench.worker(ran.note):
        await ran.times(1)
    (job,) = ran.jobs
    assert (job.name, job.data, job.attempt) == ("report", {"a": [1]}, 1)
    assert created.next_at is not None
    assert job.id == f"s@:1@{round(created.next_at.timestamp() * 1000)}"
    stored = await bench.queue.get_job(job.id)
    assert stored is not None
    assert (stored.priority, stored.state) == (Priority.HIGH, JobState.COMPLETED)


@pytest.mark.parametrize("timing", [{"every": 0.1}, {"cron": "* * * * * *"}])
async def test_many_workers_and_upserts_make_one_firing_per_slot_and_no_gap(
    bench: Bench, ran: Ran, settings: Settings, timing: dict[str, Any]
) -> None:
    """R52, in short."""
    upserts = 10
    async with AsyncExitStack() as stack:
        queues = [await stack.enter_async_context(Queue("q", settings=settings)) for _ in range(upserts)]
        for _ in range(6):
            await stack.enter_async_context(bench.worker(ran.note))
        for turn in range(1, 6):
            await asyncio.gather(*(q.upsert_schedule("tick", **timing, name="report") for q in queues))
            await ran.times(turn * (6 if "every" in timing else 1))
    assert len(set(ran.ids)) == len(ran.ids)
    step = 100 if "every" in timing else 1_000
    assert {later - earlier for earlier, later in pairwise(sorted(ran.slots))} == {step}


async def test_ten_firings_a_second_are_kept_up_by_one_worker(bench: Bench, ran: Ran) -> None:
    created = await bench.queue.upsert_schedule("fast", every=0.1, name="report", overlap="skip")
    async with bench.worker(ran.note, concurrency=1):
        await ran.times(30)
    assert created.next_at is not None
    first = round(created.next_at.timestamp() * 1000)
    assert ran.slots[:30] == [first + k * 100 for k in range(30)]
    assert (await known(bench.queue, "fast")).skipped == 0


async def test_the_limit_ends_a_schedule_and_the_same_upsert_does_not_start_it_again(bench: Bench, ran: Ran) -> None:
    for witness in ("one", "two"):
        await bench.queue.upsert_schedule("thrice", every=0.1, name="report", limit=3)
        async with bench.worker(ran.note):
            await bench.queue.upsert_schedule(witness, every=0.1, name=witness, limit=6)
            await ran.times(len(ran.jobs) + 6 + (3 if witness == "one" else 0))
    ended = await known(bench.queue, "thrice")
    assert (ended.fired, ended.next_at) == (3, None)
    assert sum(job_id.startswith("thrice") for job_id in ran.ids) == 3


async def test_a_paused_schedule_fires_nothing_and_goes_on_with_its_next_regular_slot(bench: Bench, ran: Ran) -> None:
    """R61, in short."""
    await bench.queue.upsert_schedule("s", every=0.1, name="report", missed="all")
    await bench.queue.upsert_schedule("witness", every=0.1, name="report")
    async with bench.worker(ran.note):
        await ran.until(lambda: any(job_id.startswith("s@") for job_id in ran.ids))
        await bench.queue.pause_schedule("s")
        paused = await known(bench.queue, "s")
        await ran.until(lambda: paused.last_job_id in ran.ids)
        before = ran.ids
        await ran.times(len(before) + 6)
        assert all(job_id.startswith("witness@") for job_id in ran.ids[len(before) :])
        resumed = len(ran.ids)
        await bench.queue.resume_schedule("s")
        await ran.until(lambda: any(job_id.startswith("s@") for job_id in ran.ids[resumed:]))
    mine = [slot_of(job_id) for job_id in ran.ids if job_id.startswith("s@")]
    assert {(slot - mine[0]) % 100 for slot in mine} == {0}
    assert max(later - earlier for earlier, later in pairwise(mine)) > 400
    assert (await known(bench.queue, "s")).missed == 0


async def test_firings_of_a_paused_queue_wait_for_its_resume(bench: Bench, ran: Ran) -> None:
    await bench.queue.pause()
    await bench.queue.upsert_schedule("s", every=0.1, name="report", limit=5)
    async with bench.worker(ran.note):
        await bench.happened("added", (await ended(bench.queue, "s")).last_job_id or "")
        assert ran.ids == []
        assert (await bench.queue.stats()).waiting == 5
        await bench.queue.resume()
        await ran.times(5)


async def ended(queue: Queue, schedule_id: str) -> ScheduleSnapshot:
    """Wait until a schedule has reached its limit, looking with every event."""
    async with asyncio.timeout(PATIENCE):
        found = await known(queue, schedule_id)
        if found.next_at is None:
            return found
        async for _ in queue.events(after="0-0"):
            found = await known(queue, schedule_id)
            if found.next_at is None:
                return found
    raise AssertionError("events ended")


async def test_a_worker_without_room_fires_on_time(bench: Bench) -> None:
    gate, started = asyncio.Event(), asyncio.Event()

    async def hold(job: ActiveJob[Any]) -> None:
        started.set()
        await gate.wait()

    async with bench.worker(hold, concurrency=1):
        await bench.queue.add("long")
        await started.wait()
        await bench.queue.upsert_schedule("s", every=0.1, name="report", limit=5)
        await ended(bench.queue, "s")
        assert (await bench.queue.stats()).waiting == 5
        gate.set()


async def test_a_trigger_adds_a_job_now(bench: Bench, ran: Ran) -> None:
    await bench.queue.upsert_schedule("yearly", cron="@yearly", name="report", data=5)
    await bench.queue.pause_schedule("yearly")
    async with bench.worker(ran.note):
        job = await bench.queue.trigger_schedule("yearly")
        await job.result(PATIENCE)
    assert (job.name, ran.ids, ran.jobs[0].data) == ("report", [job.id], 5)
    assert (await known(bench.queue, "yearly")).fired == 0


async def test_jitter_delays_the_start_and_leaves_the_slot(bench: Bench, ran: Ran) -> None:
    await bench.queue.upsert_schedule("s", every=0.1, name="report", limit=5, jitter=0.4)
    starts: dict[str, datetime] = {}
    async with bench.worker(ran.note):
        await ran.times(5)
    for job_id in ran.ids:
        job = await bench.queue.get_job(job_id)
        assert job is not None
        assert job.started_at is not None
        starts[job_id] = job.started_at
        wait = pure.jitter("s", slot_of(job_id), 400)
        assert job.started_at.timestamp() * 1000 >= slot_of(job_id) + wait
    assert {later - earlier for earlier, later in pairwise(sorted(ran.slots))} == {100}


async def test_a_failed_firing_does_not_stand_in_the_way_of_the_next(bench: Bench) -> None:
    """R93: the next ticks run, and the failed record stays readable."""
    seen: list[str] = []
    third = asyncio.Event()

    async def fails_first(job: ActiveJob[Any]) -> None:
        seen.append(job.id)
        if len(seen) == 1:
            raise ValueError("the first run fails")
        if len(seen) == 3:
            third.set()

    await bench.queue.upsert_schedule("s", every=0.2, name="report", options=JobOptions(attempts=1), overlap="skip")
    async with bench.worker(fails_first), asyncio.timeout(PATIENCE):
        await third.wait()
    failed = await bench.queue.get_job(seen[0])
    assert failed is not None
    assert failed.state is JobState.FAILED
    assert failed.error is not None
    assert failed.error.message == "the first run fails"
    assert {slot_of(later) - slot_of(earlier) for earlier, later in pairwise(seen)} == {200}


@pytest.mark.parametrize("overlap", ["skip", "queue", "cancel_previous", "allow"])
async def test_what_a_slot_does_while_the_last_job_runs(bench: Bench, overlap: Any) -> None:
    gate, running, most = asyncio.Event(), 0, 0
    starts: list[str] = []
    interrupted: list[str] = []

    async def hold(job: ActiveJob[Any]) -> None:
        nonlocal running, most
        running, most = running + 1, max(most, running + 1)
        starts.append(job.id)
        try:
            await gate.wait()
        except asyncio.CancelledError:
            interrupted.append(job.id)
            raise
        finally:
            running -= 1

    created = await bench.queue.upsert_schedule("s", every=0.1, name="report", overlap=overlap)
    assert created.next_at is not None
    first = round(created.next_at.timestamp() * 1000)
    wanted = {
        "skip": ("skipped", 4),
        "queue": ("skipped", 4),
        "cancel_previous": ("cancelled", 2),
        "allow": ("added", 4),
    }
    kind, at = wanted[overlap]
    async with bench.worker(hold, concurrency=10):
        await bench.happened(kind, f"s@{first + at * 100}")
        found = await known(bench.queue, "s")
        match overlap:
            case "skip":
                assert (starts, found.fired) == ([f"s@{first}"], 1)
                assert found.skipped >= 4
            case "queue":
                assert (starts, found.fired) == ([f"s@{first}"], 1)
                assert found.waiting_slot == datetime.fromtimestamp((first + 100) / 1000, UTC)
                gate.set()
                await bench.happened("completed", f"s@{first + 100}")
                assert most == 1
            case "cancel_previous":
                stats = await bench.queue.stats()
                assert stats.active + stats.waiting <= 2  # one may have been added, and its predecessor not yet ended
                assert interrupted[:3] == [f"s@{first + n * 100}" for n in range(3)]
            case "allow":
                assert found.skipped == 0
        gate.set()


@pytest.mark.parametrize("broken", [{"spec": b"\xc1 from another world"}, {"spec": b""}, {"lane": b""}])
async def test_a_schedule_that_no_worker_can_read_does_not_hold_up_the_others(
    bench: Bench, ran: Ran, client: redis.Redis, caplog: pytest.LogCaptureFixture, broken: dict[str, bytes]
) -> None:
    await bench.queue.upsert_schedule("broken", every=0.1, name="report")
    client.hset("sq:{q}:schedule:broken", mapping=broken)
    await bench.queue.upsert_schedule("sound", every=0.1, name="report")
    async with bench.worker(ran.note):
        await ran.times(12)
    assert all(job_id.startswith("sound@") for job_id in ran.ids)
    assert 1 <= sum("broken of queue q can't be fired here" in text for text in caplog.messages) <= 4


async def test_a_schedule_whose_worker_died_with_it_in_hand_is_fired_by_another_one(
    bench: Bench, ran: Ran, queue: Queue
) -> None:
    await queue.upsert_schedule("s", every=0.1, name="report", limit=1)
    dying = TickArgs(worker="dying", lease_ms=500, max_stalls=3, events_cap=100, dead_cap=100)
    async with asyncio.timeout(PATIENCE):
        while (await queue._store.tick(dying, 0, ())).schedules != ["s"]:
            pass
    async with bench.worker(ran.note):
        await ran.times(1)
    assert len(ran.ids) == 1


async def test_the_worker_that_stays_knows_when_the_next_slot_is_due(
    bench: Bench, ran: Ran, settings: Settings
) -> None:
    """R53, in short: the one that fired leaves; the other one has heard of no slot, and its beat is 10 s."""
    slow = msgspec.structs.replace(settings, lease=30.0)
    async with bench.worker(ran.note, settings=slow):
        async with bench.worker(ran.note, settings=slow):
            await bench.queue.upsert_schedule("s", every=0.5, name="report")
            await ran.times(2)
        count = len(ran.ids)
        await ran.times(count + 2)
    assert {later - earlier for earlier, later in pairwise(sorted(ran.slots))} == {500}


async def test_workers_that_come_and_go_leave_no_gap(bench: Bench, ran: Ran) -> None:
    await bench.queue.upsert_schedule("s", every=0.2, name="report")
    for _ in range(5):
        async with bench.worker(ran.note):
            await ran.times(len(ran.ids) + 2)
    assert len(set(ran.ids)) == len(ran.ids)
    assert {later - earlier for earlier, later in pairwise(sorted(ran.slots))} == {200}


# At any time ----------------------------------------------------------------------------------------------------------


class Travel:
    """Workers' schedulers over a queue, with the time set by the test: they have no clock but what they read."""

    def __init__(self, queue: Queue, client: redis.Redis, schedulers: int = 2) -> None:
        self.store, self.client = queue._store, client
        self.schedulers = [Scheduler(self.store, lambda seconds: None) for _ in range(schedulers)]

    async def upsert(self, queue: Queue, schedule_id: str, at: datetime, **fields: Any) -> None:
        """Upsert a schedule as if it were `at`."""
        await queue.upsert_schedule(schedule_id, **fields)
        (stored,) = await self.store.schedules([schedule_id])
        anchor = now = ms(at)
        slot = pure.next_slot(msgspec.msgpack.decode(stored.spec, type=pure.Spec), anchor, now)
        assert slot is not None
        self.client.hset(f"sq:{{q}}:schedule:{schedule_id}", mapping={"next": slot, "anchor": anchor})

    async def at(self, schedule_id: str, moment: datetime) -> None:
        """Let all schedulers look at once, all having read the same."""
        (stored,) = await self.store.schedules([schedule_id])
        if stored.next_ms is not None and stored.next_ms <= ms(moment):
            seen = msgspec.structs.replace(stored, now_ms=ms(moment))
            await asyncio.gather(*(scheduler.fire(seen) for scheduler in self.schedulers))

    def slots(self) -> list[int]:
        """The slots whose jobs are in the lane."""
        return [slot_of(fields[b"j"].decode()) for _, fields in self.client.xrange("sq:{q}:lane:3")]


def ms(moment: datetime) -> int:
    """Return milliseconds since 1970."""
    return round(moment.timestamp() * 1000)


@pytest.fixture
async def travel(queue: Queue, client: redis.Redis) -> Travel:
    """Two schedulers that believe the test."""
    return Travel(queue, client)


@pytest.mark.parametrize("monday", ["2025-03-10", "2025-11-03"])
async def test_a_weekly_time_fires_once_at_its_local_time_around_a_change_of_the_clocks(
    queue: Queue, travel: Travel, monday: str
) -> None:
    """R50."""
    local = datetime.fromisoformat(monday).replace(tzinfo=ZoneInfo("America/New_York"))
    saturday = (local - timedelta(days=2)).astimezone(UTC)
    await travel.upsert(queue, "weekly", saturday, cron="0 6 * * MON", tz="America/New_York", name="report")
    for quarters in range(3 * 24 * 4 + 1):
        await travel.at("weekly", saturday + timedelta(minutes=15 * quarters))
    (slot,) = travel.slots()
    fired = datetime.fromtimestamp(slot / 1000, ZoneInfo("America/New_York"))
    assert (fired.date(), fired.hour, fired.minute) == (local.date(), 6, 0)


@pytest.mark.parametrize(
    ("cron", "per_day"),
    [("30 2 * * *", [1, 1, 1]), ("*/30 * * * *", [48, None, 48])],
)
@pytest.mark.parametrize(("sunday", "hours"), [("2025-03-30", 23), ("2025-10-26", 25)])
async def test_firings_of_a_day_on_which_the_clocks_change(
    queue: Queue, travel: Travel, cron: str, per_day: list[int | None], sunday: str, hours: int
) -> None:
    zone = ZoneInfo("Europe/Berlin")
    saturday = (datetime.fromisoformat(sunday) - timedelta(days=1)).replace(tzinfo=zone)
    monday_night = saturday.astimezone(UTC) + timedelta(hours=48 + hours)
    await travel.upsert(queue, "s", saturday - timedelta(seconds=1), cron=cron, tz="Europe/Berlin", name="report")
    moment = saturday.astimezone(UTC)
    while moment < monday_night:
        await travel.at("s", moment)
        moment += timedelta(minutes=10)
    days = [datetime.fromtimestamp(slot / 1000, zone).date() for slot in travel.slots()]
    counts = [days.count(saturday.date() + timedelta(days=k)) for k in range(3)]
    assert counts == [hours * 2 if count is None else count for count in per_day]


@pytest.mark.parametrize(
    ("missed", "late_runs", "recorded"),
    [("skip", [], 4), ("once", [4], 3), ("all", [1, 2, 3, 4], 0)],
)
async def test_what_becomes_of_slots_that_nobody_fired(
    queue: Queue, travel: Travel, missed: Any, late_runs: list[int], recorded: int
) -> None:
    """R55: nobody was there for four slots; the fifth one is on time."""
    noon = datetime(2026, 6, 1, 12, tzinfo=UTC)
    await travel.upsert(queue, "s", noon, every=60, name="report", grace=5, missed=missed)
    await travel.at("s", noon + timedelta(minutes=4, seconds=20))
    assert travel.slots() == [ms(noon + timedelta(minutes=k)) for k in late_runs]
    await travel.at("s", noon + timedelta(minutes=5))
    assert travel.slots()[len(late_runs) :] == [ms(noon + timedelta(minutes=5))]
    assert (await known(queue, "s")).missed == recorded


async def test_a_day_without_workers_is_made_good_a_hundred_slots_at_a_time_the_oldest_first(
    queue: Queue, travel: Travel
) -> None:
    noon = datetime(2026, 6, 1, 12, tzinfo=UTC)
    await travel.upsert(queue, "s", noon, every=300, name="report", missed="all")
    for _ in range(4):
        await travel.at("s", noon + timedelta(days=1))
    assert travel.slots() == [ms(noon + timedelta(minutes=5 * k)) for k in range(1, 289)]

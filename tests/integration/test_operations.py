"""Operations on single jobs, beside real workers."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from streamq import InvalidInput, JobFailed, JobNotFound, Priority, Queue, Unrecoverable, WrongState
from streamq.errors import JobCancelled, PayloadTooLarge, UnencodableData
from tests.integration.conftest import PATIENCE, Bench


async def echoes(job: Any) -> Any:
    return job.data


async def test_a_promoted_job_runs_now(queue: Queue, bench: Bench) -> None:
    job = await queue.add("a", "soon", delay=3_600)
    async with bench.worker(echoes):
        await queue.promote(job.id)
        assert await job.result(PATIENCE) == "soon"
    with pytest.raises(WrongState, match=f"cannot promote job {job.id}: it is completed"):
        await queue.promote(job.id)


async def test_a_rescheduled_job_runs_at_its_new_time(queue: Queue, bench: Bench) -> None:
    later, sooner = await queue.add("a", 1, delay=3_600), await queue.add("a", 2, delay=3_600)
    when = datetime.now(UTC) + timedelta(days=1)
    await queue.reschedule(later.id, run_at=when)
    found = await later.snapshot()
    assert found is not None
    assert found.run_at is not None
    assert abs(found.run_at - when) < timedelta(milliseconds=2)
    async with bench.worker(echoes):
        await queue.reschedule(sooner.id, delay=timedelta(milliseconds=20))
        assert await sooner.result(PATIENCE) == 2
        await queue.reschedule(later.id, delay=0)
        assert await later.result(PATIENCE) == 1


@pytest.mark.parametrize(
    "when",
    [
        {},
        {"delay": 1, "run_at": datetime.now(UTC)},
        {"delay": -1},
        {"run_at": datetime(2030, 1, 1)},
        {"run_at": "tomorrow"},
    ],
)
async def test_a_time_that_makes_no_sense_is_refused(queue: Queue, when: dict[str, Any]) -> None:
    job = await queue.add("a", delay=3_600)
    with pytest.raises(InvalidInput):
        await queue.reschedule(job.id, **when)


async def test_a_job_of_another_priority_runs_in_its_new_turn(queue: Queue, bench: Bench) -> None:
    ran: list[Any] = []

    async def run(job: Any) -> None:
        ran.append(job.data)

    jobs = [await queue.add("a", n) for n in range(4)]
    await queue.change_priority(jobs[0].id, Priority.LOW)
    await queue.change_priority(jobs[3].id, Priority.CRITICAL)
    await queue.change_priority(jobs[1].id, Priority.NORMAL)
    found = await jobs[3].snapshot()
    assert found is not None
    assert found.priority == Priority.CRITICAL
    async with bench.worker(run, concurrency=1):
        await jobs[0].result(PATIENCE)
    assert ran == [3, 1, 2, 0]
    with pytest.raises(InvalidInput):
        await queue.change_priority(jobs[0].id, 7)  # type: ignore[arg-type]


async def test_updated_data_is_what_the_handler_gets_and_the_options_stay(queue: Queue, bench: Bench) -> None:
    waiting = await queue.add("a", {"month": 10}, tags=("t",), headers={"tenant": "north"})
    delayed = await queue.add("a", 1, delay=3_600)
    await queue.update_data(waiting.id, {"month": 11})
    await queue.update_data(delayed.id, [1, 2])
    await queue.promote(delayed.id)

    async def run(job: Any) -> Any:
        return [job.data, list(job.tags), dict(job.headers)]

    async with bench.worker(run):
        assert await waiting.result(PATIENCE) == [{"month": 11}, ["t"], {"tenant": "north"}]
        assert await delayed.result(PATIENCE) == [[1, 2], [], {}]
    with pytest.raises(WrongState, match=f"cannot update the data of job {waiting.id}: it is completed"):
        await queue.update_data(waiting.id, 1)


async def test_a_failed_jobs_data_can_be_mended_before_it_is_retried(queue: Queue, bench: Bench) -> None:
    async def divides(job: Any) -> float:
        return 100 / job.data

    job = await queue.add("a", 0, attempts=1)
    async with bench.worker(divides):
        with pytest.raises(JobFailed):
            await job.result(PATIENCE)
        await queue.update_data(job.id, 4)
        await queue.retry(job.id)
        assert await job.result(PATIENCE) == 25


async def test_data_that_does_not_fit_changes_nothing(queue: Queue) -> None:
    job = await queue.add("a", 1)
    with pytest.raises(UnencodableData):
        await queue.update_data(job.id, {1, 2})
    with pytest.raises(PayloadTooLarge):
        await queue.update_data(job.id, b"x" * 2_000_000)
    found = await job.snapshot()
    assert found is not None
    assert found.data == 1


async def test_of_many_updates_at_once_each_is_applied_and_the_job_exists_once(queue: Queue) -> None:
    job = await queue.add("a", 0)
    await asyncio.gather(*(queue.update_data(job.id, n) for n in range(1, 9)))
    found = await job.snapshot()
    assert found is not None
    assert found.data in range(1, 9)
    assert (await queue.stats()).waiting == 1


@pytest.mark.parametrize("job_id", ["nobody", "17"])
async def test_an_unknown_job_is_not_found(queue: Queue, job_id: str) -> None:
    for call in (
        queue.promote(job_id),
        queue.reschedule(job_id, delay=1),
        queue.change_priority(job_id, Priority.LOW),
        queue.update_data(job_id, 1),
        queue.retry(job_id),
    ):
        with pytest.raises(JobNotFound):
            await call
    assert not await queue.remove(job_id)


# Removing -------------------------------------------------------------------------------------------------------------


class Gate:
    """A handler that stands still until it is let go."""

    def __init__(self) -> None:
        self.started, self.go_on, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.runs = 0

    async def run(self, job: Any) -> Any:
        if job.name == "other":
            return job.data
        self.runs += 1
        self.started.set()
        try:
            await self.go_on.wait()
            await job.progress(99)
            await job.log("almost done")
            if job.name == "raises":
                raise Unrecoverable("no")
            if job.name == "retries":
                raise ValueError("again")
            return "result"
        finally:
            self.ended.set()


def keys_of(client: Any, job_id: str) -> list[str]:
    kinds = ("job", "log", "follow")
    return [kind for kind in kinds if client.exists(f"sq:{{q}}:{kind}:{job_id}")]


@pytest.mark.parametrize("own_id", [None, "mine"])
@pytest.mark.parametrize("name", ["returns", "raises", "retries"])
async def test_a_job_removed_while_it_runs_is_gone_for_good(
    queue: Queue, bench: Bench, client: Any, name: str, own_id: str | None
) -> None:
    """Incident R79."""
    gate, errors = Gate(), []
    async with bench.worker(gate.run, on_error=errors.append) as worker:
        job = await queue.add(name, job_id=own_id)
        await gate.started.wait()
        with pytest.raises(WrongState, match=r"cannot remove job .*: it is active"):
            await queue.remove(job.id)
        waiter = asyncio.create_task(job.result(PATIENCE))
        await bench.happened("active", job.id)
        assert await queue.remove(job.id, force=True)
        with pytest.raises((JobCancelled, JobNotFound)):
            await waiter
        gate.go_on.set()
        await gate.ended.wait()
        assert await (await queue.add("other", "next")).result(PATIENCE) == "next"
    assert (gate.runs, worker.stale_outcomes, errors) == (1, 1, [])
    assert await job.snapshot() is None
    assert keys_of(client, job.id) == []
    stats = await queue.stats()
    assert (stats.waiting, stats.active, stats.delayed, stats.failed, stats.dead, stats.completed) == (0, 0, 0, 0, 0, 1)


@pytest.mark.parametrize("name", ["returns", "raises"])
async def test_a_job_may_remove_itself(queue: Queue, bench: Bench, client: Any, name: str) -> None:
    """Incident R79."""

    async def run(job: Any) -> Any:
        if job.name == "other":
            return "next"
        await queue.remove(job.id, force=True)
        if job.name == "raises":
            raise ValueError("and then this")
        return "result"

    async with bench.worker(run):
        job = await queue.add(name)
        await bench.happened("removed", job.id)
        assert await (await queue.add("other")).result(PATIENCE) == "next"
    assert await job.snapshot() is None
    assert keys_of(client, job.id) == []
    assert (await queue.stats()).total == 1


async def test_jobs_removed_from_a_dead_workers_hands_never_run_and_lost_entries_do_no_harm(
    queue: Queue, bench: Bench, client: Any
) -> None:
    """Incidents R27 and R79 (removed before its worker is swept). Entries deleted behind our back vanish."""
    jobs = [await queue.add("a", n) for n in range(10)]
    client.xgroup_create("sq:{q}:lane:3", "w", "0")
    client.xreadgroup("w", "dead", {"sq:{q}:lane:3": ">"})
    client.zadd("sq:{q}:workers", {"dead": 0})
    for job in jobs[:5]:
        assert await queue.remove(job.id, force=True)
    for job in jobs[5:7]:
        client.xdel("sq:{q}:lane:3", f"{job.id}-0")
    ran: list[int] = []

    async def run(job: Any) -> None:
        ran.append(job.data)

    async with bench.worker(run):
        for job in jobs[7:]:
            await job.result(PATIENCE)
    assert sorted(ran) == [7, 8, 9]
    assert client.xpending("sq:{q}:lane:3", "w")["pending"] == 0
    assert [await job.snapshot() for job in jobs[:7]] == [None] * 7
    stats = await queue.stats()
    assert (stats.waiting, stats.active, stats.completed) == (0, 0, 3)


async def test_removing_an_unknown_id_does_not_touch_a_later_job_of_that_id(queue: Queue, bench: Bench) -> None:
    """Incident R80, in its form for removal."""
    async with bench.worker(echoes):
        for _ in range(2):
            assert not await queue.remove("X")
            assert not await queue.remove("X", force=True)
            job = await queue.add("a", "ran", job_id="X")
            assert await job.result(PATIENCE) == "ran"
            assert await queue.remove("X")

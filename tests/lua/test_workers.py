"""workers: tells who serves the queue, and what each one holds."""

from __future__ import annotations

from streamq._engine.pages import HeldJob
from tests.lua.conftest import Bench, done, envelope, envelope_of_size, retry


async def test_a_queue_that_nobody_serves_has_none(bench: Bench) -> None:
    page = await bench.store.workers(10, 10)
    assert (page.total, page.workers) == (0, [])
    assert bench.dump() == {}


async def test_each_worker_is_told_with_its_lease_and_its_jobs_the_longest_lease_first(bench: Bench) -> None:
    await bench.add("", lane=1, body=envelope("urgent"))
    await bench.add("mine", lane=3, body=envelope("normal"))
    await bench.tick("bob", lease_ms=30_000)
    await bench.tick("ann", 2, lease_ms=60_000)
    before = bench.dump()
    page = await bench.store.workers(10, 10)
    assert bench.dump() == before
    ann, bob = page.workers
    assert (page.total, ann.worker, bob.worker) == (2, "ann", "bob")
    assert 30_000 < ann.lease_ms <= 60_000
    assert 0 < bob.lease_ms <= 30_000
    assert (ann.held, bob.held) == ({1: 1, 2: 0, 3: 1, 4: 0}, {1: 0, 2: 0, 3: 0, 4: 0})
    assert [(job.job_id, job.lane, job.name) for job in ann.jobs] == [("1", 1, "urgent"), ("mine", 3, "normal")]
    assert all(0 <= job.idle_ms < 60_000 for job in ann.jobs)
    assert bob.jobs == []


async def test_only_as_many_workers_and_jobs_are_told_as_were_asked_for_and_all_are_counted(bench: Bench) -> None:
    await bench.add(count=3, lane=2)
    await bench.add(count=4, lane=4)
    await bench.tick("ann", 7)
    await bench.tick("bob", lease_ms=1_000)
    page = await bench.store.workers(1, 5)
    (ann,) = page.workers
    assert page.total == 2
    assert ann.held == {1: 0, 2: 3, 3: 0, 4: 4}
    assert [(job.job_id, job.lane) for job in ann.jobs] == [("1", 2), ("2", 2), ("3", 2), ("4", 4), ("5", 4)]
    assert (await bench.store.workers(1, 0)).workers[0].jobs == []


async def test_a_job_with_a_record_is_told_by_its_own_id_and_name(bench: Bench) -> None:
    claim = await bench.claimed(body=envelope("again", "x" * 500))
    await bench.tick(outcomes=[retry(claim)])
    await bench.claim()
    (worker,) = (await bench.store.workers(1, 10)).workers
    assert [(job.job_id, job.name) for job in worker.jobs] == [(claim.job_id, "again")]


async def test_a_job_that_has_ended_is_not_told_any_more(bench: Bench) -> None:
    claim = await bench.claimed()
    await bench.tick(outcomes=[done(claim)])
    (worker,) = (await bench.store.workers(1, 10)).workers
    assert (sum(worker.held.values()), worker.jobs) == (0, [])


async def test_a_worker_whose_lease_has_lapsed_is_told_with_no_time_left(bench: Bench) -> None:
    await bench.claimed()
    bench.lapse()
    (worker,) = (await bench.store.workers(1, 10)).workers
    assert (worker.lease_ms, worker.held[3], len(worker.jobs)) == (0, 1, 1)


async def test_a_job_that_cannot_be_read_has_no_name(bench: Bench) -> None:
    await bench.claimed(body=envelope_of_size(50))
    (worker,) = (await bench.store.workers(1, 10)).workers
    assert [(job.job_id, job.name) for job in worker.jobs] == [("1", "")]


async def test_names_are_left_out_once_some_megabytes_were_read(bench: Bench) -> None:
    await bench.add(count=8, body=envelope("large", "x" * 1_000_000))
    await bench.claim(want=8)
    (worker,) = (await bench.store.workers(1, 10)).workers
    assert [job.name for job in worker.jobs] == ["large"] * 5 + [""] * 3
    assert isinstance(worker.jobs[0], HeldJob)


async def test_an_entry_that_was_deleted_behind_our_back_does_no_harm(bench: Bench) -> None:
    bench.sabotaged = True
    claim = await bench.claimed()
    bench.redis.xdel(bench.key("lane:3"), claim.entry)
    (worker,) = (await bench.store.workers(1, 10)).workers
    assert [(job.job_id, job.name) for job in worker.jobs] == [("1", "")]

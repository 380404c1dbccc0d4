"""Dead letters: looked at, made jobs again, deleted, told of."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamq import DeadLetter, InvalidInput, JobState, Priority, Queue, QueueFull, Retention, Settings
from tests.integration.conftest import PATIENCE, Bench

NONE = Retention(0)


async def fails(job: Any) -> None:
    raise (KeyError if job.name == "keys" else ValueError)(job.data)


async def die(queue: Queue, bench: Bench, *names: str, **options: Any) -> list[str]:
    """Have jobs fail for good, one after the other; returns their ids."""
    ids = []
    async with bench.worker(fails):
        for n, name in enumerate(names):
            job = await queue.add(name, n, attempts=1, **options)
            ids.append(job.id)
            await bench.happened("dead", job.id)
    return ids


async def test_a_letter_tells_of_the_job_and_its_error(queue: Queue, bench: Bench) -> None:
    (job_id,) = await die(queue, bench, "keys", priority=Priority.HIGH)
    (letter,) = await queue.dead_letters()
    assert (letter.job_id, letter.queue, letter.name, letter.data, letter.priority, letter.is_kept) == (
        job_id, "q", "keys", 0, Priority.HIGH, True,
    )  # fmt: skip
    assert (letter.error.type, letter.error.message) == ("KeyError", "0")
    job = await queue.get_job(job_id)
    assert job is not None
    assert letter.failed_at is not None
    assert job.finished_at is not None
    assert abs((letter.failed_at - job.finished_at).total_seconds()) < 0.1


async def test_letters_come_in_pages_from_either_end(queue: Queue, bench: Bench) -> None:
    ids = await die(queue, bench, *["a"] * 5)
    page = await queue.dead_letters(count=2)
    seen = list(page)
    while page.next:
        page = await queue.dead_letters(page.next, count=2)
        seen += page
    assert [letter.job_id for letter in seen] == ids
    newest = await queue.dead_letters(count=3, newest_first=True)
    assert [letter.job_id for letter in newest] == ids[:1:-1]
    older = await queue.dead_letters(newest.next, newest_first=True)
    assert [letter.job_id for letter in older] == ids[1::-1]


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("own_id", [None, "mine"])
async def test_a_redriven_job_runs_under_its_id_and_counts_anew(
    queue: Queue, bench: Bench, own_id: str | None, kept: bool
) -> None:
    (job_id,) = await die(queue, bench, "a", job_id=own_id, keep_failed=Retention(10) if kept else NONE)
    (letter,) = await queue.dead_letters()
    assert letter.is_kept is kept
    assert (await queue.redrive(letter)).job_ids == [job_id]
    async with bench.worker(lambda job: [job.data, job.attempt]):
        assert await queue.result(job_id, PATIENCE) == [0, 1]
    stats = await queue.stats()
    assert (stats.dead, stats.failed, stats.completed) == (0, 0, 1)


async def test_letters_are_picked_by_name_and_error(queue: Queue, bench: Bench, shards: int | None) -> None:
    ids = await die(queue, bench, "a", "keys", "a", "keys")
    assert (await queue.redrive(name="a", error_type="KeyError")).job_ids == []
    keys = (await queue.redrive(error_type="KeyError")).job_ids
    others = (await queue.redrive(everything=True)).job_ids
    if shards is None:
        assert (keys, others) == ([ids[1], ids[3]], [ids[0], ids[2]])
    else:  # they come shard by shard
        assert (sorted(keys), sorted(others)) == (sorted([ids[1], ids[3]]), sorted([ids[0], ids[2]]))


async def test_nothing_is_redriven_or_purged_by_mistake(queue: Queue) -> None:
    for call in (
        queue.redrive(), queue.purge_dead(), queue.redrive("1-0", everything=True), queue.redrive("17"),
        queue.purge_dead("1-0", name="a"),
    ):  # fmt: skip
        with pytest.raises(InvalidInput):
            await call


async def test_a_letter_whose_id_has_been_taken_stays(queue: Queue, bench: Bench) -> None:
    await die(queue, bench, "a", job_id="mine", keep_failed=NONE)
    await queue.add("b", job_id="mine")
    redriven = await queue.redrive(everything=True)
    assert (redriven.job_ids, redriven.stayed) == ([], 1)
    assert (await queue.stats()).dead == 1


async def test_jobs_can_be_redriven_to_another_queue(queue: Queue, bench: Bench, settings: Settings) -> None:
    ids = await die(queue, bench, "a", "keys", priority=Priority.LOW, tags=("t",))
    own = await die(queue, bench, "a", job_id="mine")
    async with Queue("second", settings=settings) as second:
        await second.add("other", job_id="q:taken")
        told: list[int] = []
        redriven = await queue.redrive(name="a", to=second, on_progress=lambda done, total: told.append(done))
        assert (redriven.job_ids, redriven.stayed, told) == ([f"q:{ids[0]}", *own], 0, [1, 2])
        found = await second.get_job(f"q:{ids[0]}")
        assert found is not None
        assert (found.name, found.data, found.priority, found.tags) == ("a", 0, Priority.LOW, ("t",))
        assert [letter.name for letter in await queue.dead_letters()] == ["keys"]
        (letter,) = await queue.dead_letters()
        await second.set_max_size(1)
        with pytest.raises(QueueFull):
            await queue.redrive(letter, to=second)
        assert await queue.dead_letters() == [letter]
        await second.set_max_size(None)
        assert (await queue.redrive(letter.id, to=second)).job_ids == [f"q:{ids[1]}"]
    assert await queue.dead_letters() == []


async def test_purged_letters_are_gone_and_the_failed_jobs_stay(queue: Queue, bench: Bench) -> None:
    ids = await die(queue, bench, "a", "keys", "a")
    (first, *_) = await queue.dead_letters()
    assert await queue.purge_dead(first) == 1
    assert await queue.purge_dead(name="keys") == 1
    assert await queue.purge_dead(everything=True) == 1
    assert await queue.dead_letters() == []
    assert [job.id for job in await queue.jobs(JobState.FAILED)] == ids


async def test_a_handler_is_told_of_each_new_letter_in_order(queue: Queue, bench: Bench) -> None:
    await die(queue, bench, "before")
    told: list[DeadLetter] = []
    enough = asyncio.Event()

    async def handler(letter: DeadLetter) -> None:
        told.append(letter)
        if len(told) == 3:
            enough.set()
        raise RuntimeError("a handler that fails is told of the next one all the same")

    watch = await queue.on_dead(handler)
    ids = await die(queue, bench, "a", "keys", "a", keep_failed=NONE)
    async with asyncio.timeout(PATIENCE):
        await enough.wait()
    assert [(letter.job_id, letter.is_kept) for letter in told] == [(job_id, False) for job_id in ids]
    await watch.stop()


async def test_a_plain_handler_can_begin_behind_an_old_letter(queue: Queue, bench: Bench) -> None:
    ids = await die(queue, bench, "a", "a", "a")
    (first, *_) = await queue.dead_letters()
    told: asyncio.Queue[str] = asyncio.Queue()
    await queue.on_dead(lambda letter: told.put_nowait(letter.job_id), after=first.id)
    async with asyncio.timeout(PATIENCE):
        assert [await told.get(), await told.get()] == ids[1:]


async def test_a_job_fails_and_is_retried_by_whoever_watches(queue: Queue, bench: Bench) -> None:
    """What a watcher is for: mend the cause, then send the job round again."""
    broken = True

    async def run(job: Any) -> str:
        if broken:
            raise ValueError("the service is down")
        return "sent"

    async def mends(letter: DeadLetter) -> None:
        nonlocal broken
        broken = False
        await queue.redrive(letter)

    await queue.on_dead(mends)
    async with bench.worker(run):
        job = await queue.add("a", attempts=1)
        await bench.happened("failed", job.id)
        await bench.happened("completed", job.id)
    assert await job.result(PATIENCE) == "sent"

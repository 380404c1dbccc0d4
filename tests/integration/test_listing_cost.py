"""What looking at a queue costs: no scan of keys, whatever else is in the database. The full size is in benchmarks/."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from streamq import JobState, Queue
from tests.integration.conftest import Bench

FOREIGN, WAITING = 20_000, 5_000


def calls(client: redis.Redis) -> dict[str, int]:
    found: dict[str, Any] = client.info("commandstats")  # type: ignore[assignment]
    return {name.removeprefix("cmdstat_").split("|")[0]: figures["calls"] for name, figures in found.items()}


@pytest.fixture
async def furnished(queue: Queue, client: redis.Redis, bench: Bench) -> Queue:
    """Jobs in every state, beside many keys of somebody else."""
    for start in range(0, FOREIGN, 5_000):
        client.mset({f"foreign:{n}": n for n in range(start, start + 5_000)})

    async def run(job: Any) -> None:
        if job.data % 2:
            raise ValueError("odd")

    async with bench.worker(run):
        jobs = await queue.add_many([("a", n) for n in range(40)])
        for n, job in enumerate(jobs):
            await bench.happened("retrying" if n % 2 else "completed", job.id)
    await queue.add_many([("a" if n % 100 else "rare", n) for n in range(WAITING)])
    return queue


async def test_no_look_at_a_queue_scans_keys(furnished: Queue, client: redis.Redis) -> None:
    """Incident R99."""
    client.config_resetstat()
    await furnished.stats()
    for state in JobState:
        for newest_first in (False, True):
            page = await furnished.jobs(state, newest_first=newest_first)
            if page.next:
                await furnished.jobs(state, page.next, newest_first=newest_first)
        for job in page[:3]:
            await furnished.get_job(job.id)
            await furnished.logs(job.id)
    assert len(await furnished.jobs(JobState.WAITING, name="rare")) == WAITING // 100
    await furnished.dead_letters()
    await furnished.clean(state=JobState.COMPLETED)
    await furnished.retry_many()
    await furnished.drain(delayed=True)
    await furnished.obliterate()
    counted = calls(client)
    assert counted["evalsha"] > 10
    assert not {"keys", "scan", "hscan", "sscan", "zscan"} & set(counted)


async def test_a_page_reads_no_more_than_it_tells(furnished: Queue, client: redis.Redis) -> None:
    client.config_resetstat()
    page = await furnished.jobs(JobState.WAITING, count=10)
    assert len(page) == 10
    assert calls(client)["xrange"] <= 4
    assert calls(client).get("hgetall", 0) <= 11

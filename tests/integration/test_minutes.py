"""What a queue says of its last minutes, after real workers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import redis

from streamq import Queue, Unrecoverable
from streamq.errors import InvalidInput
from streamq.minutes import Minute
from tests.integration.conftest import Bench


async def test_minutes_tell_what_ended_in_each_and_what_was_left(
    queue: Queue, bench: Bench, client: redis.Redis
) -> None:
    async def run(job: object) -> None:
        if job.name == "fails":  # type: ignore[attr-defined]
            raise Unrecoverable("no")

    assert await queue.minutes() == []
    await queue.add("later", delay=600)
    async with bench.worker(run):
        for name in ("works", "works", "fails"):
            job = await queue.add(name)
            await bench.happened("failed" if name == "fails" else "completed", job.id)
        meta = "sq:{q}:meta"
        then = int(client.hget(meta, "minute")) - 3
        client.hset(meta, "minute", then)
        await queue.result((await queue.add("works")).id, timeout=30)
        closed, running = await queue.minutes(600)
    at = datetime.fromtimestamp(then * 60, UTC)
    assert closed.at == at
    assert closed.failed == 1
    assert closed.delayed == 1
    assert closed.completed + running.completed == 3
    assert (running.held, running.delayed) == (None, None)
    assert running.at > at


async def test_minutes_before_the_span_are_left_out(queue: Queue, bench: Bench, client: redis.Redis) -> None:
    client.xadd("sq:{q}:minutes", dict.fromkeys("cfrswd", 1), id="1790000000000-0")
    assert await queue.minutes(86_400) == []
    second = client.time()[0] - 3_000
    client.xadd("sq:{q}:minutes", dict.fromkeys("cfrswd", 7), id=f"{second}000-0")
    at = datetime.fromtimestamp(second, UTC)
    assert await queue.minutes(3_600) == [Minute(at=at, completed=7, failed=7, retried=7, stalled=7, held=7, delayed=7)]


@pytest.mark.parametrize("over", [0, 59, 86_401, "1h"])
async def test_a_span_that_makes_no_sense_is_refused(queue: Queue, over: object) -> None:
    with pytest.raises(InvalidInput, match="over"):
        await queue.minutes(over)  # type: ignore[arg-type]

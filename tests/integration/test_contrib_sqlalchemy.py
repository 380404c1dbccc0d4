"""The outbox, on SQLite and PostgreSQL: rows become jobs if their transaction commits, and each becomes one."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import MetaData, create_engine, func, select, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from streamq import ActiveJob, Backoff, InvalidInput, JobOptions, JobState, Priority, Queue, Retention, Settings, Unique
from streamq.contrib.sqlalchemy import Outbox, Relay
from streamq.testing import drain, time_travel
from tests.integration.processors.conftest import postgres, postgres_url
from tests.servers import RedisServer

__all__ = ["postgres", "postgres_url"]
ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0

metadata = MetaData()
outbox = Outbox(metadata)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/shop.db"
    return str(request.getfixturevalue("postgres_url")).replace("postgresql:", "postgresql+asyncpg:")


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    yield engine
    await engine.dispose()


@pytest.fixture
async def relay(engine: AsyncEngine, redis_url: str) -> AsyncIterator[Relay]:
    relay = Relay(outbox, engine, redis_url)
    yield relay
    await relay.close()


async def write(engine: AsyncEngine, count: int, queue: str = "q", **options: Any) -> None:
    async with engine.begin() as connection:
        for number in range(count):
            await connection.execute(outbox.job(queue, "note", {"n": number}, **options))


async def added(queue: Queue, count: int) -> None:
    """Wait until so many jobs have been added to the queue."""
    async with asyncio.timeout(PATIENCE), aclosing(queue.events(after="0-0")) as events:
        async for event in events:
            count -= event.kind == "added"
            if not count:
                return


async def rows(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return int((await connection.execute(select(func.count()).select_from(outbox.table))).scalar_one())


async def test_a_job_is_added_if_the_transaction_commits(engine: AsyncEngine, relay: Relay, queue: Queue) -> None:
    async with AsyncSession(engine) as session, session.begin():
        await session.execute(outbox.job("q", "note", {"n": 1}))
        assert (await queue.stats()).total == 0
    async with AsyncSession(engine) as session:
        await session.execute(outbox.job("q", "note", {"n": 2}))
        await session.rollback()
    assert await relay.relay() == 1
    [job] = await queue.jobs(JobState.WAITING)
    assert (job.name, job.data) == ("note", {"n": 1})
    assert job.id.startswith("outbox-")
    assert await rows(engine) == await relay.relay() == 0


def test_a_synchronous_session_writes_the_same_rows(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/shop.db")
    metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        session.execute(outbox.job("q", "note", 5))
        assert session.execute(select(outbox.table.c.queue)).scalars().all() == ["q"]
    engine.dispose()


async def test_data_and_options_arrive_as_they_were_given(engine: AsyncEngine, relay: Relay, queue: Queue) -> None:
    class Order(msgspec.Struct):
        number: int
        total: Decimal

    options: dict[str, Any] = {
        "priority": Priority.CRITICAL, "attempts": 7, "backoff": Backoff.fixed(3), "tags": ("a", "b"),
        "headers": {"tenant": "t1"}, "keep_completed": Retention(count=3, age=60), "job_id": "order-5",
    }  # fmt: skip
    at = datetime(2040, 1, 2, tzinfo=UTC)
    async with engine.begin() as connection:
        await connection.execute(outbox.job("q", "confirm", Order(2**60, Decimal("1.50")), **options))
        await connection.execute(outbox.job("q", "later", [1], run_at=at, unique=Unique("x")))
    await relay.relay()
    job = await queue.get_job("order-5")
    assert job is not None
    assert (job.name, job.data) == ("confirm", {"number": 2**60, "total": "1.50"})
    assert (job.priority, job.tags, job.headers) == (Priority.CRITICAL, ("a", "b"), {"tenant": "t1"})
    [later] = await queue.jobs(JobState.DELAYED)
    assert (later.run_at, (await queue.add("a", unique=Unique("x"))).is_new) == (at, False)


async def test_jobs_come_in_the_order_of_the_rows_each_in_its_queue(
    engine: AsyncEngine, redis_url: str, queue: Queue
) -> None:
    await write(engine, 30)
    await write(engine, 5, "other")
    small = Relay(outbox, engine, redis_url, batch=7)
    while await small.relay():
        pass
    await small.close()
    assert [job.data["n"] for job in await queue.jobs(JobState.WAITING, count=100)] == list(range(30))
    async with Queue("other", redis_url) as other:
        assert (await other.stats()).waiting == 5


async def test_what_can_not_be_a_job_is_refused_when_it_is_written() -> None:
    with pytest.raises(InvalidInput, match="data would not come back as it was given"):
        outbox.job("q", "note", {1, 2})
    with pytest.raises(InvalidInput, match="queue name must not contain braces"):
        outbox.job("{q}", "note")
    with pytest.raises(InvalidInput, match="attempts must be between 1 and 1,000"):
        outbox.job("q", "note", attempts=0)
    with pytest.raises(InvalidInput, match="unknown option 'colour'"):
        outbox.job("q", "note", colour=5)  # type: ignore[call-arg]
    with pytest.raises(InvalidInput, match=r"takes 1,002 bytes, over the limit of 1,000"):
        Outbox(MetaData(), max_payload=1_000).job("q", "note", "x" * 999)


async def test_a_row_that_can_not_be_a_job_is_set_aside_and_holds_up_no_other(
    engine: AsyncEngine, relay: Relay, queue: Queue
) -> None:
    await write(engine, 3)
    async with engine.begin() as connection:
        first = select(func.min(outbox.table.c.id)).scalar_subquery()
        await connection.execute(update(outbox.table).where(outbox.table.c.id == first).values(data=b"\xc1"))
    assert await relay.relay() == 3
    assert await relay.relay() == 0
    assert (await queue.stats()).waiting == 2
    async with engine.connect() as connection:
        [why] = (await connection.execute(select(outbox.table.c.refused))).scalars()
    assert "MessagePack" in why


async def test_a_row_that_a_shard_refuses_is_set_aside_and_holds_up_no_other(
    engine: AsyncEngine, relay: Relay, redis_url: str
) -> None:
    async with Queue("spread", redis_url, shards=3) as spread:
        await spread.add("note", unique=Unique("taken", on_conflict="raise"))
        await write(engine, 1, "spread", unique=Unique("taken", on_conflict="raise"))
        for key in "abcdefgh":
            await write(engine, 1, "spread", unique=Unique(key, on_conflict="raise"))
        await write(engine, 10, "spread")
        assert await relay.relay() == 19
        assert await relay.relay() == 0
        assert (await spread.stats()).waiting == 19
    async with engine.connect() as connection:
        [why] = (await connection.execute(select(outbox.table.c.refused))).scalars()
    assert "'taken'" in why


async def test_adding_a_row_again_adds_nothing_even_when_its_job_has_ended_and_gone(
    engine: AsyncEngine, redis_url: str, queue: Queue
) -> None:
    class ForgetsToDelete(Relay):
        async def _delete(self, connection: Any, rows: Any) -> None: ...

    ran: list[Any] = []

    async def note(job: ActiveJob[Any]) -> None:
        ran.append(job.data["n"])

    await write(engine, 20, keep_completed=Retention(count=0))
    forgetful = ForgetsToDelete(outbox, engine, redis_url)
    for _ in range(3):
        assert await forgetful.relay() == 20
        await drain(queue, note)
    assert sorted(ran) == list(range(20))
    assert (await queue.stats()).total == 0
    with time_travel() as clock:
        clock.advance(3_600)
        await forgetful.relay()
        assert (await drain(queue, note)).total == 0
    await forgetful.close()


async def test_several_relays_at_once_add_each_row_once(engine: AsyncEngine, redis_url: str, queue: Queue) -> None:
    await write(engine, 300)
    relays = [Relay(outbox, engine, redis_url, batch=20, poll=0.02) for _ in range(4)]
    running = [asyncio.create_task(relay.run()) for relay in relays]
    await added(queue, 300)
    for relay in relays:
        relay.stop()
    await asyncio.gather(*running)
    jobs = await queue.jobs(JobState.WAITING, count=1_000)
    assert sorted(job.data["n"] for job in jobs) == list(range(300))


RELAY = """
import asyncio, os, signal, sys
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine
from streamq.contrib.sqlalchemy import Outbox, Relay

class Dies(Relay):
    async def _delete(self, connection, rows):
        if sys.argv[3] == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        await super()._delete(connection, rows)
        if sys.argv[3] == "after":
            os.kill(os.getpid(), signal.SIGKILL)

async def main():
    relay = Dies(Outbox(MetaData()), create_async_engine(sys.argv[1]), sys.argv[2], batch=10)
    while await relay.relay():
        pass
    await relay.close()

asyncio.run(main())
"""


async def test_a_relay_that_is_killed_between_adding_and_deleting_adds_nothing_twice(
    engine: AsyncEngine, database_url: str, redis_url: str, queue: Queue
) -> None:
    ran: list[Any] = []

    async def note(job: ActiveJob[Any]) -> None:
        ran.append(job.data["n"])

    await write(engine, 30, keep_completed=Retention(count=0))
    for when in ("before", "after", "before", "never"):
        relay = await asyncio.create_subprocess_exec(
            sys.executable, "-c", RELAY, database_url, redis_url, when, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        assert await asyncio.wait_for(relay.wait(), PATIENCE) == (0 if when == "never" else -signal.SIGKILL)
        await drain(queue, note)  # so that the jobs have ended, with nothing kept, before the next relay comes
    assert sorted(ran) == list(range(30))
    assert await rows(engine) == 0


async def test_an_outage_of_redis_is_told_and_waited_out(engine: AsyncEngine, server: RedisServer) -> None:
    told = asyncio.Event()
    settings = Settings(redis_url=server.url, timeout=0.5)
    relay = Relay(outbox, engine, server.url, poll=0.05, settings=settings, on_error=lambda error: told.set())
    server.stop()
    await write(engine, 5)
    running = asyncio.create_task(relay.run())
    await asyncio.wait_for(told.wait(), PATIENCE)
    assert await rows(engine) == 5
    await asyncio.to_thread(server.start)
    async with Queue("q", server.url) as queue:
        await added(queue, 5)
    relay.stop()
    await running
    assert await rows(engine) == 0


async def test_wake_relays_at_once(engine: AsyncEngine, redis_url: str, queue: Queue) -> None:
    relay = Relay(outbox, engine, redis_url, poll=3_600)
    running = asyncio.create_task(relay.run())
    await asyncio.sleep(0)
    await write(engine, 1)
    relay.wake()
    await added(queue, 1)
    relay.stop()
    await running


def test_options_survive_the_table() -> None:
    options = JobOptions(delay=5, timeout=3, expires_in=9, priority=Priority.LOW)
    statement = outbox.job("q", "a", delay=5, timeout=3, expires_in=9, priority=Priority.LOW)
    body = statement.compile().params["options"]
    assert msgspec.msgpack.decode(body, type=JobOptions) == options

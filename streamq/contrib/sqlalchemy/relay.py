"""Carries the rows of an outbox into their queues.

Its life: it reads rows and locks them, adds their jobs, deletes the rows, and commits; then again, or it waits until
somebody calls `wake` or a second has passed. Any number may run: on PostgreSQL (and MySQL) each skips what others have
locked; elsewhere two may add the same rows, to no effect.

Why a job is added once: its unique key in the queue derives from the row and is held for a day, however soon the job
ends and its record goes. A relay that dies between the add and the commit leaves the row, and whoever adds that again
finds the key taken.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import Row, delete, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from streamq._engine import codec
from streamq.contrib.sqlalchemy.outbox import PREFIX, Outbox
from streamq.errors import DuplicateJob, InvalidInput, PartlyAdded, StoreError
from streamq.job import JobOptions
from streamq.observer import NOBODY, ErrorHandler, Observer, careful
from streamq.policy import Seconds, seconds, whole
from streamq.queue import Queue
from streamq.settings import Settings
from streamq.unique import Unique

if TYPE_CHECKING:
    from redis.asyncio import Redis, RedisCluster

log = logging.getLogger("streamq.outbox")

READ = ("id", "key", "queue", "name", "data", "options")
WRONG = (InvalidInput, DuplicateJob, ValueError)
"""What a row that can't become a job raises, msgspec's DecodeError included: no other try would go better."""
REMEMBERED = 86_400.0
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
"""Seconds between tries while the database or Redis is away: from, up to."""


class Relay:
    """Relays one outbox. `redis`, `settings` and `observer` are those of its queues.

    `batch` rows go in one transaction; `poll` is how long new rows may go unnoticed. `remembered` is for how long a
    row that was added is known as such: longer than any relay may be gone. `on_error` is told of outages, which are
    logged all the same and waited out.
    """

    def __init__(
        self,
        outbox: Outbox,
        engine: AsyncEngine,
        redis: str | Redis | RedisCluster | None = None,
        *,
        batch: int = 500,
        poll: Seconds = 1.0,
        remembered: Seconds = REMEMBERED,
        settings: Settings | None = None,
        observer: Observer = NOBODY,
        on_error: ErrorHandler | None = None,
    ) -> None:
        self._table, self._engine, self._redis = outbox.table, engine, redis
        self._batch = whole("batch", batch, low=1, high=100_000)
        self._poll = seconds("poll", poll, low=0.01)
        self._remembered = seconds("remembered", remembered, low=1)
        self._settings, self._observer = settings or Settings.from_env(), observer
        self._on_error = careful(on_error)
        self._queues: dict[str, Queue] = {}
        self._more, self._stopping = asyncio.Event(), False

    def wake(self) -> None:
        """Look for rows now; call it after a commit, in the process and on the event loop of the relay."""
        self._more.set()

    def stop(self) -> None:
        """Let `run` return after the batch that is under way."""
        self._stopping = True
        self._more.set()

    async def run(self) -> None:
        """Relay until `stop`; waits through outages of the database and of Redis."""
        pause = FIRST_PAUSE
        try:
            while not self._stopping:
                self._more.clear()
                wait = self._poll
                try:
                    if await self.relay():
                        wait = 0.0
                    pause = FIRST_PAUSE
                except (SQLAlchemyError, StoreError, OSError) as error:
                    log.warning("the outbox must wait %.1f s: %s", pause, type(error).__name__)
                    self._on_error(error)
                    wait, pause = pause, min(pause * 2, LONGEST_PAUSE)
                if wait:
                    try:
                        await asyncio.wait_for(self._more.wait(), wait)
                    except TimeoutError:
                        continue
        finally:
            await self.close()

    async def relay(self) -> int:
        """Relay one batch; return how many rows are done with.

        Raises:
            SQLAlchemyError, StoreError: Some jobs may have been added; their rows are still there, and adding them
                again adds nothing.
        """
        table = self._table
        waiting = (
            select(*(table.c[name] for name in READ))
            .where(table.c.refused.is_(None))
            .order_by(table.c.id)
            .limit(self._batch)
            .with_for_update(skip_locked=True)
        )
        async with self._engine.begin() as connection:
            rows = (await connection.execute(waiting)).all()
            by_queue: dict[str, list[Row[Any]]] = {}
            for row in rows:
                by_queue.setdefault(row.queue, []).append(row)
            for queue, found in by_queue.items():
                await self._relay(connection, queue, found)
        return len(rows)

    async def _relay(self, connection: AsyncConnection, queue: str, rows: Sequence[Row[Any]]) -> None:
        added, refused = await self._add(self._queue(queue), rows)
        await self._delete(connection, added)
        for row, why in refused:
            log.error("row %d of the outbox can't become a job of queue %s: %s", row.id, queue, why)
            await connection.execute(update(self._table).where(self._table.c.id == row.id).values(refused=why[:1_000]))

    async def _add(self, queue: Queue, rows: Sequence[Row[Any]]) -> tuple[list[Row[Any]], list[tuple[Row[Any], str]]]:
        there: Sequence[str | None] = [None] * len(rows)
        try:
            await queue.add_many([self._spec(row) for row in rows])
            return list(rows), []
        except PartlyAdded as error:
            there = error.job_ids
        except WRONG:
            pass
        # One of them does not fit, at least: those that do go one by one.
        added: list[Row[Any]] = []
        refused: list[tuple[Row[Any], str]] = []
        for row, job_id in zip(rows, there, strict=True):
            if job_id is not None:
                added.append(row)
                continue
            try:
                await queue.add_many([self._spec(row)])
                added.append(row)
            except WRONG as error:
                refused.append((row, str(error)))
        return added, refused

    def _spec(self, row: Row[Any]) -> tuple[str, Any, JobOptions]:
        options = msgspec.msgpack.decode(row.options, type=JobOptions)
        said: dict[str, Any] = {}
        if options.job_id is None:
            said["job_id"] = f"{PREFIX}{row.key}"
        if options.unique is None:
            said["unique"] = Unique(f"{PREFIX}{row.key}", while_="retained", ttl=self._remembered)
        return row.name, codec.decode(row.data), msgspec.structs.replace(options, **said)

    async def _delete(self, connection: AsyncConnection, rows: Sequence[Row[Any]]) -> None:
        """The jobs are in Redis: their rows have done their work."""
        await connection.execute(delete(self._table).where(self._table.c.id.in_([row.id for row in rows])))

    def _queue(self, name: str) -> Queue:
        if name not in self._queues:
            self._queues[name] = Queue(
                name, self._redis, shards="stored", settings=self._settings, observer=self._observer
            )
        return self._queues[name]

    async def close(self) -> None:
        """Close the connections to Redis; the engine is the caller's."""
        queues = list(self._queues.values())
        self._queues.clear()
        await asyncio.gather(*(queue.close() for queue in queues))

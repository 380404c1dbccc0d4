"""A queue, and workers beside it, on a real server. Tests wait for events and results, never for time to pass."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest
import redis

from streamq import Queue, Settings, Worker
from streamq.events import Event
from streamq.observer import Observer

PATIENCE = 30.0
"""Seconds after which a wait for something that must happen is a failure."""


@pytest.fixture
def settings(redis_url: str) -> Settings:
    """Settings with short waits."""
    return Settings(redis_url=redis_url, lease=2.0, retry_delay=0.01, grace=10.0)


ON_SHARDS_TOO = frozenset(
    f"test_{what}"
    for what in (
        *("bulk", "cancel", "dead_letters", "log_lines", "logs", "middleware", "minutes", "on_error", "operations"),
        *("overview", "steps", "timeouts", "unique"),
    )
)
"""Modules whose tests run on a queue without shards, and on one with them: it is the same to its callers."""
ON_ONE_QUEUE = frozenset([])
"""Of these, the tests of an order over the whole queue, of its own keys, or of the numbers that it gives out."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests of some modules twice."""
    if "shards" in metafunc.fixturenames and metafunc.module.__name__.rpartition(".")[2] in ON_SHARDS_TOO:
        plain_only = metafunc.function.__name__ in ON_ONE_QUEUE
        metafunc.parametrize("shards", [None] if plain_only else [None, 3], indirect=True, ids=_shards_id)


def _shards_id(shards: int | None) -> str:
    return f"{shards} shards" if shards else "plain"


@pytest.fixture
def shards(request: pytest.FixtureRequest) -> int | None:
    """Over how many shards the queue is spread."""
    return getattr(request, "param", None)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A plain client, to look behind the scenes."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


class Calls(Observer):
    """Counts the transitions that have been answered."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._more = asyncio.Event()

    def transition(self, queue: str, name: str, seconds: float, error: BaseException | None) -> None:
        self.names.append(name)
        self._more.set()

    async def answered(self, name: str, times: int = 1) -> None:
        """Wait until transition `name` has been answered so often."""
        async with asyncio.timeout(PATIENCE):
            while self.names.count(name) < times:
                self._more.clear()
                await self._more.wait()


@pytest.fixture
def calls() -> Calls:
    """The transitions that `queue` has had answered."""
    return Calls()


@pytest.fixture
async def queue(settings: Settings, calls: Calls, shards: int | None) -> AsyncIterator[Queue]:
    """An empty queue."""
    async with Queue("q", settings=settings, observer=calls, shards=shards) as queue:
        yield queue


class Bench:
    """A queue with workers of its own."""

    def __init__(self, queue: Queue, settings: Settings, shards: int | None = None) -> None:
        self.queue, self.settings, self.shards = queue, settings, shards

    def worker(self, processors: Any, **options: Any) -> Worker:
        """Make a worker of the queue; `async with` starts and stops it."""
        return Worker(self.queue.name, processors, **{"settings": self.settings, "shards": self.shards, **options})

    async def happened(self, kind: str, job_id: str = "", *, times: int = 1) -> Event:
        """Wait until this event has happened `times` times since the queue was made."""
        async with asyncio.timeout(PATIENCE), aclosing(self.queue.events(after="0-0")) as events:
            async for event in events:
                if (event.kind, event.job_id) == (kind, job_id):
                    times -= 1
                    if not times:
                        return event
        raise AssertionError("events ended")

    async def history(self, job_id: str, until: str) -> list[str]:
        """Wait for a job's event `until` and return the kinds of all its events up to it."""
        kinds: list[str] = []
        async with asyncio.timeout(PATIENCE), aclosing(self.queue.events(after="0-0")) as events:
            async for event in events:
                if event.job_id == job_id:
                    kinds.append(event.kind)
                    if event.kind == until:
                        break
        return kinds


@pytest.fixture
def bench(queue: Queue, settings: Settings, shards: int | None) -> Bench:
    """The queue, and how to make workers of it."""
    return Bench(queue, settings, shards)

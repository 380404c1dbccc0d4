"""The pytest plugin: fixtures that give tests a server, queues and a clock; see `streamq.testing`.

pytest imports this module in every run of everybody who has streamq installed. So it stands beside the package and
imports nothing of it, nor anything else that is not there already, until a test asks for a fixture.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from streamq import Queue
    from streamq.testing import Clock

NAMED = "STREAMQ_TEST_REDIS_URL"
"""Names a server for tests, which empty it; else one is started."""


@pytest.fixture(scope="session")
def streamq_server() -> Iterator[str]:
    """The URL of a server for this test run: one of its own, or that of `STREAMQ_TEST_REDIS_URL`, never `REDIS_URL`."""
    from streamq.testing import server

    named = os.environ.get(NAMED)
    if not named:
        with server() as url:
            yield url
    elif os.environ.get("PYTEST_XDIST_WORKER"):
        raise pytest.UsageError(f"{NAMED} names one server, and several processes would empty it: unset it, or drop -n")
    else:
        yield named


@pytest.fixture
def streamq_url(streamq_server: str) -> str:
    """The URL of the server, emptied for this test."""
    from redis import Redis

    with Redis.from_url(streamq_server) as client:
        client.flushdb()
    return streamq_server


@pytest.fixture
def streamq_env(streamq_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """As `streamq_url`, which is `REDIS_URL` too while the test runs: for code that takes it from the environment."""
    monkeypatch.setenv("REDIS_URL", streamq_url)
    return streamq_url


@pytest.fixture
def streamq_clock() -> Iterator[Clock]:
    """The clock that this test's queues and workers go by: `streamq_clock.advance(3600)`."""
    from streamq.testing import time_travel

    with time_travel() as clock:
        yield clock


async def streamq_queues(streamq_url: str) -> AsyncIterator[Callable[[str], Queue]]:
    """Make queues by name, on the emptied server: `streamq_queues("emails")`. They are closed after the test."""
    from streamq import Queue

    made: dict[str, Queue] = {}

    def queue(name: str) -> Queue:
        if name not in made:
            made[name] = Queue(name, redis=streamq_url)
        return made[name]

    yield queue
    for one in made.values():
        await one.close()


async def streamq_queue(streamq_queues: Callable[[str], Queue]) -> AsyncIterator[Queue]:
    """A queue called `test`, on the emptied server."""
    yield streamq_queues("test")


def pytest_configure(config: pytest.Config) -> None:
    """Make async functions fixtures of pytest-asyncio where that runs, and else plain ones, which anyio runs."""
    fixture: Any = pytest.fixture
    if config.pluginmanager.hasplugin("asyncio"):
        from pytest_asyncio import fixture
    fixtures: Any = ModuleType("streamq_pytest_async")
    fixtures.streamq_queues, fixtures.streamq_queue = fixture(streamq_queues), fixture(streamq_queue)
    config.pluginmanager.register(fixtures, "streamq_async")

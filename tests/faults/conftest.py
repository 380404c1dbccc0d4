"""What every fault test stands on: a proxy before a server that may be killed, workers, a ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis

from tests.faults.ledger import Ledger
from tests.faults.proxy import FaultProxy
from tests.faults.scene import Scene
from tests.faults.workers import Fleet
from tests.servers import RedisServer


@pytest.fixture
def direct(server: RedisServer) -> Iterator[redis.Redis]:
    """A plain client that goes to the server itself, whatever the proxy does."""
    with redis.Redis.from_url(server.url, socket_timeout=10) as client:
        yield client


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[FaultProxy]:
    """A fault proxy before the server."""
    assert server.port is not None
    with FaultProxy(("127.0.0.1", server.port)) as proxy:
        yield proxy


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """The test's ledger."""
    ledger = Ledger(tmp_path / "ledger")
    yield ledger
    ledger.close()


@pytest.fixture
def fleet(server: RedisServer, proxy: FaultProxy, ledger: Ledger, tmp_path: Path) -> Iterator[Fleet]:
    """The test's worker processes; none may have died unasked, nor left a failed task unseen.

    Asks for the proxy so that it ends before the proxy does.
    """
    fleet = Fleet(server.url, ledger, tmp_path)
    yield fleet
    complaints = fleet.complaints()
    fleet.stop()
    assert not complaints, "\n".join(complaints)


@pytest.fixture
async def scene(server: RedisServer, direct: redis.Redis, ledger: Ledger, fleet: Fleet) -> AsyncIterator[Scene]:
    """The stage of a fault test."""
    scene = Scene(server, direct, ledger, fleet)
    yield scene
    await scene.close()

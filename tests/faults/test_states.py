"""Every state of a server in which it refuses or is away: what a producer hears, what a worker does, what comes after.

The table below is the one in docs/reliability.md; a test compares them.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import redis

from streamq import ActiveJob, Queue, Settings, Worker
from streamq.errors import StoreError
from tests.faults.figures import publish
from tests.faults.scene import KEEP_ALL, scaled
from tests.faults.workers import eventually, stays
from tests.servers import RedisServer

TIMEOUT, LEASE = 1.0, 3.0
LASTS = scaled(1.5, 6.0)
RECOVERED_IN = 5.0
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"

WAITS = "StoreRefused after the timeout, nothing added"
SETTLES_LATER = "keeps the outcome, settles it afterwards"


class Row(NamedTuple):
    """What a state does to an `add` made meanwhile and to a job that ends meanwhile."""

    add: str
    worker: str


TABLE = {
    "LOADING": Row(WAITS, SETTLES_LATER),
    "BUSY": Row(WAITS, SETTLES_LATER),
    "READONLY": Row(WAITS, SETTLES_LATER),
    "NOREPLICAS": Row(WAITS, SETTLES_LATER),
    "OOM": Row("StoreRefused at once, nothing added", "settles, and goes on with what waits"),
    "NOSCRIPT": Row("accepted", "settles, and goes on with what waits"),
    "killed": Row("StoreUnavailable after the timeout", SETTLES_LATER),
    "stopped": Row("StoreUnavailable after the timeout", SETTLES_LATER),
}


@asynccontextmanager
async def loading(server: RedisServer) -> AsyncIterator[None]:
    """Load a data set whose keys take their time."""
    with redis.Redis.from_url(server.unix_url) as client:
        client.mset({f"ballast:{n}": "x" * 100 for n in range(1_000)})
        client.bgrewriteaof()
        await eventually(lambda: not client.info("persistence")["aof_rewrite_in_progress"], 10)
    server.kill()
    slow = [
        "--key-load-delay",
        str(round((LASTS + 3 * TIMEOUT) * 1_000)),
        "--loading-process-events-interval-bytes",
        "1024",
    ]
    server._command += slow
    starting = asyncio.create_task(asyncio.to_thread(server.start))
    await eventually(lambda: says(server, "LOADING"), 10, "the server loads")
    yield
    await starting
    del server._command[-len(slow) :]


@asynccontextmanager
async def busy(server: RedisServer) -> AsyncIterator[None]:
    """Run a script that does not end."""
    server.call("CONFIG", "SET", "lua-time-limit", 50)

    def spin() -> None:
        with contextlib.suppress(redis.ResponseError), patient(server) as client:
            client.eval("while true do end", 0)

    spinning = threading.Thread(target=spin, daemon=True)
    spinning.start()
    await eventually(lambda: says(server, "BUSY"), 10, "the server is busy")
    yield
    server.call("SCRIPT", "KILL")
    spinning.join(10)


def patient(server: RedisServer) -> redis.Redis:
    """Return a client that waits for an answer however long it takes."""
    return redis.Redis.from_url(server.unix_url, socket_timeout=None)


@asynccontextmanager
async def readonly(server: RedisServer) -> AsyncIterator[None]:
    """Make it the replica of a server that is not there."""
    server.call("REPLICAOF", "127.0.0.1", "1")
    yield
    server.call("REPLICAOF", "NO", "ONE")


@asynccontextmanager
async def no_replicas(server: RedisServer) -> AsyncIterator[None]:
    server.call("CONFIG", "SET", "min-replicas-to-write", 1)
    yield
    server.call("CONFIG", "SET", "min-replicas-to-write", 0)


@asynccontextmanager
async def out_of_memory(server: RedisServer) -> AsyncIterator[None]:
    server.call("CONFIG", "SET", "maxmemory", server.call("INFO", "memory")["used_memory"] // 2)
    yield
    server.call("CONFIG", "SET", "maxmemory", 0)


@asynccontextmanager
async def no_scripts(server: RedisServer) -> AsyncIterator[None]:
    server.call("SCRIPT", "FLUSH")
    yield
    server.call("SCRIPT", "FLUSH")


@asynccontextmanager
async def killed(server: RedisServer) -> AsyncIterator[None]:
    server.kill()
    yield
    server.start()


@asynccontextmanager
async def stopped(server: RedisServer) -> AsyncIterator[None]:
    server.pause()
    yield
    server.cont()


STATES: dict[str, Callable[[RedisServer], AbstractAsyncContextManager[None]]] = {
    "LOADING": loading, "BUSY": busy, "READONLY": readonly, "NOREPLICAS": no_replicas, "OOM": out_of_memory,
    "NOSCRIPT": no_scripts, "killed": killed, "stopped": stopped,
}  # fmt: skip


def says(server: RedisServer, error: str) -> bool:
    """Whether the server refuses a read with this error."""
    try:
        server.call("GET", "nothing")
    except redis.RedisError as refusal:
        return error in f"{type(refusal).__name__} {refusal}".upper()
    return False


@pytest.mark.timeout(120)
@pytest.mark.parametrize("state", STATES)
async def test_producer_and_worker_live_through_a_servers_states(server: RedisServer, state: str) -> None:
    """P1, P2, P9: the outcome is as documented, and all works within five seconds of the end of the state."""
    settings = Settings(redis_url=server.url, timeout=TIMEOUT, lease=LEASE, concurrency=2)
    gates, runs = {"running": asyncio.Event(), "later": asyncio.Event()}, list[str]()

    async def run(job: ActiveJob[str]) -> str:
        runs.append(job.data)
        await gates[job.data].wait()
        return job.data

    async with Queue("q", settings=settings, defaults=KEEP_ALL) as queue, Worker("q", run, settings=settings) as worker:
        running = await queue.add("job", "running")
        await eventually(lambda: runs == ["running"], 5)
        async with STATES[state](server):
            add = await hear_of_an_add(queue)
            gates["running"].set()
            gates["later"].set()
            await stays(lambda: worker.alive, LASTS, "the worker's loop turns")
            ended = await ended_meanwhile(queue, running.id)
        since = time.monotonic()
        async with asyncio.timeout(RECOVERED_IN):
            assert await queue.result(running.id) == "running"
            after = await add_until_accepted(queue)
            assert await queue.result(after) == "later"
            recovered = time.monotonic() - since
            await eventually(lambda: worker.healthy, 5)
        stats = await queue.stats()
    publish(f"server: {state}", None, {state: 1}, {"recovered, s": round(recovered, 2), "add": add, "ended": ended})
    assert Row(add, "settles, and goes on with what waits" if ended else SETTLES_LATER) == TABLE[state]
    assert runs.count("running") == 1
    if "Unavailable" in add:
        assert runs.count("later") in (1, 2)  # nobody knows whether that add arrived
    else:
        assert runs.count("later") == 1 + (add == "accepted")
    assert (stats.waiting, stats.active, stats.completed) == (0, 0, len(runs))


async def hear_of_an_add(queue: Queue) -> str:
    """Say what becomes of an add now."""
    since = time.monotonic()
    try:
        await queue.add("job", "later")
    except StoreError as error:
        took = time.monotonic() - since
        assert took <= TIMEOUT + 1
        when = "after the timeout" if took > TIMEOUT / 2 else "at once"
        refused = "StoreUnavailable" not in type(error).__name__
        return f"StoreRefused {when}, nothing added" if refused else f"StoreUnavailable {when}"
    return "accepted"


async def ended_meanwhile(queue: Queue, job_id: str) -> bool:
    """Whether the job is seen to have ended while the state lasts."""
    try:
        found = await queue.get_job(job_id)
    except StoreError:
        return False
    return found is not None and found.state.ended


async def add_until_accepted(queue: Queue) -> str:
    while True:
        with contextlib.suppress(StoreError):
            return (await queue.add("job", "later")).id


def test_the_documented_table_of_states_is_the_tested_one() -> None:
    rows = [f"| {state} | {row.add} | {row.worker} |" for state, row in TABLE.items()]
    assert TABLE.keys() == STATES.keys()
    assert "\n".join(rows) in DOCUMENT.read_text()

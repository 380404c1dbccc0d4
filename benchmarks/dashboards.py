"""What do a hundred dashboards cost the server?

Seven queues, workers on each, jobs that come and go; then a hundred browsers on the overview of one dashboard, each
with its event stream. The server's CPU time is its own (`INFO cpu`), with and without them in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import statistics
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import uvicorn

from benchmarks import harness
from benchmarks.server import Server
from streamq import Queue, QueueName, Settings, Worker
from streamq.dashboard import create_app

WATCHERS = 100
SECONDS = 10.0
EVERY = 0.05
"""Seconds between two jobs of a queue."""
BAR = 2.0
"""Percent of a core."""


async def _run(job: Any) -> None:
    await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def work(settings: Settings) -> AsyncIterator[None]:
    """Let jobs come and go in all queues."""
    async with contextlib.AsyncExitStack() as stack:
        queues = [await stack.enter_async_context(Queue(name, settings=settings)) for name in QueueName]
        for queue in queues:
            await stack.enter_async_context(Worker(queue.name, _run, settings=settings))

        async def feed() -> None:
            while True:
                await asyncio.gather(*(queue.add("noop", harness.payload()) for queue in queues))
                await asyncio.sleep(EVERY)

        feeding = asyncio.create_task(feed())
        try:
            yield
        finally:
            feeding.cancel()


@contextlib.asynccontextmanager
async def watched(settings: Settings) -> AsyncIterator[None]:
    """Serve a dashboard, and have it watched."""
    app = create_app(list(QueueName), settings=settings)
    place = socket.create_server(("127.0.0.1", 0), backlog=2 * WATCHERS)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=3))
    serving = asyncio.create_task(server._serve([place]))  # which leaves signals alone
    url = f"http://127.0.0.1:{place.getsockname()[1]}/"
    seen: set[int] = set()
    all_seen = asyncio.Event()

    async def watch(session: aiohttp.ClientSession, number: int) -> None:
        async with session.get(url, headers={"accept": "text/event-stream"}) as stream:
            async for _ in stream.content:
                seen.add(number)
                if len(seen) == WATCHERS:
                    all_seen.set()

    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
    ) as session:
        watching = [asyncio.create_task(watch(session, number)) for number in range(WATCHERS)]
        try:
            async with asyncio.timeout(60):
                await all_seen.wait()
            yield
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
            app.hub.close()
            server.should_exit = True
            await serving
            place.close()


async def share(server: Server) -> float:
    """Return the percentage of a core that the server takes for the next seconds."""
    before, since = _cpu(server), time.monotonic()
    await asyncio.sleep(SECONDS)
    return 100 * (_cpu(server) - before) / (time.monotonic() - since)


def _cpu(server: Server) -> float:
    told = server.client.info("cpu")
    return float(told["used_cpu_user"] + told["used_cpu_sys"])


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Answer the question."""
    verdicts = harness.Verdicts(__doc__.split("\n")[0])
    with Server(options.binary) as server:
        settings = Settings(redis_url=server.url)
        alone, beside = [], []
        async with work(settings):
            for _ in range(options.reps):
                alone.append(await share(server))
                async with watched(settings):
                    beside.append(await share(server))
        more = statistics.median(with_them - without for with_them, without in zip(beside, alone, strict=True))
        verdicts.add("the server's CPU, nobody watches", statistics.median(alone), "%")
        verdicts.add(f"the same, {WATCHERS} browsers watch seven queues", statistics.median(beside), "%")
        verdicts.add("what they add", more, "%", most=BAR, of="value")
        return verdicts.report(server.version)


if __name__ == "__main__":
    parser = harness.parser(__doc__)
    parser.set_defaults(reps=3)
    harness.main(measure, parser.parse_args())

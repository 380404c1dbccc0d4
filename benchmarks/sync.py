"""How fast do 32 threads add jobs through `streamq.sync`?

Beside XADD by redis-py's synchronous client, from as many threads: one command a call, and in pipelines of 100. What
streamq adds is encoded and checked on the way, and is in Redis when `add` returns.
"""

from __future__ import annotations

import argparse
import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

from redis import Redis

from benchmarks import harness
from benchmarks.server import Server
from streamq.sync import Queue


def rate(threads: int, calls: int, jobs_each: int, call: Callable[[], object]) -> float:
    """Return the jobs per second of `calls` calls, spread over threads that start together."""
    start = threading.Barrier(threads + 1)

    def work() -> None:
        start.wait()
        for _ in range(calls // threads):
            call()

    running = [threading.Thread(target=work) for _ in range(threads)]
    for thread in running:
        thread.start()
    start.wait()
    began = time.perf_counter()
    for thread in running:
        thread.join()
    return calls // threads * threads * jobs_each / (time.perf_counter() - began)


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Answer the question."""
    verdicts = harness.Verdicts(__doc__.split("\n")[0])
    threads, calls = options.threads, options.calls
    data, body = harness.payload(options.size), harness.body(options.size)
    with Server(options.binary) as server, Redis.from_url(server.url) as client:
        queue = await asyncio.to_thread(Queue, harness.QUEUE, server.url)

        def add_100() -> None:
            queue.add_many([("noop", data)] * 100)

        def pipeline_100() -> None:
            pipeline = client.pipeline(transaction=False)
            for _ in range(100):
                pipeline.xadd("raw", {"d": body})
            pipeline.execute()

        async def cleared(*what: Any) -> float:
            found = await asyncio.to_thread(rate, *what)
            server.empty()
            return found

        found = await harness.interleave(
            options.reps,
            {
                "raw": lambda: cleared(threads, calls, 1, lambda: client.xadd("raw", {"d": body})),
                "add": lambda: cleared(threads, calls, 1, lambda: queue.add("noop", data)),
                "raw bulk": lambda: cleared(threads, calls // 20, 100, pipeline_100),
                "bulk": lambda: cleared(threads, calls // 20, 100, add_100),
                "alone": lambda: cleared(1, calls // 10, 1, lambda: queue.add("noop", data)),
                "raw alone": lambda: cleared(1, calls // 10, 1, lambda: client.xadd("raw", {"d": body})),
            },
        )
        await asyncio.to_thread(queue.close)
    verdicts.rates(f"add by {threads} threads, beside XADD", found["add"], found["raw"], least=0.5)
    verdicts.rates(
        f"add_many of 100 by {threads} threads, beside pipelines of 100 XADDs",
        found["bulk"],
        found["raw bulk"],
        least=0.6,
    )
    verdicts.rates("add by one thread, beside XADD", found["alone"], found["raw alone"], least=0.2)
    return verdicts.report(server.version)


if __name__ == "__main__":
    parser = harness.parser(__doc__)
    parser.add_argument("--threads", type=int, default=32)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=harness.PAYLOAD, help="bytes of the payload")
    harness.main(measure, parser.parse_args())

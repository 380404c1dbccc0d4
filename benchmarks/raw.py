"""What redis-py alone does, with no job bookkeeping at all: the yardstick of every figure here.

The producers are functions; the consumers are processes (`python -m benchmarks.raw drain URL JOBS`), as workers are.
redis-py is used as its documentation says for speed: asyncio, hiredis, uvloop, pipelines without transactions, RESP2.
"""

from __future__ import annotations

import json
import struct
import sys
import time
from typing import Any

import redis.asyncio as redis
import uvloop

from benchmarks.tally import Tally

STREAM, GROUP = "raw", "g"
READY = "raw:ready"


def connect(url: str) -> redis.Redis:
    """Return a client that waits as long as it takes."""
    return redis.from_url(url, protocol=2, socket_timeout=None)


async def xadd_each(client: redis.Redis, body: bytes, jobs: int) -> float:
    """Add `jobs` entries one by one; return the entries per second."""
    start = time.perf_counter()
    for _ in range(jobs):
        await client.xadd(STREAM, {"d": body})
    return jobs / (time.perf_counter() - start)


async def xadd_pipelined(client: redis.Redis, body: bytes, jobs: int, batch: int = 100) -> float:
    """Add `jobs` entries in pipelines of `batch`; return the entries per second."""
    start = time.perf_counter()
    for at in range(0, jobs, batch):
        pipe = client.pipeline(transaction=False)
        for _ in range(min(batch, jobs - at)):
            pipe.xadd(STREAM, {"d": body})
        await pipe.execute()
    return jobs / (time.perf_counter() - start)


async def fill(url: str, body: bytes, jobs: int) -> None:
    """Make a group with `jobs` waiting entries."""
    async with connect(url) as client:
        await client.delete(STREAM, READY)
        await client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
        await xadd_pipelined(client, body, jobs)


def _entries(reply: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    return reply[0][1] if reply else []


async def drain(url: str, jobs: int) -> dict[str, float]:
    """Take and delete `jobs` entries, 100 a turn."""
    async with connect(url) as client:
        await client.ping()
        left, start, cpu = jobs, time.perf_counter(), time.process_time()
        while left:
            ids = [entry for entry, _ in _entries(await client.xreadgroup(GROUP, "c", {STREAM: ">"}, count=100))]
            pipe = client.pipeline(transaction=False)
            pipe.xack(STREAM, GROUP, *ids)
            pipe.xdel(STREAM, *ids)
            await pipe.execute()
            left -= len(ids)
        return {"rate": jobs / (time.perf_counter() - start), "cpu_us": (time.process_time() - cpu) / jobs * 1e6}


async def consume(url: str) -> None:
    """Wait for entries that carry a monotonic time, report their age, delete them; until killed."""
    tally = Tally()
    async with connect(url) as client:
        await client.set(READY, "1")
        while True:
            found = _entries(await client.xreadgroup(GROUP, "c", {STREAM: ">"}, count=100, block=0))
            now = time.monotonic()
            ids = []
            for entry, fields in found:
                tally.sample(now - struct.unpack_from("<d", fields[b"d"])[0])
                ids.append(entry)
            pipe = client.pipeline(transaction=False)
            pipe.xack(STREAM, GROUP, *ids)
            pipe.xdel(STREAM, *ids)
            await pipe.execute()


async def _main(what: str, url: str, *numbers: str) -> None:
    if what == "drain":
        print(json.dumps(await drain(url, int(numbers[0]))))
    elif what == "consume":
        await consume(url)
    else:
        raise SystemExit(f"raw: {what!r} is neither drain nor consume")


if __name__ == "__main__":
    uvloop.run(_main(*sys.argv[1:]))

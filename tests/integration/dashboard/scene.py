"""A busy bank to look at: 100,000 jobs that wait, 20 workers at work, failures, schedules. Run as a process of its own.

Prints `ready` when all of it is there, and keeps the workers going until it is ended.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
from contextlib import AsyncExitStack, aclosing
from typing import Any

import redis

from streamq import FlowJob, Priority, Queue, RateLimit, Settings, Unrecoverable, Worker
from streamq.job import JobOptions

BUSY, CALM, KEYED = "reports", "emails", "integrations"
WAITING, WORKERS, EACH = 100_000, 20, 2


async def run(job: Any) -> Any:
    """Hold a job for good, fail it, or complete it, as its name says."""
    if job.name == "generate-monthly-report":
        await job.progress(40)
        await asyncio.Event().wait()
    await job.log(f"sending to {job.data['to']}")
    if job.name == "send-reminder":
        raise Unrecoverable(f"550 mailbox unavailable: <{job.data['to']}>")
    return {"message_id": f"<{job.id}@bank.example>"}


async def happened(queue: Queue, count: int, *kinds: str) -> None:
    """Wait until so many events of these kinds have happened since the queue was made."""
    async with aclosing(queue.events(after="0-0")) as events:
        async for event in events:
            count -= event.kind in kinds
            if count <= 0:
                return


async def fill_calm(queue: Queue, settings: Settings) -> None:
    """Mail: some delivered, some failed, some delayed, some that wait; nobody at work on it."""
    mails = [("send-statement", {"to": f"customer{n}@example.com"}) for n in range(12)]
    fails = [("send-reminder", {"to": f"gone{n}@example.com"}, JobOptions(tags=("dunning",))) for n in range(12)]
    jobs = await queue.add_many([*mails, *fails])
    async with Worker(queue.name, run, concurrency=5, settings=settings):
        await happened(queue, len(jobs), "completed", "failed")
    for n in range(4):
        await queue.add("send-newsletter", {"to": f"reader{n}@example.com"}, delay=3_600 + n)
    await queue.add_many([("send-statement", {"to": f"next{n}@example.com"}) for n in range(5)])
    await queue.upsert_schedule(
        "newsletter", cron="0 8 * * 1", tz="Europe/Berlin", name="send-newsletter", data={"to": "all"}
    )
    await queue.upsert_schedule("bounces", every=300, name="collect-bounces")


async def fill_keyed(queue: Queue) -> None:
    """Work for tenants, some of whom have settings of their own; nobody at work on it."""
    await queue.limit_key(concurrency=4)
    await queue.limit_key("tenant-7", concurrency=1)
    await queue.limit_key("tenant-42", rate=RateLimit(10, per=60))
    await queue.limit_key("big-customer", weight=3)
    await queue.pause_key("tenant-13")
    parts = [
        FlowJob("sync", {"part": part}, job_id=f"sync-{part}", children=[FlowJob("fetch", job_id=f"fetch-{part}")])
        for part in ("accounts", "cards", "loans")
    ]
    await queue.add_flow(FlowJob("reconcile", {"month": "2026-11"}, job_id="reconcile-2026-11", children=parts))
    counts = {"big-customer": 900, "tenant-7": 120, "tenant-42": 80, "tenant-13": 25}
    counts |= {f"tenant-{n}": 100 - n for n in range(43, 98)}
    await queue.add_many(
        [("sync", {"page": n}, JobOptions(key=key)) for key, count in counts.items() for n in range(count)]
    )


def draw_past(client: redis.Redis, queue: str, height: int) -> None:
    """Write down a day of minutes, as ticks would have."""
    now = client.time()[0] // 60
    for minute in range(now - 1_435, now - 1):
        wave = 1 + math.sin(minute / 97) + math.sin(minute / 13) / 4
        counts = {"c": int(height * max(wave, 0)), "f": minute % 7 == 0, "r": minute % 5, "s": 0}
        fields = {**{k: int(v) for k, v in counts.items()}, "w": int(height * 9 * max(2 - wave, 0)), "d": 4}
        client.xadd(f"sq:{{{queue}}}:minutes", fields, id=f"{minute * 60_000}-0")


async def main(url: str) -> None:
    """Set the scene, and stay."""
    settings = Settings(redis_url=url, lease=10.0)
    async with AsyncExitStack() as stack:
        queues = [Queue(name, settings=settings) for name in (BUSY, CALM, KEYED)]
        busy, calm, keyed = [await stack.enter_async_context(queue) for queue in queues]
        with redis.Redis.from_url(url) as client:
            draw_past(client, BUSY, 400)
            draw_past(client, CALM, 30)
        await fill_calm(calm, settings)
        await fill_keyed(keyed)
        critical = JobOptions(priority=Priority.CRITICAL)
        report = "generate-monthly-report"
        await busy.add_many([(report, {"month": "2026-10", "customer": n}, critical) for n in range(WORKERS * EACH)])
        for _ in range(WORKERS):
            worker = Worker(BUSY, run, concurrency=EACH, settings=settings)
            await stack.enter_async_context(worker)
        await happened(busy, WORKERS * EACH, "active")
        await busy.add_many([(report, {"month": "2026-11", "customer": n}) for n in range(WAITING)])
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    asyncio.run(main(sys.argv[1]))

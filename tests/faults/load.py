"""A load that never runs dry: keeps so many jobs waiting until the block ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, cast

from streamq import JobOptions, Queue, Settings
from tests.faults.scene import KEEP, Scene
from tests.faults.state import LANES, counts_of
from tests.faults.storm import MANY
from tests.faults.workers import WorkerProcess, eventually

MakeJobs = Callable[[int], Iterable[tuple[str, Any]]]
"""Makes so many jobs: names and data."""


@asynccontextmanager
async def steady(scene: Scene, make: MakeJobs, *, waiting: int = 60, **options: Any) -> AsyncIterator[None]:
    """Add jobs with `options` whenever fewer than `waiting` wait; all events are kept."""
    defaults = JobOptions(keep_completed=KEEP, keep_failed=KEEP, **options)
    settings = Settings(redis_url=scene.server.url, events_cap=int(MANY))
    async with Queue(scene.name, settings=settings, defaults=defaults) as queue:

        async def feed() -> None:
            while not over.is_set():
                counts = counts_of(scene.direct, scene.name)
                short = waiting - (counts["in_lanes"] - counts["pending"])
                if short > 0:
                    await scene.add_many(make(short), via=queue)
                await asyncio.sleep(0.05)

        over = asyncio.Event()
        feeding = asyncio.create_task(feed())
        try:
            yield
        finally:
            over.set()  # not cancelled: what is on its way has to be noted
            await feeding


def held_by(scene: Scene, worker: WorkerProcess) -> int:
    """Return how many jobs a worker process holds now."""
    held, mark = 0, f"-{worker.pid}-".encode()
    for lane in LANES:
        if scene.direct.exists(f"{scene.base}:lane:{lane}"):
            consumers = cast("list[dict[str, Any]]", scene.direct.xinfo_consumers(f"{scene.base}:lane:{lane}", "w"))
            held += sum(one["pending"] for one in consumers if mark in one["name"])
    return held


async def busy(scene: Scene, worker: WorkerProcess, least: int = 1) -> int:
    """Wait until a worker process holds so many jobs; return how many it holds."""
    await eventually(lambda: held_by(scene, worker) >= least, 15, f"{worker.name} holds {least} jobs")
    return held_by(scene, worker)

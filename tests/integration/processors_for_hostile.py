"""A processor that takes whatever a producer sends, and writes and raises what it was sent."""

from __future__ import annotations

from typing import Any

from streamq import ActiveJob, Processors

processors = Processors()


@processors.register("*", queue="m", attempts=1)
async def anything(job: ActiveJob[Any]) -> None:
    job.logger.warning("%s says %s", job.name, job.data)
    await job.log(job.data)
    if job.name.startswith("fails"):
        raise ValueError(job.data)

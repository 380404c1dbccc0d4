"""Flows for the tests of transitions: laid out as `Queue.add_flow` does, without a queue."""

from __future__ import annotations

from typing import Any

from streamq import FlowJob, Settings
from streamq._engine import codec
from streamq._engine.flowing import lay_out, new_token
from streamq._engine.transitions import Added, Claim, NewJob, Outcome, added
from streamq.flow import ordered
from streamq.operations import new_job
from streamq.policy import Retention
from tests.lua.conftest import DAY_MS, Bench, done, envelope


def encoded(job: FlowJob) -> NewJob:
    """A job as the queue encodes it."""
    options = job.options
    if options is None:
        return NewJob(3, "0", "", envelope(job.name, job.data))
    return new_job(job.name, codec.encode_data("data", job.data, 1_000), options)


def laid_out(flow: FlowJob, queue: str = "q", token: str | None = None, **settings: Any) -> list[NewJob]:
    """A flow's jobs as `add` takes them. Those with children need ids of their own here."""
    jobs = ordered(flow)
    new = {job: encoded(job) for job in jobs}
    ids = {job: new[job].job_id for job in jobs}
    assert all(ids[job] for job in jobs if job.children)
    return lay_out(queue, jobs, new, ids, token or new_token(), Settings(**settings))


async def add_flow(bench: Bench, flow: FlowJob, **settings: Any) -> list[Added]:
    """Add a flow in one call."""
    jobs = laid_out(flow, **settings)
    return added(jobs, await bench.add_raw(*jobs))


def job(job_id: str, *children: FlowJob, **options: Any) -> FlowJob:
    """A job of this id, and name."""
    return FlowJob(job_id, children=children, job_id=job_id, **options)


async def claims(bench: Bench, want: int = 100) -> dict[str, Claim]:
    """Claim all that waits, by id."""
    return {claim.job_id: claim for claim in await bench.claim(want=want)}


async def complete(bench: Bench, *job_ids: str, keep: int = 100, result: bytes = b"\x07") -> None:
    """Claim all that waits, and complete these."""
    held = await claims(bench)
    await bench.tick(outcomes=[done(held[job_id], result, keep=keep) for job_id in job_ids])


def wait(claim: Claim, batch: str, parts: int, children: int) -> Outcome:
    """The outcome of an attempt that has staged children."""
    keeping = f"{100}:{DAY_MS}:{100}:{DAY_MS}:10000"
    return Outcome(
        "wait", claim.lane, claim.entry, claim.recorded_id, f"{batch} {keeping}".encode(), children, parts, 0,
        claim.attempts_made,
    )  # fmt: skip


NOT_KEPT = Retention(count=0)

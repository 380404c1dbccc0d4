"""What the tests of unique keys share: jobs that have one, and who holds it."""

from __future__ import annotations

from typing import Any

from streamq._engine.transitions import Added, Claim, NewJob, added, bound_start
from tests.lua.conftest import Bench, envelope


def unique_job(
    conflict: str = "e", mode: str = "r", *, key: str = "k", ttl: int | None = None, start: str = "0",
    data: Any = None, job_id: str = "", lane: int = 3, tenant: str | None = None,
) -> NewJob:  # fmt: skip
    """A job with a unique key; `conflict`, `mode` and `ttl` as in lua/lib/unique.lua. `tenant`: its other key."""
    unique: dict[str, Any] = {"k": key, "w": mode, "c": conflict}
    if ttl is not None:
        unique["t"] = ttl
    bonds = {"u": unique} if tenant is None else {"u": unique, "k": tenant}
    return NewJob(lane, bound_start(start, bonds), job_id, envelope(data=data))


async def add(bench: Bench, *jobs: NewJob) -> list[Added]:
    """Add jobs, and say what became of each."""
    return added(jobs, await bench.add_raw(*jobs))


async def add_one(bench: Bench, *args: Any, **about: Any) -> str:
    """Add a job that must be new; returns its id."""
    ((job_id, is_new, *_),) = await add(bench, unique_job(*args, **about))
    assert is_new
    return job_id


async def running(bench: Bench, *args: Any, **about: Any) -> Claim:
    """Add a job that must be new, and claim it."""
    job_id = await add_one(bench, *args, **about)
    (claim,) = await bench.claim()
    assert claim.job_id == job_id
    return claim


def holder(bench: Bench, key: str = "k") -> str | None:
    """Who holds a key."""
    found = bench.redis.get(bench.key(f"unique:{key}"))
    return None if found is None else found.decode()


def next_one(bench: Bench, key: str = "k") -> str | None:
    """Who gets a key after its holder."""
    found = bench.redis.get(bench.key(f"next:{key}"))
    return None if found is None else found.decode()

"""remove: taken out by hand, in whatever way and from whatever state, a job releases its unique key. Incident R92."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from streamq._engine.pages import Step
from tests.lua.conftest import Bench, done, fail, retry
from tests.lua.unique import add, add_one, holder, next_one, running, unique_job

HOUR_MS = 3_600_000


async def remove(bench: Bench, state: str) -> None:
    assert await bench.store.remove("1", force=state == "active") == "removed"


async def clean(bench: Bench, state: str) -> None:
    assert (await bench.store.clean(state, -1_000, Step(), 10, last=True)).ids == ["1"]


async def drain(bench: Bench, state: str) -> None:
    step = Step()
    while not step.done:
        step = await bench.store.drain(True, step, 10)


async def obliterate(bench: Bench, state: str) -> None:
    assert (await bench.store.obliterate(True, 10))[0] == "done"


async def cancel(bench: Bench, state: str) -> None:
    if state == "active":
        assert await bench.store.cancel("1", "no longer needed") == "asked"
        bench.lapse()  # its worker can't be asked any more
        await bench.tick("bob")
    else:
        assert await bench.store.cancel("1", "no longer needed") == "cancelled"
    assert await bench.store.get("1") is not None


async def cancel_many(bench: Bench, state: str) -> None:
    assert (await bench.store.cancel_many(state, Step(), 10, b"", "no longer needed")).ids == ["1"]


WAYS: list[tuple[Callable[[Bench, str], Awaitable[None]], str]] = [
    *[(remove, state) for state in ("waiting", "delayed", "active", "completed", "failed")],
    *[(clean, state) for state in ("waiting", "delayed", "completed", "failed")],
    *[(drain, state) for state in ("waiting", "delayed")],
    *[(cancel, state) for state in ("waiting", "delayed", "active")],
    *[(cancel_many, state) for state in ("waiting", "delayed")],
    *[(obliterate, state) for state in ("waiting", "delayed", "active", "completed", "failed")],
]


@pytest.mark.parametrize("mode", ["p", "r", "k"])
@pytest.mark.parametrize(("way", "state"), WAYS, ids=[f"{way.__name__}-{state}" for way, state in WAYS])
async def test_a_job_that_is_taken_out_releases_its_key_at_once_r92(
    bench: Bench, way: Any, state: str, mode: str
) -> None:
    if state in ("waiting", "delayed"):
        await add_one(bench, "x", mode, ttl=HOUR_MS, start="0" if state == "waiting" else "+60000")
    else:
        claim = await running(bench, "x", mode, ttl=HOUR_MS)
        if state != "active":
            await bench.tick(outcomes=[(done if state == "completed" else fail)(claim)])
    await way(bench, state)
    assert holder(bench) is None
    assert (await add(bench, unique_job("x", mode, ttl=HOUR_MS)))[0].is_new


async def test_a_job_that_no_longer_holds_its_key_leaves_it_to_who_does(bench: Bench) -> None:
    claim = await running(bench)
    await bench.tick(outcomes=[done(claim)])
    await add_one(bench)
    assert await bench.store.remove("1") == "removed"
    assert holder(bench) == "2"


async def test_the_next_one_gets_the_key_of_a_running_job_that_is_forced_out_and_a_worker_is_woken(
    bench: Bench,
) -> None:
    await running(bench)
    await add(bench, unique_job("l"))
    bench.woken()
    await bench.store.remove("1", force=True)
    assert (holder(bench), next_one(bench)) == ("2", None)
    assert bench.woken()
    assert [claim.job_id for claim in await bench.claim("bob")] == ["2"]


async def test_a_drain_of_all_takes_the_next_one_too(bench: Bench) -> None:
    claim = await running(bench)
    await add(bench, unique_job("l"))
    await bench.tick(outcomes=[done(claim)._replace(kind="return")])
    await drain(bench, "")
    assert (bench.lane(), bench.scores("delayed")) == ([], {})
    assert bench.redis.keys("*:unique:*") + bench.redis.keys("*:next:*") == []


@pytest.mark.parametrize("way", ["clean", "drain"])
async def test_a_holder_that_is_delayed_goes_together_with_the_next_one(bench: Bench, way: str) -> None:
    claim = await running(bench)
    await add(bench, unique_job("l"))
    await bench.tick(outcomes=[retry(claim, HOUR_MS)])
    if way == "drain":
        await drain(bench, "")
    else:
        assert (await bench.store.clean("delayed", -1_000, Step(), 10, last=True)).ids == ["1", "2"]
    assert bench.scores("delayed") == {}
    assert bench.redis.keys("*:unique:*") + bench.redis.keys("*:next:*") == []


async def test_obliterate_takes_holders_and_those_that_are_next(bench: Bench) -> None:
    await running(bench)
    await add(bench, unique_job("l"))
    while (await bench.store.obliterate(True, 1))[0] == "more":
        pass
    assert {key.decode().rpartition(":")[2] for key in bench.redis.scan_iter()} == {"id", "events", "n"}

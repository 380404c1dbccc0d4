"""Adds and ticks run scripts that are without what only bound jobs need, until a queue has some."""

from __future__ import annotations

import pytest
import redis

from streamq._engine import scripts
from streamq._engine.transitions import NewJob, bound_start
from tests.lua.conftest import Bench, done, envelope

BOUND = bound_start("0", {"k": "tenant"})


def refused(bench: Bench) -> int:
    """Count the answers so far that asked for the whole script."""
    return int(bench.redis.info("errorstats").get(f"errorstat_{scripts.NEEDS_BONDS}", {}).get("count", 0))


def loaded(bench: Bench, name: str, *, plain: bool) -> bool:
    """Whether the server has met that form of a script."""
    return bool(bench.redis.script_exists(scripts.load(name, plain=plain).sha)[0])


async def test_a_queue_of_plain_jobs_runs_none_of_the_whole_scripts(bench: Bench) -> None:
    bench.redis.script_flush()
    claim = await bench.claimed()
    await bench.tick(outcomes=[done(claim)])
    assert [loaded(bench, name, plain=True) for name in ("add", "tick")] == [True, True]
    assert [loaded(bench, name, plain=False) for name in ("add", "tick")] == [False, False]


async def test_a_tick_that_first_meets_bound_jobs_is_asked_once_and_remembers(bench: Bench) -> None:
    await bench.tick()
    before = refused(bench)
    await bench.add_raw(NewJob(3, BOUND, "", envelope()), NewJob(3, BOUND, "", envelope()))
    assert [claim.job_id for claim in await bench.claim(want=5)] == ["1", "2"]
    assert refused(bench) == before + 1
    await bench.tick()
    assert refused(bench) == before + 1


async def test_a_refused_tick_has_written_nothing(bench: Bench) -> None:
    claim = await bench.claimed()
    await bench.add_raw(NewJob(3, BOUND, "", envelope()))
    before = {key: bench.redis.dump(key) for key in bench.redis.keys("*")}
    plain = scripts.load("tick", plain=True)
    args = [
        "ann",
        60_000,
        1,
        3,
        0,
        10_000,
        10_000,
        0,
        "done",
        claim.lane,
        claim.entry,
        claim.job_id,
        "",
        10,
        10_000,
        0,
        1,
    ]
    with pytest.raises(redis.ResponseError, match=rf"^{scripts.NEEDS_BONDS} the queue has bound jobs"):
        bench.redis.eval(plain.body, 1, bench.store.base, *args)
    assert {key: bench.redis.dump(key) for key in bench.redis.keys("*")} == before


async def test_a_staged_batch_tells_of_its_bound_jobs_before_it_is_moved(bench: Bench) -> None:
    await bench.store.stage("b", 0, [NewJob(3, "0", "", envelope()), NewJob(3, BOUND, "", envelope())])
    assert bench.redis.hget(bench.key("meta"), "bound") == b"1"


async def test_bound_jobs_of_a_batch_that_was_staged_before_they_were_known_wait_for_the_next_tick(
    bench: Bench,
) -> None:
    await bench.store.stage("b", 0, [NewJob(3, BOUND, "", envelope())])
    await bench.store.stage("b", 1, [NewJob(3, "0", "", envelope())] * 10)
    bench.redis.hdel(bench.key("meta"), "bound")
    bench.redis.persist(bench.key("batch:b"))
    bench.redis.delete(bench.key("batch:b:parts"))
    bench.redis.zadd(bench.key("batches"), {"b": 1})
    first = await bench.tick()
    assert first.bound
    assert first.next_ms == 0
    assert bench.redis.llen(bench.key("batch:b")) == 44
    assert len(await bench.claim(want=20)) == 11


async def test_a_part_of_a_batch_that_can_not_be_read_costs_nobody_the_rest(bench: Bench) -> None:
    await bench.store.stage("b", 0, [NewJob(3, "0", "", envelope())] * 500)
    bench.redis.lset(bench.key("batch:b"), 1, b"0|" + bytes([0xC1]))
    bench.redis.persist(bench.key("batch:b"))
    bench.redis.delete(bench.key("batch:b:parts"))
    bench.redis.zadd(bench.key("batches"), {"b": 1})
    bench.sabotaged = True
    found = 0
    for _ in range(4):
        found += len(await bench.claim(want=500))
    assert found == 300
    (letter,) = bench.dead_letters()
    assert b"a part of a batch can not be read" in letter["x"]
    assert "failed" not in {kind for kind, _ in bench.events()}

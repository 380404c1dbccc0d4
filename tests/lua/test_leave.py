"""leave: a worker that holds nothing -> gone; one that still holds jobs -> expired."""

from __future__ import annotations

from tests.lua.conftest import Bench, done


def consumers(bench: Bench) -> list[str]:
    return [consumer["name"].decode() for consumer in bench.redis.xinfo_consumers(bench.key("lane:3"), "w")]


async def test_a_worker_that_holds_nothing_is_gone_with_its_consumers(bench: Bench) -> None:
    claim = await bench.claimed()
    await bench.tick(outcomes=[done(claim)])
    assert await bench.store.leave("ann") == 0
    assert bench.scores("workers") == {}
    assert consumers(bench) == []


async def test_what_a_leaving_worker_still_holds_goes_to_others_with_the_next_tick(bench: Bench) -> None:
    claim = await bench.claimed()
    assert await bench.store.leave("ann") == 1
    assert bench.pending() == {claim.entry: "ann"}
    assert [c.job_id for c in await bench.claim("bob")] == [claim.job_id]
    assert consumers(bench) == ["bob"]


async def test_leaving_twice_is_harmless(bench: Bench) -> None:
    await bench.claimed()
    for _ in range(2):
        assert await bench.store.leave("ann") == 1
    await bench.claim("bob")
    before = bench.dump()
    assert await bench.store.leave("ann") == 0
    assert bench.dump() == before


async def test_a_worker_that_was_swept_already_takes_nothing_from_others(bench: Bench) -> None:
    await bench.claimed(worker="frozen")
    bench.lapse("frozen")
    mine = (await bench.claim("ann"))[0]
    assert await bench.store.leave("frozen") == 0
    assert bench.pending() == {mine.entry: "ann"}


async def test_an_unknown_worker_on_an_empty_queue_writes_nothing(bench: Bench) -> None:
    assert await bench.store.leave("nobody") == 0
    assert bench.dump() == {}

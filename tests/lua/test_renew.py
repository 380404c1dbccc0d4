"""renew: a live worker's lease -> longer."""

from __future__ import annotations

from tests.lua.conftest import Bench


async def test_a_lease_is_renewed_from_the_servers_time(bench: Bench) -> None:
    await bench.tick("ann", lease_ms=1_000)
    before = bench.now_ms()
    assert (await bench.store.renew("ann", 30_000)).holds
    assert before + 30_000 <= bench.scores("workers")["ann"] <= bench.now_ms() + 30_000


async def test_a_lease_that_lapsed_but_was_not_swept_is_still_good(bench: Bench) -> None:
    claim = await bench.claimed()
    bench.lapse()
    assert (await bench.store.renew("ann", 30_000)).holds
    await bench.tick("bob")
    assert bench.pending() == {claim.entry: "ann"}


async def test_a_lost_lease_is_not_brought_back(bench: Bench) -> None:
    await bench.claimed(worker="frozen")
    bench.lapse("frozen")
    await bench.tick("ann")
    before = bench.dump()
    assert not (await bench.store.renew("frozen", 30_000)).holds
    assert bench.dump() == before


async def test_a_worker_that_never_ticked_has_no_lease_to_renew(bench: Bench) -> None:
    assert not (await bench.store.renew("nobody", 30_000)).holds
    assert bench.dump() == {}


async def test_a_renewal_touches_nobody_else(bench: Bench) -> None:
    await bench.tick("ann")
    await bench.tick("bob")
    bobs = bench.scores("workers")["bob"]
    await bench.store.renew("ann", 1)
    await bench.store.renew("ann", 30_000)
    assert bench.scores("workers")["bob"] == bobs


async def test_a_renewal_after_an_outage_lets_everybodys_lease_begin_anew(bench: Bench) -> None:
    claim = await bench.claimed(worker="bob")
    await bench.tick("ann")
    bench.redis.zadd(bench.key("workers"), dict.fromkeys(("ann", "bob"), bench.now_ms() - 5_000))
    assert await bench.store.renew("ann", 30_000)
    assert (await bench.tick("ann")).requeued == 0
    assert bench.pending() == {claim.entry: "bob"}

"""tick, claim: what somebody else has written into a lane becomes a dead letter and holds up nobody."""

from __future__ import annotations

from typing import Any

import pytest

from streamq._engine import codec
from tests.lua.conftest import Bench, done, envelope, fail, release, retry

CLOCK = "1790000000000"
"""What `XADD lane *` takes its ids from."""
BEYOND = str(2**63)
LAST = "18446744073709551615-18446744073709551615"

FOREIGN = {
    "no fields of ours": {"hello": "world"},
    "no envelope": {"t": "1"},
    "an empty job id": {"j": "", "d": envelope(), "t": "1"},
    "a job id that is no text": {"j": b"\xff\xfe", "d": envelope(), "t": "1"},
    "a job id that is too long": {"j": "x" * 300, "d": envelope()},
    "binary field names": {b"\x00\xff": b"\xfe", "": ""},
}


def put(bench: Bench, fields: dict[Any, Any], entry: str = "*", lane: int = 3) -> str:
    """Write an entry as a client that knows nothing of streamq would; returns its id."""
    return bench.redis.execute_command("XADD", bench.key(f"lane:{lane}"), entry, *sum(fields.items(), ())).decode()


@pytest.mark.parametrize("entry", ["*", "1790000000000-0", "1790000000000-7"])
@pytest.mark.parametrize("what", FOREIGN)
async def test_a_foreign_entry_becomes_a_dead_letter_with_a_reason(bench: Bench, what: str, entry: str) -> None:
    before = await bench.add()
    put(bench, FOREIGN[what], entry)
    after = await bench.add()
    assert [claim.job_id for claim in await bench.claim(want=10)] == [before, after]
    letters = (await bench.store.dead_letters("", 10)).letters
    assert [codec.decode_error(letter.error).type for letter in letters] in (["ForeignEntry"], ["PayloadLost"])
    assert len(bench.lane()) == len(bench.pending()) == 2


async def test_a_foreign_entry_cannot_pass_for_a_job_that_is_there(bench: Bench) -> None:
    claim = await bench.claimed("mine")
    await bench.store.progress(claim.lane, claim.entry, "mine", b"\x05")
    stray = put(bench, {"j": "mine", "d": envelope("other"), "t": "1"})
    assert await bench.claim("bob", 10) == []
    assert [letter["j"] for letter in bench.dead_letters()] == [stray.encode()]
    await bench.tick(outcomes=[done(claim)])
    stored = await bench.store.get("mine")
    assert stored is not None
    assert (stored.state, stored.record["g"]) == ("completed", b"\x05")


async def test_many_entries_of_one_moment_each_become_a_dead_letter(bench: Bench) -> None:
    for at in range(30):
        put(bench, {"d": envelope(), "t": "1"}, f"{CLOCK}-{at}")
    first = await bench.claim(want=10)
    assert [claim.entry for claim in first] == [f"{CLOCK}-0"]
    await bench.tick(outcomes=[done(claim) for claim in first])
    while bench.lane():
        await bench.claim(want=10)
    assert len(bench.dead_letters()) == 29


@pytest.mark.parametrize("entry", [f"{CLOCK}-0", f"{CLOCK}-5", f"{BEYOND}-0", LAST])
@pytest.mark.parametrize("claimed_first", [False, True])
async def test_jobs_are_added_although_a_foreign_entry_stands_in_their_way(
    bench: Bench, entry: str, claimed_first: bool
) -> None:
    put(bench, {"x": "y"}, entry)
    if claimed_first:
        await bench.tick(want=1)
    ids = [await bench.add(count=3), await bench.add("own"), await bench.add("later", start="+0")]
    claims = await bench.claim(want=10)
    assert sorted(claim.job_id for claim in claims) == sorted([*ids, *(str(int(ids[0]) + i) for i in (1, 2))])
    assert len(bench.dead_letters()) == 1
    await bench.tick(outcomes=[done(claim) for claim in claims])
    assert bench.lane() == []


async def test_ids_stay_exact_after_an_entry_that_no_counter_can_reach(bench: Bench) -> None:
    await bench.add(count=3)
    put(bench, {"x": "y"}, LAST)
    assert await bench.add() == "4"
    assert int(await bench.add()) < 10


@pytest.mark.parametrize("entry", [f"{CLOCK}-0", LAST])
async def test_a_job_that_runs_below_a_foreign_entry_goes_on_to_wherever_it_goes(bench: Bench, entry: str) -> None:
    claims = [await bench.claimed(), await bench.claimed("b"), await bench.claimed("c"), await bench.claimed("d")]
    put(bench, {"x": "y"}, entry)
    one, two, three, four = claims
    await bench.tick(outcomes=[retry(one), release(two), fail(three), retry(four, 60_000)])
    assert await bench.store.retry("c") == "retried"
    assert await bench.store.promote("d") == "promoted"
    assert await bench.store.update_data("b", two.envelope, envelope("new")) == "updated"
    again = await bench.claim(want=10)
    assert sorted(claim.job_id for claim in again) == sorted([one.job_id, "b", "c", "d"])
    assert len(bench.dead_letters()) == 1


async def test_who_holds_what_and_what_waits_stays_so_when_a_lane_is_laid_anew(bench: Bench) -> None:
    held = [await bench.claimed(), await bench.claimed("b", worker="bob"), await bench.claimed()]
    await bench.tick(outcomes=[done(held[0])])
    waiting = [await bench.add(), await bench.add("own")]
    put(bench, {"x": "y"}, LAST)
    last = await bench.add()
    pending = bench.redis.xpending_range(bench.key("lane:3"), "w", "-", "+", 10)
    assert [(item["message_id"].decode(), item["consumer"]) for item in pending] == [
        (held[1].entry, b"bob"), (held[2].entry, b"ann"),
    ]  # fmt: skip
    await bench.tick("bob", outcomes=[done(held[1])])
    assert (await bench.tick(outcomes=[done(held[2])])).stale == []
    claimed = [claim.job_id for claim in await bench.claim(want=10)]
    assert sorted(claimed) == sorted([*waiting, last])


async def test_a_lapsed_workers_jobs_come_back_above_a_foreign_entry(bench: Bench) -> None:
    claim = await bench.claimed()
    put(bench, {"x": "y"}, lane=3)
    bench.lapse()
    assert [again.job_id for again in (await bench.tick("bob", 10)).claimed] == [claim.job_id]


async def test_a_job_changes_into_a_lane_that_holds_a_foreign_entry(bench: Bench) -> None:
    put(bench, {"x": "y"}, lane=1)
    job_id = await bench.add()
    assert await bench.store.change_priority(job_id, 1) == "changed"
    assert [claim.job_id for claim in await bench.claim(want=10)] == [job_id]


async def test_operators_see_and_empty_a_queue_with_foreign_entries(bench: Bench) -> None:
    put(bench, {"t": "soon", "j": b"\xff"})
    put(bench, {"t": "soon", "d": b"\xc1"})
    counts = await bench.store.stats()
    assert counts.waiting[3] == 2
    page = await bench.store.jobs("waiting", "", 0, 10)
    assert [stored.created_ms for _, stored in page.jobs] == [None, None]
    bench.redis.xadd(bench.key("dead"), {"x": "y"})
    assert (await bench.store.dead_letters("", 10)).letters == []

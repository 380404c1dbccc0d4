"""add: a unique key belongs to one job; what becomes of the next one that asks for it."""

from __future__ import annotations

from typing import Any

import pytest

from streamq._engine.transitions import Added, NewJob
from streamq.errors import DuplicateJob
from tests.lua.conftest import Bench, done, envelope, fail, release, retry
from tests.lua.unique import add, add_one, holder, next_one, running, unique_job

CONFLICTS = ["e", "x", "r", "l"]


@pytest.mark.parametrize("conflict", CONFLICTS)
@pytest.mark.parametrize("start", ["0", "+5000"])
async def test_the_first_job_gets_the_key(bench: Bench, start: str, conflict: str) -> None:
    assert await add(bench, unique_job(conflict, start=start)) == [Added("1", True)]
    assert holder(bench) == "1"
    assert bench.record("1")["uk"] == b"k"


@pytest.mark.parametrize("state", ["waiting", "delayed", "active", "completed"])
@pytest.mark.parametrize(("conflict", "how"), [("e", "known"), ("x", "refused")])
async def test_a_second_one_is_known_or_refused_and_writes_nothing(
    bench: Bench, conflict: str, how: str, state: str
) -> None:
    if state in ("waiting", "delayed"):
        await add_one(bench, mode="k", start="0" if state == "waiting" else "+5000")
    else:
        claim = await running(bench, mode="k")
        if state == "completed":
            await bench.tick(outcomes=[done(claim)])
    before = bench.dump("id", "producer:n")
    assert await add(bench, unique_job(conflict)) == [Added("1", False, how, "k")]
    assert bench.dump("id", "producer:n") == before


async def test_keys_and_queues_ids_do_not_touch(bench: Bench) -> None:
    await add_one(bench, key="a")
    await add_one(bench, key="b")
    await add_one(bench, key="c", job_id="a")
    assert (holder(bench, "a"), holder(bench, "b"), holder(bench, "c")) == ("1", "2", "a")


async def test_an_id_that_is_known_comes_before_the_key(bench: Bench) -> None:
    await add_one(bench, "r", job_id="mine", data=1)
    assert await add(bench, unique_job("r", job_id="mine", data=2)) == [Added("mine", False)]
    assert (await bench.claim())[0].envelope == envelope(data=1)


async def test_a_claimed_job_brings_all_that_it_was_added_with(bench: Bench) -> None:
    await add_one(bench, data={"n": 1}, job_id="mine", lane=2)
    claim = (await bench.claim())[0]
    assert (claim.job_id, claim.lane, claim.envelope) == ("mine", 2, envelope(data={"n": 1}))


async def test_a_queue_says_that_it_has_had_bound_jobs(bench: Bench) -> None:
    await bench.add()
    assert bench.redis.hget(bench.key("meta"), "bound") is None
    await add_one(bench)
    assert bench.redis.hget(bench.key("meta"), "bound") == b"1"


async def test_the_same_call_again_gets_the_first_answer_and_changes_nothing(bench: Bench) -> None:
    await running(bench, key="busy")
    jobs = [
        unique_job(),
        unique_job(),
        unique_job("r", data=2),
        unique_job("x"),
        unique_job("l", key="busy"),
        unique_job("r", key="busy"),
    ]
    first = await bench.add_raw(*jobs, number=9)
    before = bench.dump()
    assert await bench.add_raw(*jobs, number=9) == first
    assert first == [2, [2, b"2", b"known", b"k"], [3, b"2", b"replaced", b"k"], [4, b"2", b"refused", b"k"],
        [6, b"1", b"refused", b"busy"]]  # fmt: skip
    assert bench.dump() == before


async def test_a_thousand_unique_and_plain_jobs_go_in_one_call(bench: Bench) -> None:
    jobs = []
    for n in range(1_000):
        plain = NewJob(3, "0", "", envelope(data=n))
        jobs.append(
            plain if n % 2 else unique_job("erl"[n % 3], key=f"k{n % 100}", data=n, start="+9000" if n % 10 else "0")
        )
    found = await add(bench, *jobs)
    assert sum(job.is_new for job in found) == 500 + 50
    assert len(bench.lane()) + len(bench.scores("delayed")) == 550
    assert bench.lane()[0][0] == "1-0"


async def test_in_one_call_a_replacement_leaves_the_plain_jobs_behind_it_their_own_entries(bench: Bench) -> None:
    plain = NewJob(3, "0", "", envelope())
    await add_one(bench, start="+5000")
    await add(bench, plain, unique_job("r", data=2), plain)
    assert [(entry, parts.get("j")) for entry, parts in bench.lane()] == [("2-0", None), ("3-0", b"1"), ("4-0", None)]


# All or none ----------------------------------------------------------------------------------------------------------


async def all_or_none(bench: Bench, *jobs: NewJob) -> list[Any]:
    bench.calls += 1
    return await bench.store.add("n", bench.calls, jobs, within=5, all_or_none=True)


@pytest.mark.parametrize("conflict", ["x", "r"])
async def test_one_refused_job_refuses_the_call_and_nothing_is_written(bench: Bench, conflict: str) -> None:
    await running(bench)
    before = bench.dump()
    with pytest.raises(DuplicateJob) as caught:
        await all_or_none(bench, unique_job(key="other"), unique_job(conflict))
    assert (caught.value.job_id, caught.value.key) == ("1", "k")
    assert bench.dump() == before


async def test_all_or_none_adds_all_if_none_is_refused(bench: Bench) -> None:
    await running(bench)
    await add_one(bench, key="w")
    jobs = [unique_job("x", key="new"), unique_job("l"), unique_job("r", key="w"), unique_job("e")]
    assert await all_or_none(bench, *jobs) == [3, [3, b"2", b"replaced", b"w"], [4, b"1", b"known", b"k"]]


async def test_a_job_that_adds_nothing_needs_no_room(bench: Bench) -> None:
    await bench.store.max_size(1)
    await add_one(bench)
    assert await add(bench, unique_job(), unique_job("r"), unique_job("x")) == [
        Added("1", False, "known", "k"), Added("1", False, "replaced", "k"), Added("1", False, "refused", "k"),
    ]  # fmt: skip


# Replacing ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("conflict", ["r", "l"])
async def test_a_waiting_job_is_replaced_in_its_place(bench: Bench, conflict: str) -> None:
    await add_one(bench, data=1)
    await bench.add("behind")
    assert await add(bench, unique_job(conflict, data={"much": "x" * 300})) == [Added("1", False, "replaced", "k")]
    assert [claim.job_id for claim in await bench.claim(want=5)] == ["1", "behind"]
    assert (await bench.store.get("1")).envelope == envelope(data={"much": "x" * 300})  # type: ignore[union-attr]
    assert bench.events_of("1") == ["added", "updated", "active"]


@pytest.mark.parametrize("conflict", ["r", "l"])
@pytest.mark.parametrize(("before", "after"), [("+1000", "+9000"), ("0", "+9000"), ("+1000", "@4102444800000")])
async def test_the_newer_delay_counts(bench: Bench, conflict: str, before: str, after: str) -> None:
    await add_one(bench, start=before, data=1)
    now = bench.now_ms()
    await add(bench, unique_job(conflict, start=after, data=2))
    due = bench.scores("delayed")["1"]
    assert due == 4_102_444_800_000 if after[0] == "@" else now + 9_000 <= due <= bench.now_ms() + 9_000
    assert int(bench.record("1")["u"]) == due
    assert bench.lane() == []
    assert (await bench.store.get("1")).envelope == envelope(data=2)  # type: ignore[union-attr]


async def test_a_delayed_job_whose_newer_one_is_not_starts_now_in_its_lane(bench: Bench) -> None:
    await add_one(bench, start="+60000", data=1)
    await add(bench, unique_job("r", lane=1, data=2))
    assert bench.scores("delayed") == {}
    claim = (await bench.claim())[0]
    assert (claim.job_id, claim.lane, claim.envelope) == ("1", 1, envelope(data=2))


async def test_a_waiting_job_moves_to_the_newer_ones_lane(bench: Bench) -> None:
    await add_one(bench, lane=3)
    await add(bench, unique_job("r", lane=4))
    assert (len(bench.lane(3)), len(bench.lane(4))) == (0, 1)


async def test_a_job_that_waits_for_another_attempt_is_replaced_and_counts_them_from_nothing(bench: Bench) -> None:
    claim = await running(bench, data=1)
    await bench.tick(outcomes=[retry(claim, 60_000)])
    assert await add(bench, unique_job("l", data=2)) == [Added("1", False, "replaced", "k")]
    again = (await bench.claim())[0]
    assert (again.job_id, again.attempts_made, again.envelope) == ("1", 0, envelope(data=2))


async def test_a_claim_that_was_given_back_is_replaced(bench: Bench) -> None:
    claim = await running(bench, data=1)
    await bench.tick(outcomes=[done(claim)._replace(kind="return")])
    await add(bench, unique_job("r", data=2, start="+5"))
    assert bench.lane() == []
    assert list(bench.scores("delayed")) == ["1"]


@pytest.mark.parametrize("ended", [False, True])
async def test_what_has_started_is_not_replaced(bench: Bench, ended: bool) -> None:
    claim = await running(bench, mode="k", data=1)
    if ended:
        await bench.tick(outcomes=[done(claim)])
    before = bench.dump("id", "producer:n")
    assert await add(bench, unique_job("r", data=2)) == [Added("1", False, "refused", "k")]
    assert bench.dump("id", "producer:n") == before


# The next one ---------------------------------------------------------------------------------------------------------


async def test_behind_a_running_job_one_is_next_with_the_newest_data(bench: Bench) -> None:
    await running(bench)
    assert await add(bench, unique_job("l", data=1)) == [Added("2", True)]
    assert await add(bench, unique_job("l", data=2)) == [Added("2", False, "replaced", "k")]
    assert (holder(bench), next_one(bench)) == ("1", "2")
    assert await bench.claim(want=5) == []
    assert (await bench.store.get("2")).envelope == envelope(data=2)  # type: ignore[union-attr]


@pytest.mark.parametrize("mode", ["r", "k"])
@pytest.mark.parametrize("end", [done, fail])
async def test_the_next_one_starts_in_the_tick_that_ends_the_running_one(bench: Bench, end: Any, mode: str) -> None:
    claim = await running(bench, mode=mode)
    await add(bench, unique_job("l", mode, data=1))
    ((job_id, data),) = [(c.job_id, c.envelope) for c in (await bench.tick(want=5, outcomes=[end(claim)])).claimed]
    assert (job_id, data) == ("2", envelope(data=1))
    assert (holder(bench), next_one(bench)) == ("2", None)


async def test_the_next_ones_delay_counts_from_its_add_and_still_holds_after_the_running_ones_end(bench: Bench) -> None:
    claim = await running(bench)
    await add(bench, unique_job("l", start="+60000"))
    due = int(bench.record("2")["u"])
    await bench.tick(want=5, outcomes=[done(claim)])
    assert bench.scores("delayed") == {"2": due}
    assert holder(bench) == "2"


@pytest.mark.parametrize("how", [retry, release])
async def test_the_next_one_goes_on_waiting_while_the_running_one_has_attempts_left(bench: Bench, how: Any) -> None:
    claim = await running(bench, data=1)
    await add(bench, unique_job("l", data=2))
    await bench.tick(outcomes=[how(claim, 60_000)])
    assert await add(bench, unique_job("l", data=3)) == [Added("2", False, "replaced", "k")]
    assert (holder(bench), next_one(bench)) == ("1", "2")
    assert (await bench.store.get("1")).envelope == envelope(data=1)  # type: ignore[union-attr]


@pytest.mark.parametrize("conflict", CONFLICTS)
async def test_the_next_one_can_be_removed_and_another_one_be_next(bench: Bench, conflict: str) -> None:
    claim = await running(bench)
    await add(bench, unique_job("l"))
    assert await bench.store.remove("2") == "removed"
    assert (holder(bench), next_one(bench)) == ("1", None)
    await add(bench, unique_job("l", data=3))
    assert next_one(bench) == "3"
    assert [c.job_id for c in (await bench.tick(want=5, outcomes=[done(claim)])).claimed] == ["3"]


async def test_a_key_with_a_next_one_does_not_run_out(bench: Bench) -> None:
    await running(bench, ttl=60_000)
    assert 0 < bench.redis.pttl(bench.key("unique:k")) <= 60_000
    await add(bench, unique_job("l", ttl=5_000))
    assert bench.redis.pttl(bench.key("unique:k")) == -1


async def test_the_next_ones_own_time_begins_when_it_gets_the_key(bench: Bench) -> None:
    claim = await running(bench)
    await add(bench, unique_job("l", ttl=50_000))
    await bench.tick(outcomes=[done(claim)])
    assert 40_000 < bench.redis.pttl(bench.key("unique:k")) <= 50_000


@pytest.mark.parametrize("move", ["promote", "reschedule"])
async def test_the_next_one_is_not_started_by_hand(bench: Bench, move: str) -> None:
    await running(bench)
    await add(bench, unique_job("l"))
    before = bench.dump()
    call = bench.store.promote("2") if move == "promote" else bench.store.reschedule("2", "+5")
    assert await call == "parked"
    assert bench.dump() == before


async def test_nothing_is_due_while_one_is_next(bench: Bench) -> None:
    await running(bench)
    await add(bench, unique_job("l"))
    assert (await bench.tick()).next_ms <= 60_000  # the lease's end, not the year 2255


# A key that nobody looks after ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("conflict", CONFLICTS)
async def test_a_holder_whose_record_was_deleted_behind_our_back_blocks_nobody(bench: Bench, conflict: str) -> None:
    await running(bench)
    bench.sabotaged = True
    bench.redis.delete(bench.key("job:1"))
    assert await add(bench, unique_job(conflict)) == [Added("2", True)]
    assert holder(bench) == "2"

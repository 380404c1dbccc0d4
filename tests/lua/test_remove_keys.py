"""remove, and what else takes keyed jobs out, moves or brings them back: places and parked jobs stay in order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from streamq._engine import codec
from streamq._engine.operators import UNCHANGED
from streamq._engine.pages import Step
from tests.lua.conftest import Bench, done, envelope, fail, retry
from tests.lua.test_add_keys import parked


async def one_at_a_time(bench: Bench, count: int = 4) -> list[str]:
    """Add jobs of a key that runs one at a time; returns their ids. The first one stands in the lane."""
    await bench.store.limit_key("a", UNCHANGED, 1, UNCHANGED)
    first = int(await bench.add(count=count, key="a"))
    return [str(first + i) for i in range(count)]


async def test_removing_the_one_in_the_lane_brings_the_next_one_in(bench: Bench) -> None:
    ids = await one_at_a_time(bench)
    bench.woken()
    assert await bench.store.remove(ids[0]) == "removed"
    assert bench.scores("places:a") == {ids[1]: 3}
    assert bench.woken()


async def test_removing_a_running_job_frees_its_place(bench: Bench) -> None:
    ids = await one_at_a_time(bench)
    await bench.claim()
    assert await bench.store.remove(ids[0], force=True) == "removed"
    assert [claim.job_id for claim in await bench.claim(want=5)] == [ids[1]]


@pytest.mark.parametrize("order", [[1, 2, 3], [3, 2, 1], [2, 1, 3], [2, 3, 1]])
async def test_parked_jobs_can_be_removed_in_any_order_and_leave_nothing(bench: Bench, order: list[int]) -> None:
    ids = await one_at_a_time(bench)
    for at in order:
        assert await bench.store.remove(ids[at]) == "removed"
        assert bench.record(ids[at]) == {}
    assert not bench.redis.exists(bench.key("parking:3:a"))
    assert bench.scores("keys") == {"a": 1}


async def test_a_parked_job_that_was_removed_is_passed_over(bench: Bench) -> None:
    ids = await one_at_a_time(bench)
    await bench.store.remove(ids[2])
    claims, seen = await bench.claim(), []
    while claims:
        seen.append(claims[0].job_id)
        claims = (await bench.tick(want=1, outcomes=[done(claims[0])])).claimed
    assert seen == [ids[0], ids[1], ids[3]]


async def test_a_job_that_waits_for_its_retry_in_order_frees_its_place_when_it_is_removed(bench: Bench) -> None:
    ids = await one_at_a_time(bench)
    claim = (await bench.claim())[0]
    await bench.tick(outcomes=[retry(claim, 60_000)])
    assert await bench.store.remove(ids[0]) == "removed"
    assert [found.job_id for found in await bench.claim(want=5)] == [ids[1]]


async def _drain(bench: Bench) -> None:
    step = Step()
    while not step.done:
        step = await bench.store.drain(True, step, 3)


async def _clean(bench: Bench) -> None:
    step = Step()
    while not step.done:
        step = await bench.store.clean("waiting", 0, step, 3, last=False)


async def _obliterate(bench: Bench) -> None:
    while (await bench.store.obliterate(False, 3))[0] != "done":
        pass


@pytest.mark.parametrize("empty", [_drain, _clean, _obliterate])
async def test_emptying_a_queue_takes_what_is_parked_too(
    bench: Bench, empty: Callable[[Bench], Awaitable[None]]
) -> None:
    for key in "abc":
        await bench.add(count=5, key=key)
        await bench.add(f"own-{key}", key=key, lane=1)
    await bench.add(count=2)
    await empty(bench)
    assert (await bench.store.stats()).waiting == {1: 0, 2: 0, 3: 0, 4: 0}
    assert bench.scores("keys") == {}
    assert not [
        name for name in bench.redis.scan_iter() if b":parking:" in name or b":job:" in name or b":places:" in name
    ]


async def test_obliterating_takes_the_settings_of_keys(bench: Bench) -> None:
    await bench.store.limit_key("a", UNCHANGED, 1, UNCHANGED)
    await bench.store.limit_key("", UNCHANGED, 1, UNCHANGED)
    await bench.add(count=3, key="a")
    await _obliterate(bench)
    assert {name.decode().partition("}:")[2] for name in bench.redis.scan_iter()} <= {"id", "events", "producer:n"}


async def test_cleaning_leaves_parked_jobs_that_are_younger(bench: Bench) -> None:
    ids = await one_at_a_time(bench, 3)
    bench.redis.hset(bench.key(f"job:{ids[1]}"), "c", 1)
    step = await bench.store.clean("waiting", 60_000, Step(), 100, last=True)
    assert step.ids == [ids[1]]
    assert parked(bench, "a") == [ids[2]]


async def test_a_failed_job_that_is_retried_lines_up_with_its_key(bench: Bench) -> None:
    ids = await one_at_a_time(bench)
    claim = (await bench.claim())[0]
    running = (await bench.tick(want=1, outcomes=[fail(claim)])).claimed[0]
    assert await bench.store.retry(ids[0]) == "retried"
    assert parked(bench, "a")[-1] == ids[0]
    reply = await bench.tick(want=1, outcomes=[done(running)])
    assert [found.job_id for found in reply.claimed] == [ids[2]]


async def test_retrying_many_keeps_to_the_places(bench: Bench) -> None:
    ids = await one_at_a_time(bench, 3)
    for _ in ids:
        claim = (await bench.claim())[0]
        await bench.tick(outcomes=[fail(claim)])
    await bench.store.retry_many("failed", Step(), 100, b"", b"")
    assert len(bench.lane()) == 1
    assert len(parked(bench, "a")) == 2


async def test_a_dead_letter_brings_a_job_back_with_its_key(bench: Bench) -> None:
    ids = await one_at_a_time(bench, 2)
    claim = (await bench.claim())[0]
    await bench.tick(outcomes=[fail(claim, keep=0)])
    assert bench.record(ids[0]) == {}
    await bench.store.redrive(Step(), 100, b"", b"")
    assert bench.record(ids[0])["ky"] == b"a"
    assert parked(bench, "a") == [ids[0]]


async def test_a_delayed_job_that_is_promoted_lines_up_with_its_key(bench: Bench) -> None:
    await one_at_a_time(bench, 1)
    await bench.add("later", key="a", start="+60000")
    assert await bench.store.promote("later") == "promoted"
    assert parked(bench, "a") == ["later"]


async def test_another_priority_takes_a_parked_job_to_the_other_lane(bench: Bench) -> None:
    first = int(await bench.add(count=3, key="a"))
    assert await bench.store.change_priority(str(first + 2), 1) == "changed"
    assert [claim.job_id for claim in await bench.claim(want=3)] == [str(first + 2), str(first), str(first + 1)]


async def test_another_priority_gives_the_place_in_the_old_lane_to_the_next_one(bench: Bench) -> None:
    first = int(await bench.add(count=2, key="a"))
    assert await bench.store.change_priority(str(first), 4) == "changed"
    assert [claim.job_id for claim in await bench.claim(want=2)] == [str(first + 1), str(first)]


async def test_another_priority_takes_the_place_along_that_a_delayed_job_keeps(bench: Bench) -> None:
    ids = await one_at_a_time(bench, count=3)
    await bench.tick(outcomes=[retry((await bench.claim())[0], 60_000)])
    await bench.store.limit_key("a", UNCHANGED, 2, UNCHANGED)
    await bench.store.pause_key("a")
    assert await bench.store.change_priority(ids[0], 1) == "changed"
    assert bench.scores("places:a") == {ids[0]: 1}
    await bench.store.resume_key("a")
    assert bench.scores("places:a") == {ids[0]: 1, ids[1]: 3}


async def test_the_data_of_a_parked_job_can_be_replaced(bench: Bench) -> None:
    ids = await one_at_a_time(bench, 2)
    stored = await bench.store.get(ids[1])
    assert stored is not None
    assert await bench.store.update_data(ids[1], stored.envelope, b"other") == "updated"
    changed = await bench.store.get(ids[1])
    assert changed is not None
    assert changed.envelope == b"other"
    assert parked(bench, "a") == [ids[1]]


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("page", [1, 3, 100])
async def test_lists_of_waiting_jobs_show_what_is_parked(bench: Bench, page: int, newest_first: bool) -> None:
    expected = set()
    for key in "ab":
        for lane in (1, 3):
            first = int(await bench.add(count=3, key=key, lane=lane))
            expected |= {str(first + i) for i in range(3)}
    expected.add(await bench.add())
    seen: list[str] = []
    cursor = ""
    while True:
        found = await bench.store.jobs("waiting", cursor, 0, page, newest_first=newest_first)
        seen += [job_id for job_id, _ in found.jobs]
        assert all(job.state == "waiting" for _, job in found.jobs)
        cursor = found.cursor
        if not cursor:
            break
    assert sorted(seen) == sorted(expected)


async def test_a_job_that_replaces_a_parked_one_stays_parked(bench: Bench) -> None:
    from streamq._engine.transitions import NewJob, bound_start

    await one_at_a_time(bench, 1)
    bonds = {"k": "a", "u": {"k": "only", "w": "p", "c": "r"}}
    for body, start in ((b"one", "0"), (b"two", "0"), (b"three", "+60000"), (b"four", "0")):
        await bench.add_raw(NewJob(3, bound_start(start, bonds), "x", body))
        await bench.add_raw(NewJob(3, bound_start(start, bonds), "", body))
        found = await bench.store.get("x")
        assert found is not None
        assert found.envelope == body
        assert found.state == ("waiting" if start == "0" else "delayed")
        assert bench.disagreements() == []
    assert parked(bench, "a") == ["x"]


async def test_a_delayed_job_that_is_replaced_and_parked_waits_since_then(bench: Bench) -> None:
    from streamq._engine.transitions import NewJob, bound_start

    (running,) = await one_at_a_time(bench, 1)
    bonds = {"k": "a", "u": {"k": "only", "w": "p", "c": "r"}}
    await bench.add_raw(NewJob(3, bound_start("+60000", bonds), "x", b"one"))
    bench.redis.hset(bench.key("job:x"), "c", 1)
    before = bench.now_ms()
    await bench.add_raw(NewJob(3, bound_start("0", bonds), "", b"two"))
    assert parked(bench, "a") == ["x"]
    await bench.store.remove(running)
    assert int(bench.lane(3)[0][1]["t"]) >= before


async def test_a_parked_job_can_be_cancelled(bench: Bench) -> None:
    ids = await one_at_a_time(bench)
    assert await bench.store.cancel(ids[2], "no more") == "cancelled"
    assert bench.record(ids[2])["s"] == b"x"
    assert bench.scores("keys") == {"a": 3}


@pytest.mark.parametrize("limit", [1, 4, 100])
async def test_all_that_wait_can_be_cancelled_key_by_key(bench: Bench, limit: int) -> None:
    for count, key in enumerate("abc", 3):
        await bench.add(count=count, key=key)
        await bench.add(count=1, key=key, lane=1, body=envelope("other"))
    name, step, gone = codec.encode_text("work"), Step(), 0
    while not step.done:
        step = await bench.store.cancel_many("waiting", step, limit, name, "no more")
        gone += len(step.ids)
    assert gone == 3 + 4 + 5
    assert bench.scores("keys") == {"a": 1, "b": 1, "c": 1}


async def test_cancelling_a_running_job_frees_its_place_when_it_ends(bench: Bench) -> None:
    ids = await one_at_a_time(bench)
    claim = (await bench.claim())[0]
    await bench.store.cancel(ids[0], "no more")
    reply = await bench.tick(want=5, outcomes=[done(claim)])
    assert bench.record(ids[0])["s"] == b"x"
    assert [found.job_id for found in reply.claimed] == [ids[1]]


async def test_many_gone_jobs_at_the_front_are_passed_over_in_steps(bench: Bench) -> None:
    """One call looks at a bounded number of them, and the next tick goes on."""
    ids = await one_at_a_time(bench)
    claim = (await bench.claim())[0]
    items = [f"{9_000_000 + i}" for i in range(2500)]
    bench.redis.lpush(bench.key("parking:3:a"), *items)
    seen = (await bench.tick(want=1, outcomes=[done(claim)])).claimed
    looks = 0
    while not seen:
        looks += 1
        seen = (await bench.tick(want=1)).claimed
    assert seen[0].job_id == ids[1]
    assert looks == 2


async def test_cleaning_parked_jobs_and_others_in_two_calls_is_told_once(bench: Bench) -> None:
    await bench.add("a", key="k")
    await bench.add("b", key="k")
    await bench.add("c")
    step = Step()
    step = await bench.store.clean("waiting", -1, step, 2, last=True)
    assert step.ids == ["b"]
    assert not step.done
    step = await bench.store.clean("waiting", -1, step, 1, last=True)
    assert [kind for kind, _ in bench.events()].count("cleaned") == 1

"""add, jobs with a key: few of one key stand in a lane, the rest are parked and wait all the same."""

from __future__ import annotations

import pytest

from tests.lua.conftest import Bench, done


def parked(bench: Bench, key: str, lane: int = 3) -> list[str]:
    """The ids that a key's parking holds, in order."""
    items = bench.redis.lrange(bench.key(f"parking:{lane}:{key}"), 0, -1)
    return [item.decode().partition(":")[2] or item.decode() for item in items]


async def test_the_first_job_of_a_key_stands_in_its_lane_and_the_rest_are_parked(bench: Bench) -> None:
    first = int(await bench.add(count=3, key="a"))
    assert [fields["j"].decode() for _, fields in bench.lane()] == [str(first)]
    assert parked(bench, "a") == [str(first + 1), str(first + 2)]
    assert bench.record(str(first))["s"] == b"q"
    assert bench.record(str(first + 1))["s"] == b"p"
    assert bench.scores("places:a") == {str(first): 3}
    assert bench.scores("keys") == {"a": 3}


async def test_another_key_does_not_wait_behind_the_parked_ones(bench: Bench) -> None:
    first = int(await bench.add(count=100, key="a"))
    other = await bench.add(key="b")
    assert [fields["j"].decode() for _, fields in bench.lane()] == [str(first), other]


async def test_plain_jobs_cost_nothing_more(bench: Bench) -> None:
    await bench.add(count=5)
    assert {name.decode().partition("}:")[2] for name in bench.redis.scan_iter()} == {
        *("id", "lane:3", "events", "wake", "producer:n")
    }


async def test_a_parked_job_waits_as_far_as_anybody_can_see(bench: Bench) -> None:
    first = int(await bench.add(count=3, key="a"))
    for job_id in range(first, first + 3):
        found = await bench.store.get(str(job_id))
        assert found is not None
        assert found.state == "waiting"
    counts = await bench.store.stats()
    assert counts.waiting == {1: 0, 2: 0, 3: 3, 4: 0}
    assert bench.events_of(str(first + 2)) == ["added"]


async def test_a_job_with_an_id_of_its_own_is_parked_under_it(bench: Bench) -> None:
    await bench.add("x", key="a")
    await bench.add("y:1", key="a")
    assert parked(bench, "a") == ["y:1"]
    reply = await bench.add_raw(*[_job("y:1")])
    assert reply[1:] == [1]


def _job(job_id: str):  # type: ignore[no-untyped-def]
    from streamq._engine.transitions import NewJob, bound_start
    from tests.lua.conftest import envelope

    return NewJob(3, bound_start("0", {"k": "a"}), job_id, envelope())


async def test_each_lane_has_places_of_its_own_so_that_urgent_jobs_pass_the_others(bench: Bench) -> None:
    await bench.add(count=3, key="a", lane=4)
    urgent = await bench.add(key="a", lane=1)
    assert [fields["j"].decode() for _, fields in bench.lane(1)] == [urgent]


async def test_a_delayed_job_has_no_place_before_it_is_due(bench: Bench) -> None:
    await bench.add("later", key="a", start="+60000")
    assert bench.scores("places:a") == {}
    now = await bench.add(key="a")
    bench.redis.zadd(bench.key("delayed"), {"later": 1})
    await bench.tick()
    assert bench.record("later")["s"] == b"p"
    assert bench.scores("places:a") == {now: 3}


async def test_a_worker_is_woken_for_a_parked_job_that_may_run(bench: Bench) -> None:
    await bench.add(key="a")
    bench.woken()
    await bench.add(key="a")
    assert bench.woken()


async def test_nobody_is_woken_for_a_job_whose_key_is_at_its_limit(bench: Bench) -> None:
    await bench.call("limit_key", "a", "", 0, 1, "")
    await bench.add(key="a")
    bench.woken()
    await bench.add(key="a")
    assert not bench.woken()


@pytest.mark.parametrize("most", [5, 7])
async def test_parked_jobs_count_when_a_queue_is_full(bench: Bench, most: int) -> None:
    await bench.store.max_size(most)
    await bench.add(count=5, key="a")
    reply = await bench.call("add", "m", 1, 0, "", 3, "0", "", b"e", 3, "0", "", b"e", 3, "0", "", b"e")
    assert reply == [-4, 5, most]


async def test_a_batch_that_was_staged_is_parked_as_well(bench: Bench) -> None:
    from streamq._engine.transitions import NewJob, bound_start
    from tests.lua.conftest import envelope

    jobs = [NewJob(3, bound_start("0", {"k": "a"}), "", envelope())] * 4
    await bench.store.stage("b", 0, jobs)
    await bench.store.commit("n", 1, "b", 1)
    assert len(bench.lane()) == 1
    assert len(parked(bench, "a")) == 3


async def test_many_keys_each_have_their_place(bench: Bench) -> None:
    for at in range(20):
        await bench.add(count=2, key=f"k{at}")
    assert len(bench.lane()) == 20
    claims = await bench.claim(want=40)
    assert len(claims) == 40
    await bench.tick(outcomes=[done(claim) for claim in claims])
    assert bench.scores("keys") == {}

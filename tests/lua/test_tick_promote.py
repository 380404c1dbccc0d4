"""tick, promote: delayed and due -> waiting; and batches whose producer fell silent."""

from __future__ import annotations

import pytest

from streamq._engine.transitions import NewJob
from tests.lua.conftest import Bench, envelope, envelope_of_size


async def test_due_jobs_go_to_their_lanes_in_the_order_in_which_they_were_due(bench: Bench) -> None:
    for job_id, start in (("third", "@3"), ("first", "@1"), ("second", "@2")):
        await bench.add(job_id, start=start, lane=2)
    assert (await bench.tick()).promoted == 3
    assert [parts["j"] for _, parts in bench.lane(2)] == [b"first", b"second", b"third"]
    assert bench.scores("delayed") == {}
    record = bench.record("first")
    assert (record["s"], record["e"]) == (b"q", bench.lane(2)[0][0].encode())
    assert "u" not in record


@pytest.mark.parametrize("size", [10, 64, 65, 1_024, 3_000])
async def test_a_promoted_job_has_its_envelope_from_its_record(bench: Bench, size: int) -> None:
    job_id = await bench.add(start="@1", body=envelope_of_size(size))
    claim = (await bench.claim())[0]
    assert (claim.job_id, claim.envelope) == (job_id, envelope_of_size(size))


async def test_a_job_that_is_not_due_stays(bench: Bench) -> None:
    await bench.add("later", start="+60000")
    before = bench.dump("workers", "meta")
    assert (await bench.tick(want=5)).promoted == 0
    assert bench.dump("workers", "meta", "lane:1", "lane:2", "lane:3", "lane:4") == before


async def test_due_jobs_of_a_paused_queue_wait_in_their_lanes(bench: Bench) -> None:
    await bench.store.pause()
    await bench.add("due", start="@1")
    reply = await bench.tick(want=5)
    assert (reply.promoted, reply.claimed) == (1, [])
    assert len(bench.lane()) == 1
    assert not bench.woken()


async def test_a_call_promotes_a_bounded_number_and_leaves_a_token(bench: Bench) -> None:
    await bench.add(start="@1", count=450)
    bench.woken()
    promoted = []
    for _ in range(4):
        promoted.append((await bench.tick()).promoted)
        assert bench.woken() == (promoted[-1] > 0)
    assert promoted == [200, 200, 50, 0]


async def test_a_delayed_id_whose_record_is_gone_is_let_go(bench: Bench) -> None:
    await bench.add("gone", start="@1")
    bench.redis.delete(bench.key("job:gone"))
    await bench.tick()
    assert bench.scores("delayed") == {}
    assert bench.lane() == []


async def test_a_committed_batch_whose_producer_fell_silent_is_taken_over(bench: Bench) -> None:
    jobs = [NewJob(3, "0", "", envelope())] * 1_000
    await bench.store.stage("b", 0, jobs)
    await bench.store.stage("b", 1, jobs[:500])
    await bench.store.commit("b", 1, "b", 2)
    assert len(bench.lane()) == 1_000
    await bench.tick()
    assert len(bench.lane()) == 1_000  # its producer has ten seconds to go on
    for _ in range(3):
        bench.redis.zadd(bench.key("batches"), {"b": 1}, xx=True)
        await bench.tick()
    assert len(bench.lane()) == 1_500
    assert bench.scores("batches") == {}
    assert bench.redis.keys("*:batch:*") == []


async def test_a_tick_says_that_a_taken_over_batch_has_more(bench: Bench) -> None:
    await bench.store.stage("b", 0, [NewJob(3, "0", "", envelope())] * 1_500)
    await bench.store.commit("b", 1, "b", 1)
    assert 0 < (await bench.tick()).next_ms <= 10_000
    bench.redis.zadd(bench.key("batches"), {"b": 1})
    assert (await bench.tick()).next_ms == 0


async def test_a_job_waits_since_it_was_due_however_late_it_is_promoted(bench: Bench) -> None:
    job_id = await bench.in_state("delayed")
    due = bench.now_ms() - 5_000
    bench.redis.zadd(bench.key("delayed"), {job_id: due})
    (claim,) = (await bench.tick(want=1)).claimed
    assert claim.since_ms == due

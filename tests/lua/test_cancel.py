"""cancel: waiting | delayed -> cancelled; active -> its worker is asked, and it ends as cancelled whatever it does."""

from __future__ import annotations

import msgspec
import pytest

from streamq.policy import Retention
from tests.lua.conftest import Bench, EndsBy, done, envelope, fail, release, retry


def requests(bench: Bench) -> list[str]:
    """The entries of running jobs that are to end as cancelled."""
    keys = [key for key in bench.redis.scan_iter(count=1000) if b":cancels:" in key]
    return [entry.decode() for key in keys for entry in bench.redis.hkeys(key)]


@pytest.mark.parametrize("state", ["waiting", "delayed"])
@pytest.mark.parametrize("own_id", ["", "mine"])
async def test_a_job_that_has_not_started_is_cancelled_at_once(bench: Bench, state: str, own_id: str) -> None:
    job_id = await bench.in_state(state, own_id, lane=2, body=envelope_of_many_pieces())
    await bench.add(lane=2)
    assert await bench.store.cancel(job_id, "no longer needed") == "cancelled"
    assert (len(bench.lane(2)), bench.scores("delayed"), list(bench.scores("cancelled"))) == (1, {}, [job_id])
    record = bench.record(job_id)
    assert (record["s"], record["p"], record["w"]) == (b"x", b"2", b"no longer needed")
    assert int(record["c"]) <= int(record["f"]) == bench.scores("cancelled")[job_id]
    assert "u" not in record
    stored = await bench.store.get(job_id)
    assert stored is not None
    assert (stored.state, stored.envelope) == ("cancelled", envelope_of_many_pieces())
    assert bench.events_of(job_id)[-1] == "cancelled"
    assert bench.dead_letters() == []
    assert bench.redis.hget(bench.key("meta"), "cancelled") == b"1"


def envelope_of_many_pieces() -> bytes:
    """Encode a job whose envelope a record holds in several fields."""
    return envelope("work", "x" * 200)


@pytest.mark.parametrize("own_id", ["", "mine"])
@pytest.mark.parametrize("ends", [done, fail, retry, release])
async def test_a_running_job_ends_as_cancelled_whatever_its_worker_says(
    bench: Bench, ends: EndsBy, own_id: str
) -> None:
    claim = await bench.claimed(own_id, "ann", body=envelope("work", 5))
    assert await bench.store.cancel(claim.job_id, "stop") == "asked"
    assert (await bench.store.get(claim.job_id)).state == "active"  # type: ignore[union-attr]
    reply = await bench.tick("ann", outcomes=[ends(claim)])
    assert reply.stale == []
    stored = await bench.store.get(claim.job_id)
    assert stored is not None
    assert (stored.state, stored.envelope, stored.record["w"]) == ("cancelled", envelope("work", 5), b"stop")
    assert (bench.lane(), bench.pending(), bench.dead_letters()) == ([], {}, [])
    assert bench.events_of(claim.job_id) == ["added", "active", "cancelled"]
    assert requests(bench) == []


async def test_its_worker_is_woken_and_told_and_nobody_else(bench: Bench) -> None:
    claim, other = await bench.claimed(worker="ann"), await bench.claimed(worker="bob")
    await bench.store.cancel(claim.job_id, "stop")
    assert bench.redis.lrange(bench.key("control:ann"), 0, -1) == [b"1"]
    assert not bench.redis.exists(bench.key("control:bob"))
    assert (await bench.store.renew("bob", 60_000)).cancels == {}
    for _ in range(2):  # until it has ended
        assert (await bench.store.renew("ann", 60_000)).cancels == {claim.entry: "stop"}
    await bench.tick("ann", outcomes=[done(claim)])
    assert (await bench.store.renew("ann", 60_000)).cancels == {}
    assert bench.pending() == {other.entry: "bob"}


async def test_a_renewal_waits_for_word_and_takes_the_token(bench: Bench) -> None:
    claim = await bench.claimed(worker="ann")
    await bench.store.cancel(claim.job_id, "stop")
    renewal = await bench.store.renew("ann", 60_000, block=60.0)
    assert (renewal.holds, renewal.cancels) == (True, {claim.entry: "stop"})
    assert not bench.redis.exists(bench.key("control:ann"))


async def test_of_two_requests_the_first_reason_stands(bench: Bench) -> None:
    claim = await bench.claimed()
    assert [await bench.store.cancel(claim.job_id, reason) for reason in ("first", "second")] == ["asked", "asked"]
    assert bench.redis.llen(bench.key("control:ann")) == 1
    await bench.tick(outcomes=[fail(claim)])
    assert bench.record(claim.job_id)["w"] == b"first"
    before = bench.dump()
    assert await bench.store.cancel(claim.job_id, "third") == "already"
    assert bench.dump() == before


@pytest.mark.parametrize("state", ["completed", "failed"])
async def test_a_job_that_has_ended_stays_as_it_is(bench: Bench, state: str) -> None:
    job_id = await bench.in_state(state)
    before = bench.dump()
    assert await bench.store.cancel(job_id, "") == state
    assert bench.dump() == before


@pytest.mark.parametrize("job_id", ["nobody", "17"])
async def test_an_unknown_job_writes_nothing(bench: Bench, job_id: str) -> None:
    assert await bench.store.cancel(job_id, "") == "unknown"
    assert bench.dump() == {}


async def test_a_lost_workers_job_ends_as_cancelled_and_does_not_run_again(bench: Bench) -> None:
    claim = await bench.claimed(worker="lost")
    await bench.store.cancel(claim.job_id, "stop")
    bench.lapse("lost")
    assert (await bench.tick("ann", want=5)).claimed == []
    record = bench.record(claim.job_id)
    assert (record["s"], record["w"], record["k"]) == (b"x", b"stop", b"1")
    assert bench.lane() == []
    assert requests(bench) == []
    before = bench.dump("workers", "meta")
    assert (await bench.tick("lost", outcomes=[done(claim)])).stale == [-1]
    assert (await bench.tick("lost", outcomes=[done(claim)])).stale == [0]
    assert bench.dump("workers", "meta") == before


async def test_a_claim_that_goes_back_unstarted_is_cancelled(bench: Bench) -> None:
    claim = await bench.claimed("mine")
    bench.redis.hset(bench.key("job:mine"), "a", 2)
    await bench.store.cancel("mine", "stop")
    back = done(claim)._replace(kind="return", body=b"", a=0, b=0, started_ms=0, attempts_made=0)
    assert (await bench.tick("bob", outcomes=[back])).stale == [-1]
    assert (await bench.tick("bob", outcomes=[back])).stale == [0]  # it is not bob's
    assert (await bench.tick("ann", outcomes=[back])).stale == []
    record = bench.record("mine")
    assert (record["s"], record["a"]) == (b"x", b"2")
    assert "b" not in record
    assert bench.pending() == {}


async def test_a_job_that_was_given_back_unstarted_waits_and_is_cancelled_at_once(bench: Bench) -> None:
    claim = await bench.claimed()
    await bench.tick(outcomes=[done(claim)._replace(kind="return")])
    assert await bench.store.cancel(claim.job_id, "") == "cancelled"
    assert (bench.lane(), bench.pending(), await bench.claim()) == ([], {}, [])


async def test_a_request_ends_with_the_run_it_was_for(bench: Bench) -> None:
    claim = await bench.claimed("mine")
    await bench.store.cancel("mine", "stop")
    assert await bench.store.remove("mine", force=True) == "removed"
    assert requests(bench) == []
    again = await bench.claimed("mine")
    await bench.tick(outcomes=[done(claim), done(again)])
    assert bench.record("mine")["s"] == b"c"


async def test_a_request_whose_entry_is_gone_is_dropped_by_the_audit(bench: Bench) -> None:
    claim, other = await bench.claimed(), await bench.claimed()
    for each in (claim, other):
        await bench.store.cancel(each.job_id, "stop")
    bench.redis.xack(bench.key("lane:3"), "w", claim.entry)
    bench.redis.xdel(bench.key("lane:3"), claim.entry)
    await bench.tick("newcomer")
    assert requests(bench) == [other.entry]
    await bench.tick(outcomes=[done(other)])


@pytest.mark.parametrize("state", ["waiting", "delayed", "active"])
async def test_with_nothing_to_keep_nothing_is_left(bench: Bench, state: str) -> None:
    bench.store.settings = msgspec.structs.replace(bench.store.settings, keep_cancelled=Retention(count=0))
    job_id = await bench.in_state(state, "mine")
    await bench.store.cancel(job_id, "")
    if state == "active":
        await bench.tick(outcomes=[done((await bench.tick(list_held=True)).held[0])])
    assert bench.record(job_id) == {}
    assert (bench.scores("cancelled"), bench.lane(), bench.scores("delayed")) == ({}, [], {})
    assert bench.events_of(job_id)[-1] == "cancelled"


async def test_of_cancelled_jobs_only_so_many_are_kept_and_not_for_ever(bench: Bench) -> None:
    keep = Retention(count=2, age=60.0)
    bench.store.settings = msgspec.structs.replace(bench.store.settings, keep_cancelled=keep)
    ids = [await bench.add() for _ in range(3)]
    for job_id in ids:
        await bench.store.cancel(job_id, "")
    assert sorted(bench.scores("cancelled")) == sorted(ids[1:])
    assert bench.record(ids[0]) == {}
    bench.redis.zadd(bench.key("cancelled"), {ids[1]: bench.now_ms() - 61_000})
    await bench.tick()
    assert list(bench.scores("cancelled")) == ids[2:]


@pytest.mark.parametrize("state", ["waiting", "delayed", "active"])
async def test_a_cancelled_job_can_be_retried_and_runs_as_if_new(bench: Bench, state: str) -> None:
    job_id = await bench.in_state(state, "mine", body=envelope("work", [1]))
    await bench.store.cancel(job_id, "oops")
    if state == "active":
        await bench.tick(outcomes=[fail((await bench.tick(list_held=True)).held[0])])
    assert await bench.store.retry(job_id) == "retried"
    assert bench.scores("cancelled") == {}
    assert not {"w", "f", "b", "u"} & set(bench.record(job_id))
    (claim,) = await bench.claim(want=5)
    assert (claim.job_id, claim.attempts_made, claim.envelope) == (job_id, 0, envelope("work", [1]))

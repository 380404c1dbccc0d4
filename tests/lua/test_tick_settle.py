"""tick, settle: each attempt that has ended -> completed, delayed, waiting or failed."""

from __future__ import annotations

import pytest

from streamq._engine import codec
from streamq._engine.transitions import NOT_SETTLED, NewJob, bound_start
from tests.lua.conftest import Bench, EndsBy, done, envelope, envelope_of_size, fail, release, retry

READS = ("hget", "hmget")


async def test_a_completed_job_whose_retention_keeps_nothing_leaves_nothing(bench: Bench) -> None:
    claim = await bench.claimed()
    await bench.tick(outcomes=[done(claim, keep=0)])
    assert bench.lane() == []
    assert bench.pending() == {}
    assert bench.record(claim.job_id) == {}
    assert bench.scores("completed") == {}
    assert bench.events_of(claim.job_id) == ["added", "active", "completed"]


async def test_a_completed_job_that_is_kept_has_a_record_of_all_that_was_known(bench: Bench) -> None:
    body = envelope("work", {"month": 11})
    claim = await bench.claimed(body=body, lane=2)
    before = bench.now_ms()
    await bench.tick(outcomes=[done(claim, b"\x07")])
    record = bench.record(claim.job_id)
    finished = int(record.pop("f"))
    assert before <= finished <= bench.now_ms()
    created = str(claim.since_ms).encode()
    assert record == {
        "s": b"c", "p": b"2", "r": b"\x07", "a": b"1", "b": b"1790000000000", "c": created, "d": body,
    }  # fmt: skip
    assert bench.scores("completed") == {claim.job_id: finished}
    assert bench.lane(2) == []


async def test_a_completed_job_of_a_custom_id_keeps_its_creation_time(bench: Bench) -> None:
    claim = await bench.claimed("mine")
    created = bench.record("mine")["c"]
    await bench.tick(outcomes=[done(claim)])
    assert bench.record("mine")["c"] == created
    assert bench.record("mine")["s"] == b"c"


async def test_a_custom_id_is_free_again_when_nothing_of_its_job_is_kept(bench: Bench) -> None:
    claim = await bench.claimed("mine")
    await bench.tick(outcomes=[done(claim, keep=0)])
    await bench.add("mine")
    assert [parts["j"] for _, parts in bench.lane()] == [b"mine"]


async def test_a_retry_without_delay_goes_to_the_end_of_its_own_lane(bench: Bench) -> None:
    claim = await bench.claimed(lane=4)
    other = await bench.add(lane=4)
    await bench.tick(outcomes=[retry(claim)])
    (first, _), (second, parts) = bench.lane(4)
    assert first == f"{other}-0"
    assert second not in (claim.entry, first)
    assert parts["j"] == claim.job_id.encode()
    assert parts["d"] == claim.envelope
    record = bench.record(claim.job_id)
    assert (record["s"], record["e"], record["a"]) == (b"q", second.encode(), b"1")
    assert codec.decode_error(record["x"]).message == "boom"
    assert bench.events_of(claim.job_id)[-1] == "retrying"


async def test_a_retry_with_a_delay_is_delayed_and_its_envelope_is_in_its_record(bench: Bench) -> None:
    claim = await bench.claimed()
    before = bench.now_ms()
    await bench.tick(outcomes=[retry(claim, 5_000)])
    due = bench.scores("delayed")[claim.job_id]
    assert before + 5_000 <= due <= bench.now_ms() + 5_000
    record = bench.record(claim.job_id)
    assert (record["s"], record["d"], int(record["u"]), record["p"]) == (b"d", claim.envelope, due, b"3")
    assert bench.lane() == []


async def test_a_failed_job_is_in_the_failed_set_and_among_the_dead_letters(bench: Bench) -> None:
    claim = await bench.claimed(lane=1)
    outcome = fail(claim)
    await bench.tick(outcomes=[outcome])
    record = bench.record(claim.job_id)
    assert (record["s"], record["a"], record["x"], record["d"]) == (b"f", b"1", outcome.body, claim.envelope)
    assert bench.scores("failed") == {claim.job_id: int(record["f"])}
    assert bench.dead_letters() == [{"j": claim.job_id.encode(), "d": claim.envelope, "x": outcome.body, "p": b"1"}]
    assert bench.redis.xrange(bench.key("dead"))[0][0] == record["q"]
    assert bench.events_of(claim.job_id) == ["added", "active", "failed", "dead"]


async def test_a_failed_job_that_is_not_kept_leaves_its_dead_letter(bench: Bench) -> None:
    claim = await bench.claimed()
    await bench.tick(outcomes=[fail(claim, keep=0)])
    assert bench.record(claim.job_id) == {}
    assert bench.scores("failed") == {}
    assert [letter["d"] for letter in bench.dead_letters()] == [claim.envelope]


async def test_the_dead_letter_of_a_retried_job_has_the_envelope_of_its_record(bench: Bench) -> None:
    body = envelope_of_size(300)
    await bench.claimed("mine", body=body, start="@1")
    again = (await bench.tick(list_held=True)).held[0]
    await bench.tick(outcomes=[fail(again)])
    assert [letter["d"] for letter in bench.dead_letters()] == [body]


async def test_the_dead_letters_are_capped(bench: Bench) -> None:
    await bench.add(count=400)
    await bench.tick(outcomes=[fail(claim, keep=0) for claim in await bench.claim(want=400)], dead_cap=100)
    assert 100 <= len(bench.dead_letters()) < 300


@pytest.mark.parametrize(("counter", "field"), [("i", "i"), ("n", "n")])
async def test_a_released_job_goes_back_and_uses_no_attempt(bench: Bench, counter: str, field: str) -> None:
    claim = await bench.claimed(lane=2)
    await bench.tick(outcomes=[release(claim, counter=counter)])
    record = bench.record(claim.job_id)
    assert (record["s"], record["a"], record[field]) == (b"q", b"0", b"1")
    again = (await bench.claim())[0]
    assert (again.job_id, again.envelope, again.attempts_made) == (claim.job_id, claim.envelope, 0)


async def test_a_release_without_a_counter_raises_none(bench: Bench) -> None:
    claim = await bench.claimed()
    await bench.tick(outcomes=[release(claim, 9_000, counter="")])
    record = bench.record(claim.job_id)
    assert record["s"] == b"d"
    assert not {"i", "n", "k"} & set(record)
    assert bench.events_of(claim.job_id)[-1] == "delayed"


async def test_a_released_job_that_never_started_has_no_start(bench: Bench) -> None:
    claim = await bench.claimed()
    await bench.tick(outcomes=[release(claim, 9_000)])
    stored = await bench.store.get(claim.job_id)
    assert stored is not None
    assert stored.started_ms is None


@pytest.mark.parametrize("make", [done, fail, retry, release])
async def test_an_outcome_that_is_sent_twice_counts_once(bench: Bench, make: EndsBy) -> None:
    claim = await bench.claimed()
    assert (await bench.tick(outcomes=[make(claim)])).stale == []
    before = bench.dump("workers")
    assert (await bench.tick(outcomes=[make(claim)])).stale == [0]
    assert bench.dump("workers") == before


@pytest.mark.parametrize("make", [done, fail, retry, release])
async def test_the_outcome_of_a_lease_that_moved_on_changes_nothing(bench: Bench, make: EndsBy) -> None:
    frozen = await bench.claimed(worker="frozen")
    bench.lapse("frozen")
    await bench.tick("bob")
    again = (await bench.claim("bob"))[0]
    assert again.job_id == frozen.job_id
    await bench.tick("frozen")
    before = bench.dump("workers")
    assert (await bench.tick("frozen", outcomes=[make(frozen)])).stale == [0]
    assert bench.dump("workers") == before
    assert bench.pending() == {again.entry: "bob"}


@pytest.mark.parametrize("how", [done, fail, lambda claim: retry(claim, 60_000)], ids=["done", "fail", "retry"])
async def test_an_outcome_that_is_sent_again_beside_a_new_one_is_stale(bench: Bench, how: EndsBy) -> None:
    await bench.add("own")
    await bench.add()
    first, second = await bench.claim(want=2)
    await bench.tick(outcomes=[how(first)])
    before = bench.record(first.job_id), bench.events_of(first.job_id), len(bench.dead_letters())
    assert (await bench.tick(outcomes=[how(first), done(second)])).stale == [0]
    assert (bench.record(first.job_id), bench.events_of(first.job_id), len(bench.dead_letters())) == before


async def test_an_entry_that_somebody_deleted_counts_beside_a_stale_outcome(bench: Bench) -> None:
    await bench.add("own")
    await bench.add(count=2)
    claims = {claim.job_id: claim for claim in await bench.claim(want=3)}
    removed, plain = (claim for job_id, claim in claims.items() if job_id != "own")
    await bench.store.remove(removed.job_id, force=True)
    bench.redis.xdel(bench.key("lane:3"), claims["own"].entry)
    outcomes = [done(claims["own"], b"\x07"), done(removed), done(plain)]
    assert (await bench.tick(outcomes=outcomes)).stale == [1]
    assert bench.record("own")["s"] == b"c"
    assert bench.record("own")["r"] == b"\x07"
    assert bench.redis.zcard(bench.key("completed")) == 2


async def test_stale_outcomes_are_named_by_their_place(bench: Bench) -> None:
    await bench.add(count=4)
    one, two, three, four = await bench.claim(want=4)
    await bench.tick(outcomes=[done(two), retry(four)])
    reply = await bench.tick(outcomes=[done(one), done(two), fail(three), done(four)])
    assert reply.stale == [1, 3]
    assert set(bench.scores("completed")) == {one.job_id, two.job_id}
    assert set(bench.scores("failed")) == {three.job_id}


async def test_two_outcomes_of_one_attempt_in_one_call_count_once(bench: Bench) -> None:
    claim = await bench.claimed()
    assert (await bench.tick(outcomes=[done(claim), fail(claim)])).stale == [1]
    assert bench.scores("failed") == {}


async def test_thousands_of_outcomes_fit_one_call(bench: Bench) -> None:
    await bench.add(count=2_500)
    claims = await bench.claim(want=2_500)
    await bench.tick(outcomes=[done(claim, keep=10_000) for claim in claims])
    assert len(bench.scores("completed")) == 2_500
    assert bench.lane() == []


async def test_thousands_of_outcomes_that_keep_nothing_fit_one_call(bench: Bench) -> None:
    await bench.add(count=2_500)
    claims = await bench.claim(want=2_500)
    await bench.tick(outcomes=[done(claim, keep=0) for claim in claims])
    assert bench.redis.keys("*:job:*") == []


@pytest.mark.parametrize("size", [1, 63, 64, 65, 127, 128, 129, 1_023, 1_024, 1_025, 5_000])
async def test_an_envelope_of_any_size_survives_a_delay(bench: Bench, size: int) -> None:
    body = envelope_of_size(size)
    claim = await bench.claimed(body=body)
    await bench.tick(outcomes=[retry(claim, 1)])
    bench.redis.zadd(bench.key("delayed"), {claim.job_id: 1})
    again = (await bench.claim())[0]
    assert again.envelope == body
    assert again.attempts_made == 1


@pytest.mark.parametrize("size", [65, 700])
async def test_the_record_of_a_common_job_stays_a_listpack(bench: Bench, size: int) -> None:
    claim = await bench.claimed(body=envelope_of_size(size))
    await bench.tick(outcomes=[done(claim)])
    assert bench.redis.object("ENCODING", bench.key(f"job:{claim.job_id}")) == b"listpack"


async def test_a_worker_without_a_lease_settles_nothing_until_it_has_looked_at_what_it_holds(bench: Bench) -> None:
    claim = await bench.claimed()
    bench.redis.delete(bench.key("workers"))
    assert (await bench.tick(outcomes=[done(claim)])).stale == [NOT_SETTLED]
    assert (await bench.tick(list_held=True)).held[0].entry == claim.entry
    assert (await bench.tick(outcomes=[done(claim)])).stale == []
    assert bench.scores("completed").keys() == {claim.job_id}


@pytest.mark.parametrize("ends", [done, fail, retry, release])
async def test_a_job_without_a_record_may_be_named_by_its_id_all_the_same(bench: Bench, ends: EndsBy) -> None:
    first, second = await bench.claimed(), await bench.claimed()
    await bench.tick(outcomes=[ends(first), ends(second)._replace(job_id=second.job_id)])
    assert ends(first).job_id == ""
    assert bench.events_of(second.job_id)[2:] == bench.events_of(first.job_id)[2:]
    assert bench.record(second.job_id).keys() == bench.record(first.job_id).keys()
    assert (await bench.tick(outcomes=[ends(first), ends(second)])).stale == [0, 1]


async def test_jobs_without_a_record_are_not_asked_for_bonds(bench: Bench) -> None:
    await bench.add_raw(NewJob(3, bound_start("0", {"u": {"k": "key", "w": "r", "c": "e"}}), "", envelope()))
    await bench.claim()
    plain = [await bench.claimed() for _ in range(20)]

    def reads() -> int:
        return sum(
            int(bench.redis.info("commandstats").get(f"cmdstat_{name}", {"calls": 0})["calls"]) for name in READS
        )

    before = reads()
    await bench.tick()
    idle = reads() - before
    await bench.tick(outcomes=[done(claim, keep=0) for claim in plain])
    assert reads() - before - idle == idle


@pytest.mark.parametrize("held", [0, 7, 13, None])
async def test_entries_go_whatever_the_length_of_their_numbers(bench: Bench, held: int | None) -> None:
    bench.redis.set(bench.key("id"), 92)
    claims = [await bench.claimed() for _ in range(14)]  # 93 to 106
    await bench.tick(outcomes=[done(claim, keep=0) for at, claim in enumerate(claims) if at != held])
    left = [] if held is None else [claims[held].entry]
    assert [entry for entry, _ in bench.lane()] == left
    assert list(bench.pending()) == left

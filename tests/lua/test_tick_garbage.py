"""tick: garbage in a job's record, in `delayed`, `meta`, `wake` and other keys is told or mended, and holds up nobody.

What somebody else writes into a lane is in `test_tick_foreign`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from streamq._engine import codec
from streamq._engine.pages import Step
from streamq._engine.snapshots import snapshot
from streamq._engine.transitions import NewJob, bound_start
from tests.lua.conftest import Bench, done, envelope, fail, release, retry

NO_HASH = {"a string": lambda r, key: r.set(key, "x"), "a list": lambda r, key: r.rpush(key, "x")}
NUMBERS = ("a", "k", "i", "n", "u", "c", "b", "f", "kw", "ut", "fn", "fo", "ff")
FIELDS = (*NUMBERS, "s", "p", "ky", "uk", "uw", "fl", "fk", "ft", "wh", "d1", "q", "m", "x", "g", "r")
GARBAGE = (b"", b"\xff\xc1", b"x", b"9" * 400, b"-1.5")
BREAKS = [*NO_HASH, *(f"{field}={value!r:.12}" for field in FIELDS for value in GARBAGE)]
CANCELLED = "s=b'x'"
"""A break that is none to look at: it says that the job was cancelled."""
UNIQUE = {"u": {"k": "u", "w": "r", "c": "e"}, "k": "acme", "w": "http://localhost/"}
REFUSED_IF_HELD = {**UNIQUE, "u": {"k": "u", "w": "r", "c": "x"}}


@pytest.fixture
async def broken(bench: Bench) -> AsyncIterator[Bench]:
    """A queue in which keys are broken by hand: they can't be expected to agree in the end."""
    bench.sabotaged = True
    await bench.add("first", start="0", key="other")  # so that bonds count
    yield bench
    bench.redis.flushdb()  # what breaks a key is no key of ours, and has no lifetime


def break_record(bench: Bench, job_id: str, how: str) -> None:
    """Write garbage into a job's record."""
    key = bench.key(f"job:{job_id}")
    if how in NO_HASH:
        bench.redis.delete(key)
        NO_HASH[how](bench.redis, key)
        return
    field, _, shown = how.partition("=")
    bench.redis.hset(key, field, next(value for value in GARBAGE if f"{value!r:.12}" == shown))


async def victim(bench: Bench, start: str = "0") -> str:
    """Add a job that is bound in every way."""
    await bench.store.add("v", 1, [_job(start, "victim", UNIQUE)], within=5)
    return "victim"


def _job(start: str, job_id: str, bonds: dict[str, Any]) -> NewJob:
    return NewJob(3, bound_start(start, bonds), job_id, envelope(job_id))


async def all_go_on(bench: Bench, *, key_is_hidden: bool = False) -> set[str]:
    """Let a worker run all there is, and then a job more; returns what it ran. See `nothing_is_held`."""
    await bench.add("good")
    ran: set[str] = set()
    for _ in range(6):
        claims = (await bench.tick("bob", 50)).claimed
        ran |= {claim.job_id for claim in claims}
        assert (await bench.tick("bob", 0, [done(claim) for claim in claims])).stale == []
    assert {"first", "good"} <= ran
    assert sum(len(bench.lane(lane)) for lane in (1, 2, 3, 4)) == 0
    await nothing_is_held(bench, key_is_hidden=key_is_hidden)
    return ran


async def nothing_is_held(bench: Bench, *, key_is_hidden: bool) -> None:
    """See that another job gets all that the victim was bound to, and runs.

    What its unique key is stands nowhere but in its record. If that is lost (`key_is_hidden`), the key is not held for
    ever all the same: it is free when the record goes.
    """
    if key_is_hidden:
        await bench.store.remove("victim")
    await bench.store.add("again", 1, [_job("0", "again", REFUSED_IF_HELD)], within=5, all_or_none=True)
    assert [claim.job_id for claim in await bench.claim("bob", 9)] == ["again"]


def reasons(bench: Bench) -> list[str]:
    """The types of the dead letters' errors."""
    return [codec.decode_error(letter["x"]).type for letter in bench.dead_letters()]


@pytest.mark.parametrize("where", ["its lane", "delayed", "a lost worker"])
async def test_a_broken_record_holds_up_nobody(broken: Bench, where: str) -> None:
    faults = []
    for how in BREAKS:
        broken.redis.flushdb()
        broken.calls = 0
        await broken.add("first", key="other")
        job_id = await victim(broken, "+60000" if where == "delayed" else "0")
        if where == "a lost worker":
            await broken.claim("ann", 9)
        break_record(broken, job_id, how)
        if where == "delayed":
            broken.redis.zadd(broken.key("delayed"), {job_id: 1})
        elif where == "a lost worker":
            broken.lapse()
        try:
            # One whose state says that it was cancelled is none of its lane's, and left as it is.
            passes_for_cancelled = where == "its lane" and how == CANCELLED
            ran = await all_go_on(broken, key_is_hidden=how.startswith("uk=") or passes_for_cancelled)
        except Exception as error:
            faults.append(f"{how}: {type(error).__name__}: {error!s:.200}")
            continue
        if "victim" not in ran and not reasons(broken):
            faults.append(f"{how}: it neither ran nor became a dead letter")
    assert not faults, f"{len(faults)} of {len(BREAKS)}:\n" + "\n".join(faults)


@pytest.mark.parametrize("ends", ["done", "unkept", "fail", "retry", "retry later", "release"])
async def test_a_record_that_breaks_while_its_job_runs_costs_no_other_outcome(broken: Bench, ends: str) -> None:
    faults = []
    for how in BREAKS:
        broken.redis.flushdb()
        broken.calls = 0
        await victim(broken)
        await broken.add(count=3)
        claims = await broken.claim(want=4)
        break_record(broken, "victim", how)
        outcomes = [done(claim) for claim in claims]
        mine = next(at for at, claim in enumerate(claims) if claim.job_id == "victim")
        outcomes[mine] = {
            "done": done(claims[mine]), "unkept": done(claims[mine], keep=0), "fail": fail(claims[mine]),
            "retry": retry(claims[mine]), "retry later": retry(claims[mine], 60_000), "release": release(claims[mine]),
        }[ends]  # fmt: skip
        try:
            assert (await broken.tick(outcomes=outcomes)).stale == []
            assert len(broken.scores("completed")) >= 3
            assert broken.pending() == {}
            broken.redis.zadd(broken.key("delayed"), {"victim": 1}, xx=True)
            await broken.add("first")
            await all_go_on(broken, key_is_hidden=how.startswith("uk=") or how in NO_HASH)
        except Exception as error:
            faults.append(f"{how}: {type(error).__name__}: {error!s:.200}")
    assert not faults, f"{len(faults)} of {len(BREAKS)}:\n" + "\n".join(faults)


@pytest.mark.parametrize("how", [how for how in BREAKS if how not in NO_HASH])
async def test_a_broken_record_can_be_looked_at(broken: Bench, how: str) -> None:
    await victim(broken)
    break_record(broken, "victim", how)
    stored = await broken.store.get("victim")
    assert stored is not None
    assert snapshot("q", "victim", stored).id == "victim"


@pytest.mark.parametrize("how", [how for how in BREAKS if how.startswith("s=") and how != CANCELLED])
async def test_a_job_in_no_state_is_given_up_and_can_be_redriven(broken: Bench, how: str) -> None:
    await victim(broken)
    break_record(broken, "victim", how)
    assert [claim.job_id for claim in await broken.claim(want=9)] == ["first"]
    assert reasons(broken) == ["BrokenRecord"]
    assert broken.record("victim") == {}
    assert (await broken.store.redrive(Step(), 100, b"", b"")).ids == ["victim"]
    assert broken.dead_letters() == []
    _webhook, again = await broken.claim(want=9)
    assert (again.job_id, again.envelope) == ("victim", envelope("victim"))


OTHERS = {
    "a member of delayed without a job": lambda r, q: r.zadd(f"{q}:delayed", {"nobody": 1, b"\xff\x00": 2, "": 3}),
    "a wake list that is a string": lambda r, q: r.set(f"{q}:wake", "x"),
    "many wake tokens": lambda r, q: r.rpush(f"{q}:wake", *"abc"),
    "limits that are no numbers": lambda r, q: r.hset(
        f"{q}:meta", mapping={"rate_max": "x", "rate_ms": b"\xff", "max_active": "many", "hold_until": "never"}
    ),
    "counters that are no numbers": lambda r, q: r.hset(
        f"{q}:meta", mapping=dict.fromkeys(("minute", "minute_c", "minute_f", "spare", "cancelled", "parked_3"), "x")
    ),
    "ages that are no numbers": lambda r, q: r.hset(
        f"{q}:meta", mapping=dict.fromkeys(("completed_age", "failed_age", "audit_at", "key_audit"), "x")
    ),
    "settings of keys that are no numbers": lambda r, q: r.hset(
        f"{q}:meta", mapping=dict.fromkeys(("key_active", "key_rate_max", "key_rate_ms", "key_weight"), "x")
    ),
    "starts that are none": lambda r, q: (
        r.hset(f"{q}:meta", mapping={"rate_max": 1000, "rate_ms": 1000}),
        r.rpush(f"{q}:starts", "x", "1:1", "y:2", ""),
    ),
    "starts of another type": lambda r, q: (
        r.hset(f"{q}:meta", mapping={"rate_max": 1000, "rate_ms": 1000}),
        r.set(f"{q}:starts", "x"),
    ),
    "requests to cancel that are none": lambda r, q: r.hset(f"{q}:cancels:bob", mapping={"5-0": b"\xc1", "x": "x"}),
    "requests to cancel of another type": lambda r, q: r.set(f"{q}:cancels:bob", "x"),
    "a batch that is none": lambda r, q: (r.zadd(f"{q}:batches", {"b": 1}), r.rpush(f"{q}:batch:b", "9", "x")),
    "a batch of another type": lambda r, q: (r.zadd(f"{q}:batches", {"b": 1}), r.set(f"{q}:batch:b", "x")),
    "a schedule that is not there": lambda r, q: r.zadd(f"{q}:schedules", {"nobody": 1}),
    "a key to look at that nobody has": lambda r, q: r.zadd(f"{q}:key_looks", {"nobody": 1}),
    "a key whose turn it is that nobody has": lambda r, q: r.zadd(f"{q}:turns:3", {"nobody": 1}),
    "a parked job that is none": lambda r, q: (
        r.rpush(f"{q}:parking:3:k", "x", "7:", ""),
        r.zadd(f"{q}:turns:3", {"k": 1}),
    ),
    "an event stream of another type": lambda r, q: (r.delete(f"{q}:events"), r.set(f"{q}:events", "x")),
    "minutes of another type": lambda r, q: (r.set(f"{q}:minutes", "x"), r.hset(f"{q}:meta", "minute", 1)),
}


@pytest.mark.parametrize("what", OTHERS)
async def test_garbage_in_another_key_holds_up_nobody(broken: Bench, what: str) -> None:
    OTHERS[what](broken.redis, broken.store.base)
    assert (await broken.store.renew("bob", 60_000)).cancels == {}
    await victim(broken)
    assert "victim" in await all_go_on(broken)
    expected = {"a member of delayed without a job": 3, "a batch that is none": 1, "a batch of another type": 1}
    assert reasons(broken) == ["BrokenRecord"] * expected.get(what, 0)


@pytest.mark.parametrize("entry", ["*", "1790000000000-0"])
@pytest.mark.parametrize("state", ["waiting", "parked", "active", "delayed", "ended", "unknown"])
async def test_a_foreign_entry_cannot_pass_for_a_bound_job(broken: Bench, entry: str, state: str) -> None:
    """Whatever it says: the job keeps its key, its unique key and its webhook, and runs once."""
    await victim(broken, "+60000" if state == "delayed" else "0")
    claims = await broken.claim(want=9) if state in ("active", "ended") else []
    if state == "parked":
        await broken.store.pause_key("acme")
        assert [claim.job_id for claim in await broken.claim(want=9)] == ["first"]
    if state == "ended":
        await broken.tick(outcomes=[done(claim) for claim in claims])
    before = broken.record("victim")
    name = "nobody" if state == "unknown" else "victim"
    for lane in (1, 3):
        fields = {"j": name, "d": envelope("forged"), "t": "1"}
        broken.redis.xadd(broken.key(f"lane:{lane}"), fields, entry)
    forged = [claim for claim in await broken.claim("bob", 9) if claim.envelope == envelope("forged")]
    assert [claim.job_id for claim in forged] == (["nobody"] * len(forged))
    assert len(reasons(broken)) == 2 - len(forged)
    after = broken.record("victim")
    assert {field: after[field] for field in ("ky", "uk", "wh", "s")} == {k: before[k] for k in ("ky", "uk", "wh", "s")}
    assert state == "unknown" or forged == []

"""A script that errors has written nothing: with hostile arguments, and with keys of the wrong type, one at a time.

A script that does not error may do what it likes with nonsense here; what it must not do is stop half way. `tick` and
`add` are called too often to look at each outcome and each job first (and `tick` at each key): of them, the arguments
are tried that hold for the whole call.
The counter may have moved on: it only ever goes up, and numbers may be missing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
import redis

from streamq import Settings
from streamq._engine import scripts
from streamq._engine.endpoint import Endpoint
from streamq._engine.store import Store
from streamq._engine.transitions import NewJob
from streamq._engine.wire import Wire
from tests.lua.conftest import Bench, done, envelope, fail, release
from tests.lua.schedules import scheduled

Arg = Any
CAP = 10_000
DAY_MS = 86_400_000
ERROR = msgspec.msgpack.encode(["ValueError", "boom", ""])

HOSTILE: list[Any] = [
    "", "0", "-1", "1", "x", "nan", "inf", "1e400", "9" * 400, "-9223372036854775808", "9223372036854775807", "1.5",
    "\0", b"\xff\xfe", "5-0", "0-0", "+", "-", "a" * 70_000, "job:1", "0|\x80",
]  # fmt: skip

HEADS = {"add": (0, 1, 2, 3), "tick": (1, 2, 3, 7)}
"""Of `tick`: the lease, jobs wanted, stalls, number of marks."""

JOB_BY_JOB = {"cancel_many", "forward"}
"""A record of another type ends these at that job; those before it are done, and the next call goes on."""

WRONG = ("string", "list", "hash")
"""What a key is turned into, unless it is that anyhow."""


class Dataset:
    """A queue with something in each place, to be brought back at will."""

    def __init__(self, client: redis.Redis, base: str) -> None:
        self.client, self.base = client, base
        self._kept = self.dump()
        self._counter = client.get(f"{base}:id")

    def dump(self) -> dict[bytes, bytes]:
        """All keys, serialized; equal if nothing was written in between."""
        names = sorted(self.client.keys())
        pipe = self.client.pipeline(transaction=False)
        for name in names:
            pipe.dump(name)
        found = dict(zip(names, pipe.execute(), strict=True))
        found.pop(f"{self.base}:id".encode(), None)
        return found

    def restore(self) -> None:
        """Be as at the beginning."""
        pipe = self.client.pipeline(transaction=False)
        pipe.flushdb()
        for name, value in self._kept.items():
            pipe.restore(name, 0, value)
        pipe.set(f"{self.base}:id", self._counter)
        pipe.execute()

    def run(self, name: str, args: list[Arg]) -> str:
        """Run a script; returns its error, or ""."""
        script = scripts.load(name)
        try:
            try:
                self.client.evalsha(script.sha, 1, self.base, *args)
            except redis.exceptions.NoScriptError:
                self.client.eval(script.body, 1, self.base, *args)
        except redis.exceptions.ResponseError as error:
            return str(error) or "?"
        return ""


@pytest.fixture
async def dataset(redis_url: str) -> Any:
    """Jobs of all states, some with ids of their own, letters, a staged batch, a schedule, limits, workers."""
    client = redis.Redis.from_url(redis_url)
    wire = Wire(Endpoint(redis_url, 5.0))
    bench = Bench(Store("q", wire, Settings()), client)
    await bench.store.limit(None, None)
    await bench.store.max_size(1_000)
    for lane in (1, 2, 3, 4):
        await bench.add(lane=lane, count=2)
    await bench.add("own")
    await bench.add("late", start="+60000")
    await bench.add("due", start="@1")
    claims = await bench.claim(want=9)
    returned = done(claims[0])._replace(kind="return")
    await bench.tick(
        outcomes=[returned, done(claims[1]), fail(claims[2]), release(claims[3]), release(claims[4], 90_000)]
    )
    await bench.claim("bob", 1)
    await bench.store.progress(claims[5].lane, claims[5].entry, claims[5].job_id, b"\x05")
    await bench.store.log(claims[5].lane, claims[5].entry, claims[5].job_id, "line")
    await bench.store.stage("batch", 0, [NewJob(3, "0", "", envelope())])
    await bench.store.stage("gone", 0, [NewJob(3, "0", "", envelope())])
    client.set(bench.key("follow:own"), 1, px=30_000)
    client.zadd(bench.key("batches"), {"batch": 9e12})
    await scheduled(bench, schedule_id="daily")
    dataset = Dataset(client, bench.store.base)
    yield dataset
    client.close()
    await wire.close()


def templates(dataset: Dataset) -> dict[str, list[Arg]]:
    """Arguments with which each script does something."""
    client, base = dataset.client, dataset.base
    held = _held(client, base)
    lane, entry, job_id = held["ann"]
    schedule = {k.decode(): v for k, v in client.hgetall(f"{base}:schedule:daily").items()}
    jobs: list[Arg] = ["3", "0", "", envelope(), "2", "+500", "new", envelope(), "1", "0", "mine", envelope()]
    letter = client.xrange(f"{base}:dead")[0][0].decode()
    failed = client.zrange(f"{base}:failed", 0, 0)[0].decode()
    outcomes: list[Arg] = [
        *("retry", lane, entry, job_id, ERROR, 0, 0, 1_790_000_000_000, 1),
        *("done", lane, entry, job_id, b"\x07", 5, DAY_MS, 1_790_000_000_000, 1),
        *("fail", lane, entry, job_id, ERROR, 5, DAY_MS, 1_790_000_000_000, 1),
    ]
    return {
        "add": ["n2", 1, CAP, "", *jobs],
        "stage": ["batch", 1, *jobs],
        "commit": ["b", 1, CAP, "batch", "1"],
        "tick": ["ann", 60_000, 5, 3, 1, CAP, CAP, 1, "own", *outcomes],
        "renew": ["ann", 60_000],
        "leave": ["bob"],
        "wake": [],
        "progress": [lane, entry, job_id, b"\x06", CAP],
        "log": [lane, entry, job_id, "line", 10, CAP],
        "remember": [lane, entry, job_id, "scharge", b"\x07"],
        "pause": [CAP],
        "resume": [CAP],
        "limit": ["5", "1000", "2"],
        "max_size": ["100"],
        "retry": [failed, CAP],
        "retry_many": ["failed", "", 0, 10, "", "", CAP],
        "redrive": ["-", letter, 10, "", "", CAP],
        "purge_dead": ["-", letter, 10, "", "", CAP],
        "remove": ["own", "1", CAP],
        "promote": ["late", CAP],
        "reschedule": ["late", "+5", CAP],
        "change_priority": ["late", "1", CAP],
        "update_data": ["late", envelope(), envelope("new"), CAP],
        "clean": ["waiting", 0, "", 0, 10, "1", CAP],
        "drain": ["1", "", "", 10, CAP],
        "obliterate": ["1", 100, CAP],
        "schedule": ["weekly", "spec", "timing", "3", envelope(), "skip", "", "1", "2"],
        "fire": ["daily", schedule["rev"], schedule["next"], "", CAP, 5, DAY_MS, 0, 0, "5", "5", "6", "6"],
        "trigger": ["daily", "nonce", CAP],
        "suspend": ["daily"],
        "restart": ["daily", schedule["rev"], "5"],
        "unschedule": ["daily"],
        "limit_key": ["acme", "5", "1000", "2", "3"],
        "pause_key": ["acme"],
        "resume_key": ["acme"],
        "forward": ["sq:{other}", CAP, "", ""],
        "cancel": ["late", "why", 5, DAY_MS, CAP],
        "cancel_many": ["waiting", "", "", 10, "", "why", 5, DAY_MS, CAP],
    }


def _held(client: redis.Redis, base: str) -> dict[str, tuple[int, str, str]]:
    found = {}
    for lane in (1, 2, 3, 4):
        for item in client.xpending_range(f"{base}:lane:{lane}", "w", "-", "+", 100):
            entry = item["message_id"].decode()
            found[item["consumer"].decode()] = lane, entry, entry.partition("-")[0]
    return found


def test_every_script_that_writes_is_tried(dataset: Dataset) -> None:
    writers = {name for name in scripts.names() if "no-writes" not in scripts.load(name).body.split("\n", 1)[0]}
    assert set(templates(dataset)) == writers


@pytest.mark.timeout(300)
def test_a_script_that_meets_a_key_of_another_type_writes_all_or_nothing(dataset: Dataset) -> None:
    keys = sorted(dataset.client.keys())
    faults: set[str] = set()
    for name, args in templates(dataset).items():
        for key in keys if name != "tick" else []:
            if name in JOB_BY_JOB and b":job:" in key:
                continue
            for wrong in WRONG:
                dataset.restore()
                if dataset.client.type(key).decode() == wrong:
                    continue
                dataset.client.delete(key)
                _make(dataset.client, key, wrong)
                before = dataset.dump()
                error = dataset.run(name, args)
                if error and dataset.dump() != before:
                    faults.add(f"{name}: {key.decode().removeprefix(dataset.base)} is a {wrong}: {error[:90]}")
    assert not faults, "\n".join(sorted(faults))


@pytest.mark.timeout(300)
def test_a_script_that_meets_hostile_arguments_writes_all_or_nothing(dataset: Dataset) -> None:
    faults: set[str] = set()
    chance = random.Random(7)  # noqa: S311 - always the same nonsense
    for name, good in templates(dataset).items():
        tried = _mutations_at(good, HEADS[name]) if name in HEADS else _mutations(good, chance)
        for args, what in tried:
            dataset.restore()
            before = dataset.dump()
            error = dataset.run(name, args)
            if error and dataset.dump() != before:
                faults.add(f"{name}: {what}: {error[:90]}")
    assert not faults, "\n".join(sorted(faults))


def _mutations_at(good: list[Arg], places: Sequence[int]) -> list[tuple[list[Arg], str]]:
    """Some arguments replaced by each hostile value; not the number of marks by another number."""
    return [
        ([*good[:at], bad, *good[at + 1 :]], f"argument {at + 1} is {bad!r:.30}")
        for at in places
        for bad in HOSTILE
        if not (at == 7 and str(bad).lstrip("-").isdigit())
    ]


def _make(client: redis.Redis, key: bytes, kind: str) -> None:
    make: dict[str, Callable[[], Any]] = {
        "string": lambda: client.set(key, "x"),
        "list": lambda: client.rpush(key, "x"),
        "hash": lambda: client.hset(key, "x", "x"),
    }
    make[kind]()


def _mutations(good: list[Arg], chance: random.Random) -> list[tuple[list[Arg], str]]:
    """Each argument replaced by each hostile value, arguments left out and put behind, and several at once."""
    found: list[tuple[list[Arg], str]] = []
    for at in range(len(good)):
        found += [([*good[:at], bad, *good[at + 1 :]], f"argument {at + 1} is {bad!r:.30}") for bad in HOSTILE]
    found += [(good[:upto], f"only {upto} arguments") for upto in range(len(good))]
    found += [([*good, bad], f"{bad!r:.30} more") for bad in HOSTILE]
    for _ in range(40):
        mixed = [chance.choice(HOSTILE) if chance.random() < 0.3 else arg for arg in good]
        found.append((mixed, f"arguments {mixed!r:.100}"))
    return found

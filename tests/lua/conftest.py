"""A queue's transitions, one at a time, on a real server: no worker and no `Queue` in between.

No test here sleeps: a lease lapses because its expiry is set into the past, a delay is over because its time was.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest
import redis

from streamq import Settings
from streamq._engine import codec, scripts
from streamq._engine.endpoint import Endpoint
from streamq._engine.store import Store
from streamq._engine.transitions import Claim, NewJob, Outcome, TickArgs, TickReply, bound_start
from streamq._engine.wire import Wire
from streamq.job import JobError
from tests.lua.key_table import strays
from tests.lua.places import misplaced

EndsBy = Callable[..., Outcome]
"""One of `done`, `fail`, `retry`, `release` below."""

DAY_MS = 86_400_000
STATES = {"c": "completed", "f": "failed", "x": "cancelled", "d": "delayed", "w": "waiting_children"}


def envelope(name: str = "work", data: Any = None) -> bytes:
    """Encode a job as a lane holds it."""
    return codec.encode_envelope(name, codec.encode_data("data", data, 10_000_000), None)


def envelope_of_size(size: int) -> bytes:
    """Return bytes in an envelope's place; the scripts never look inside."""
    return bytes(ord("a") + i % 26 for i in range(size))


class Bench:
    """One queue: its store, and eyes and hands that bypass the scripts."""

    def __init__(self, store: Store, client: redis.Redis) -> None:
        self.store, self.redis = store, client
        self.calls = 0
        self.sabotaged = False
        """Set by a test that breaks keys by hand, and so can't expect them to agree at its end."""

    def key(self, rest: str) -> str:
        """Name a key of the queue."""
        return f"{self.store.base}:{rest}"

    # The transitions, with what a test mostly wants -------------------------------------------------------------------

    async def call(self, script: str, *args: Any) -> Any:
        """Run a script with arguments as they go over the wire, without the store's reading of its reply."""
        found = scripts.load(script)
        return self.redis.eval(found.body, 1, self.store.base, *args)

    async def add_raw(self, *jobs: NewJob, nonce: str = "n", number: int | None = None) -> list[int]:
        """Call `add` and return its reply."""
        self.calls += 1
        return await self.store.add(nonce, number or self.calls, jobs, within=5)

    async def add(
        self,
        job_id: str = "",
        *,
        lane: int = 3,
        start: str = "0",
        body: bytes | None = None,
        count: int = 1,
        key: str = "",
    ) -> str:
        """Add `count` equal jobs; returns the id of the first."""
        body = envelope() if body is None else body
        said = bound_start(start, {"k": key}) if key else start
        reply = await self.add_raw(*[NewJob(lane, said, job_id, body)] * count)
        return job_id or str(reply[0])

    async def tick(
        self,
        worker: str = "ann",
        want: int = 0,
        outcomes: Sequence[Outcome] = (),
        *,
        lease_ms: int = 60_000,
        max_stalls: int = 3,
        dead_cap: int = 10_000,
        list_held: bool = False,
        marks: Sequence[str] = (),
    ) -> TickReply:
        """One tick of `worker`."""
        args = TickArgs(worker=worker, lease_ms=lease_ms, max_stalls=max_stalls, events_cap=10_000, dead_cap=dead_cap)
        return await self.store.tick(args, want, outcomes, list_held=list_held, marks=marks)

    async def claim(self, worker: str = "ann", want: int = 1) -> list[Claim]:
        """Claim up to `want` jobs."""
        return (await self.tick(worker, want)).claimed

    async def claimed(self, job_id: str = "", worker: str = "ann", **add: Any) -> Claim:
        """Add one job and claim it."""
        await self.add(job_id, **add)
        return (await self.claim(worker))[0]

    async def ended(self, kind: str = "fail", job_id: str = "", **add: Any) -> Claim:
        """Add a job, claim it and let it end."""
        claim = await self.claimed(job_id, **add)
        await self.tick(outcomes=[done(claim) if kind == "done" else fail(claim)])
        return claim

    async def in_state(self, state: str, job_id: str = "", **add: Any) -> str:
        """Bring a new job into a state; returns its id."""
        if state in ("completed", "failed"):
            return (await self.ended("done" if state == "completed" else "fail", job_id, **add)).job_id
        if state == "active":
            return (await self.claimed(job_id, **add)).job_id
        return await self.add(job_id, start="+60000" if state == "delayed" else "0", **add)

    def lapse(self, worker: str = "ann") -> None:
        """Let a worker's lease be over, as if it had given it up: whether others live plays no part."""
        self.redis.zadd(self.key("workers"), {worker: 0})

    # Looking ----------------------------------------------------------------------------------------------------------

    def dump(self, *but: str) -> dict[str, bytes]:
        """Return every key's serialized value, except those `but`: what compares equal has not been written to."""
        left_out = {self.key(rest) for rest in but}
        names = sorted(key.decode() for key in self.redis.scan_iter(count=1000))
        return {name: self.redis.dump(name) for name in names if name not in left_out}

    def record(self, job_id: str) -> dict[str, bytes]:
        """A job's record; empty if it has none."""
        return {name.decode(): value for name, value in self.redis.hgetall(self.key(f"job:{job_id}")).items()}

    def lane(self, lane: int = 3) -> list[tuple[str, dict[str, bytes]]]:
        """The entries of a lane."""
        found = self.redis.xrange(self.key(f"lane:{lane}"))
        return [(entry.decode(), {k.decode(): v for k, v in fields.items()}) for entry, fields in found]

    def pending(self, lane: int = 3) -> dict[str, str]:
        """The entries that workers hold in a lane, and who does."""
        lane_key = self.key(f"lane:{lane}")
        if not self.redis.exists(lane_key) or not self.redis.xinfo_groups(lane_key):
            return {}
        found = self.redis.xpending_range(lane_key, "w", "-", "+", 10_000)
        return {item["message_id"].decode(): item["consumer"].decode() for item in found}

    def scores(self, name: str) -> dict[str, int]:
        """A sorted set, in order."""
        return {m.decode(): int(score) for m, score in self.redis.zrange(self.key(name), 0, -1, withscores=True)}

    def events(self) -> list[tuple[str, str]]:
        """All events, as (kind, job id)."""
        found = []
        for _, fields in self.redis.xrange(self.key("events")):
            for kind, ids in fields.items():
                found += [(kind.decode(), job_id) for job_id in ids.decode().split("\0")]
        return found

    def events_of(self, job_id: str) -> list[str]:
        """The kinds of a job's events, in order."""
        return [kind for kind, about in self.events() if about == job_id]

    def dead_letters(self) -> list[dict[str, bytes]]:
        """The fields of the dead letters."""
        return [{k.decode(): v for k, v in fields.items()} for _, fields in self.redis.xrange(self.key("dead"))]

    def woken(self) -> bool:
        """Take the wake token; False if there is none."""
        assert self.redis.llen(self.key("wake")) <= 1
        return self.redis.lpop(self.key("wake")) is not None

    def now_ms(self) -> int:
        """The server's time."""
        seconds, micros = self.redis.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def disagreements(self) -> list[str]:
        """Say which records, sets and lanes contradict one another."""
        found = []
        in_lanes = {(lane, entry) for lane in (1, 2, 3, 4) for entry, _ in self.lane(lane)}
        sets = {name: self.scores(name) for name in STATES.values()}
        ours = self.redis.scan_iter(match=self.key("job:*"), count=1000)
        records = {key.decode().partition(":job:")[2] for key in ours}
        parents = self.redis.scan_iter(match=self.key("children:*"), count=1000)
        lost = [key for key in parents if key.decode().partition(":children:")[2] not in records]
        found += [f"{key!r} is of a job that has no record" for key in lost]
        for job_id in records:
            record = self.record(job_id)
            state = record["s"].decode()
            if state == "q":
                if (int(record["p"]), record["e"].decode()) not in in_lanes:
                    found.append(f"job {job_id} says it is in lane {record['p']!r}, entry {record['e']!r}; it is not")
            elif state == "p":
                continue  # see `misplaced`
            elif job_id not in sets[STATES[state]]:
                found.append(f"job {job_id} says it is {STATES[state]}; that set does not hold it")
        for name, members in sets.items():
            found += [f"{name} holds {job_id}, which has no record" for job_id in members if job_id not in records]
        return found + misplaced(self.redis, self.store.base)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A plain client of the empty database."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def bench(redis_url: str, client: redis.Redis) -> AsyncIterator[Bench]:
    """An empty queue."""
    wire = Wire(Endpoint(redis_url, 5.0))
    bench = Bench(Store("q", wire, Settings()), client)
    yield bench
    await wire.close()
    if not bench.sabotaged:
        assert bench.disagreements() == []


@pytest.fixture(autouse=True)
def documented_keys(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a key which docs/keys.md does not know, or without the lifetime that it promises."""
    client = request.getfixturevalue("client") if "bench" in request.fixturenames else None
    yield
    if client is not None:
        assert strays(client) == []


# How an attempt ends --------------------------------------------------------------------------------------------------


def done(claim: Claim, result: bytes = b"", *, keep: int = 100, age_ms: int = DAY_MS) -> Outcome:
    """It returned."""
    return _outcome("done", claim, result, keep, age_ms)


def fail(claim: Claim, error: str = "boom", *, keep: int = 100, age_ms: int = DAY_MS) -> Outcome:
    """It raised for good."""
    return _outcome("fail", claim, codec.encode_error(JobError("ValueError", error)), keep, age_ms)


def retry(claim: Claim, delay_ms: int = 0, error: str = "boom") -> Outcome:
    """It raised, and an attempt is left."""
    return _outcome("retry", claim, codec.encode_error(JobError("ValueError", error)), delay_ms, 0)


def release(claim: Claim, delay_ms: int = 0, counter: str = "i") -> Outcome:
    """It was handed back."""
    outcome = _outcome("release", claim, b"", delay_ms, counter)
    return outcome._replace(attempts_made=claim.attempts_made, started_ms=0)


def _outcome(kind: str, claim: Claim, body: bytes, a: int, b: int | str) -> Outcome:
    made = claim.attempts_made + 1
    return Outcome(kind, claim.lane, claim.entry, claim.recorded_id, body, a, b, 1_790_000_000_000, made)

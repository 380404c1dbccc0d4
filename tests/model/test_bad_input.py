"""500 values in each of nine places of an add: refused with a clear error before anything is sent, or exactly as given.

What is taken goes one of four ways: it is claimed at once, after a delay, again after a retry, or again after its
worker was lost.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import redis

from streamq import Queue, Settings, StreamqError
from streamq._engine import codec
from streamq._engine.transitions import Claim, Outcome, TickArgs
from streamq.job import JobError

VALUES = 500
PLACES = ("name", "data", "job_id", "priority", "delay", "headers", "tags", "attempts", "queue")
WAYS = ("at once", "delayed", "retried", "reclaimed")

ODD: list[Any] = [
    None, True, False, 0, -1, 1, 3, 2**31, 2**53 + 1, 2**63, -(2**63) - 1,
    10**400, 0.1, -0.0, math.nan, math.inf, -math.inf,
    "", " ", "a", "0", "17", "017", "-1", "1e3", "a b", "\0", "\n", "é",
    "e\u0301", "\u2028", "\ud800", "𝄞", "{", "}", "{x}",
    "a:b", "*", "x" * 256, "x" * 257, "é" * 128, "x" * 100_000, b"", b"a", b"\xff", bytearray(b"a"), memoryview(b"a"),
    [], {}, (), set(), frozenset({1}), [None], [[[]]], {"": None},
    {"a": {"b": [1, "x", None, 2.5]}}, {1: 2}, {None: 1},
    {"a": object()}, [float("nan")], (1, 2), {1, 2}, object(), object, len,
    lambda: 0, Decimal("1.5"), 1 + 2j, UUID(int=7),
    datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1), date(2026, 1, 1),
    timedelta(seconds=1), timedelta(days=-1),
    Exception("x"), range(3), iter([1]), ["a", "b"], ["a", "a"], [""],
    ["x" * 300], ("a",), ("a\0",), {"a": "b"}, {"a": 1},
    {"\0": "x"}, {"a": "x" * 20_000}, NotImplemented, ...,
]  # fmt: skip


def values() -> list[Any]:
    """The odd ones, and random ones up to the number promised."""
    chance = random.Random(11)  # noqa: S311 - the same ones each time
    found = list(ODD)
    while len(found) < VALUES:
        found.append(_random(chance, 3))
    return found


def _random(chance: random.Random, depth: int) -> Any:
    kind = chance.randrange(9 if depth else 6)
    if kind == 0:
        return chance.choice([None, True, False])
    if kind == 1:
        return chance.randrange(-(2 ** chance.randrange(1, 80)), 2 ** chance.randrange(1, 80))
    if kind == 2:
        return chance.uniform(-1, 1) * 10.0 ** chance.randrange(-300, 300)
    if kind == 3:
        return "".join(
            chr(chance.choice([0, 10, 58, 97, 123, 125, 233, 0x2028, 0xD800, 0x1F600]))
            for _ in range(chance.randrange(6))
        )
    if kind == 4:
        return "".join(chr(chance.randrange(97, 123)) for _ in range(chance.randrange(1, 12)))
    if kind == 5:
        return chance.randbytes(chance.randrange(8))
    if kind == 6:
        return [_random(chance, depth - 1) for _ in range(chance.randrange(4))]
    if kind == 7:
        return {_random(chance, 0): _random(chance, depth - 1) for _ in range(chance.randrange(4))}
    return tuple(_random(chance, depth - 1) for _ in range(chance.randrange(3)))


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.mark.parametrize("place", PLACES)
async def test_a_value_is_refused_before_anything_is_sent_or_comes_back_as_it_was(
    redis_url: str, client: redis.Redis, place: str
) -> None:
    faults, taken, refused = [], 0, 0
    settings = Settings(redis_url=redis_url)
    async with Queue("q", settings=settings) as steady:
        for at, value in enumerate(values()):
            way = WAYS[at % 4]
            given: dict[str, Any] = {"name": "work", "data": {"n": at}, "job_id": None}
            if place != "queue":
                given[place] = value
            if way == "delayed" and place != "delay":
                given["delay"] = 0.001
            counter = client.get(f"{steady._store.base}:id")
            try:
                if place == "queue":
                    async with Queue(value, settings=settings) as queue:
                        await queue.add("work", given["data"])
                        found = await _claim(queue, client, way)
                else:
                    await steady.add(**given)
                    found = await _claim(steady, client, way)
            except StreamqError as error:
                refused += 1
                if (
                    not str(error)
                    or client.get(f"{steady._store.base}:id") != counter
                    or client.exists("sq:{q}:delayed")
                ):
                    faults.append(f"{_shown(value)}: refused after something was sent, or without a word")
                client.flushdb()
                continue
            except Exception as error:
                faults.append(f"{_shown(value)}: {type(error).__name__}: {error!s:.80}")
                client.flushdb()
                continue
            taken += 1
            if not _as_given(place, value, given, found):
                faults.append(f"{_shown(value)} came back as {found!r:.100}")
            client.flushdb()
    assert not faults, "\n".join(faults)
    assert taken + refused == VALUES
    assert taken
    assert refused or place == "data"


def _shown(value: Any) -> str:
    return "a long number" if isinstance(value, int) and value.bit_length() > 1_000 else f"{value!r:.60}"


def _as_given(place: str, value: Any, given: dict[str, Any], found: tuple[Claim, codec.Envelope]) -> bool:
    claim, envelope = found
    data = codec.decode(bytes(envelope.data))
    if place == "data":
        return type(data) is type(value) and data == value if not isinstance(value, bytearray | memoryview) else True
    if envelope.name != given["name"] or data != given["data"]:
        return False
    options = envelope.options or codec.EnvelopeOptions()
    if place == "job_id":
        return value is None or claim.job_id == value
    if place == "headers":
        return dict(options.h or {}) == dict(value or {})
    if place == "tags":
        return list(options.g) == list(value)
    if place == "attempts":
        return options.a == value
    if place == "priority":
        return claim.lane == int(value)
    return True


async def _claim(queue: Queue, client: redis.Redis, way: str) -> tuple[Claim, codec.Envelope]:
    """Bring the one job there is to a worker, on its way, and look at what it gets."""
    store = queue._store
    client.eval(
        "for _, k in ipairs(redis.call('KEYS', '*:delayed')) do for _, m in ipairs(redis.call('ZRANGE', k, 0, -1)) "
        "do redis.call('ZADD', k, 1, m) end end",
        0,
    )
    args = TickArgs(worker="ann", lease_ms=60_000, max_stalls=9, events_cap=100, dead_cap=100)
    claim = (await store.tick(args, 1, ())).claimed[0]
    if way == "retried":
        body = codec.encode_error(JobError("ValueError", "boom"))
        outcome = Outcome("retry", claim.lane, claim.entry, claim.job_id, body, 0, 0, 1, 1)
        claim = (await store.tick(args, 1, (outcome,))).claimed[0]
    elif way == "reclaimed":
        await store.leave("ann")
        other = TickArgs(worker="bob", lease_ms=60_000, max_stalls=9, events_cap=100, dead_cap=100)
        claim = (await store.tick(other, 1, ())).claimed[0]
    return claim, codec.decode_envelope(claim.envelope)

"""What a queue must look like when every job has ended: nothing left behind, nothing in two places.

Reads the raw keys, so that it can't share an error with the code under test.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import redis

GROUP = "w"
LANES = (1, 2, 3, 4)
STATE_LETTERS = {"completed": "c", "failed": "f", "cancelled": "x"}
TERMINAL = tuple(STATE_LETTERS)
OF_KEYS = ("places:*", "parking:*", "turns:*")
"""What keys of jobs have only while they have jobs."""

_DOCUMENTED = Path(__file__).resolve().parents[2] / "docs" / "keys.md"
_ROW = re.compile(r"^\| `:([^`]+)` \|[^|]*\|[^|]*\| ([^|]*) \|$", re.MULTILINE)


@functools.cache
def documented_keys() -> dict[re.Pattern[str], bool]:
    """Return what `docs/keys.md` knows: a pattern for each key (behind the base), and whether it promises a TTL."""
    found = {}
    for name, lifetime in _ROW.findall(_DOCUMENTED.read_text()):
        pattern = re.sub(r"<1\\\.\\\.4>", "[1-4]", re.escape(name))
        pattern = re.sub(r"<[a-z]+>", "[^:].*", pattern)
        found[re.compile(pattern + r"\Z", re.DOTALL)] = lifetime.startswith("TTL")
    assert len(found) > 10, f"{_DOCUMENTED} has no table of keys any more"
    return found


def base_of(queue: str) -> str:
    """Return what the queue's keys start with."""
    return f"sq:{{{queue}}}"


def connect(url: str) -> redis.Redis:
    """Return a plain client that reads bytes; the caller closes it."""
    return redis.Redis.from_url(url, socket_timeout=10)


def pending_of(client: redis.Redis, queue: str) -> int:
    """Return how many entries of the queue's lanes are held by workers."""
    total = 0
    for lane in LANES:
        try:
            summary = client.xpending(f"{base_of(queue)}:lane:{lane}", GROUP)
        except redis.ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            continue
        total += int(summary["pending"])
    return total


def counts_of(client: redis.Redis, queue: str) -> dict[str, int]:
    """Return the queue's sizes: entries in the lanes, pending and parked ones, delayed jobs, ended ones."""
    base = base_of(queue)
    sets = {name: client.zcard(f"{base}:{name}") for name in ("delayed", "waiting_children", *TERMINAL)}
    lanes = sum(client.xlen(f"{base}:lane:{lane}") for lane in LANES)
    parked = client.hmget(f"{base}:meta", [f"parked_{lane}" for lane in LANES])
    return {"in_lanes": lanes, "pending": pending_of(client, queue), "parked": sum(int(n or 0) for n in parked), **sets}


def is_idle(client: redis.Redis, queue: str) -> bool:
    """Whether nothing of the queue waits, runs or is delayed."""
    counts = counts_of(client, queue)
    unended = ("in_lanes", "pending", "parked", "delayed", "waiting_children")
    return all(counts[name] == 0 for name in unended)


def ended_ids(client: redis.Redis, queue: str) -> dict[str, set[str]]:
    """Return the ids in each terminal set."""
    return {
        name: {member.decode() for member in cast(list[bytes], client.zrange(f"{base_of(queue)}:{name}", 0, -1))}
        for name in TERMINAL
    }


def stray_keys(client: redis.Redis, queue: str) -> list[str]:
    """Return the keys of the queue that its documentation does not know, or that lack the lifetime it promises."""
    base, strays = base_of(queue), []
    for raw in cast(Iterable[bytes], client.scan_iter(match="sq:*", count=1000)):
        key = raw.decode(errors="surrogateescape")
        if not key.startswith(f"{base}:"):
            continue
        rest = key[len(base) + 1 :]
        promised = [passing for pattern, passing in documented_keys().items() if pattern.match(rest)]
        ttl = client.ttl(raw)
        if ttl == -2:
            continue  # it has just gone
        expires = ttl >= 0
        if not promised:
            strays.append(f"{key} is not documented")
        elif any(promised) and not expires:
            strays.append(f"{key} has no TTL")
        elif not any(promised) and expires:
            strays.append(f"{key} expires")
    return strays


def clean_state(url: str, queue: str, accepted: Iterable[str], *, removed: bool = False) -> None:
    """Assert that all of a queue's jobs have ended, each in exactly one way, and left nothing else behind.

    With `removed` an accepted job may also be gone: its retention was over, or somebody deleted it.
    """
    client = connect(url)
    try:
        counts = counts_of(client, queue)
        assert counts["in_lanes"] == counts["pending"] == counts["parked"] == counts["delayed"] == 0, counts
        ended = ended_ids(client, queue)
        for job_id in accepted:
            places = [name for name, ids in ended.items() if job_id in ids]
            assert len(places) == 1 or (removed and not places), f"job {job_id} is in {places or 'no state'}"
            record = cast(dict[bytes, bytes], client.hgetall(f"{base_of(queue)}:job:{job_id}"))
            if places:
                assert record.get(b"s", b"").decode() == STATE_LETTERS[places[0]], f"job {job_id}: {record}"
        records = {
            raw.decode(errors="surrogateescape").split(":job:", 1)[1]
            for raw in cast(Iterable[bytes], client.scan_iter(match=f"{_escaped(base_of(queue))}:job:*", count=1000))
        }
        orphans = records - set().union(*ended.values())
        assert not orphans, f"records of jobs that are in no state: {sorted(orphans)[:10]} of {len(orphans)}"
        assert not (strays := stray_keys(client, queue)), strays
        left = [raw for what in OF_KEYS for raw in client.scan_iter(match=f"{_escaped(base_of(queue))}:{what}")]
        assert not left, f"places of keys whose jobs have all ended: {left[:10]}"
        busy = cast(list[bytes], client.zrangebyscore(f"{base_of(queue)}:keys", "(0", "+inf"))
        assert not busy, f"keys that count jobs, which have all ended: {busy[:10]}"
    finally:
        client.close()


def _escaped(text: str) -> str:
    return re.sub(r"([*?\[\]\\^])", r"\\\1", text)

"""The assertion that ends every fault test, asserted: each kind of leftover is planted, and it has to object."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis

from tests.faults.state import clean_state, connect, counts_of, documented_keys, is_idle

BASE = "sq:{faults}"
Plant = Callable[[redis.Redis], object]


def complete(client: redis.Redis, job_id: str) -> None:
    client.zadd(f"{BASE}:completed", {job_id: 1})
    client.hset(f"{BASE}:job:{job_id}", mapping={"s": "c"})


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    client = connect(redis_url)
    complete(client, "1")
    complete(client, "own id")
    client.set(f"{BASE}:id", 2)
    client.set(f"{BASE}:producer:abc", "answer", px=60_000)
    client.xadd(f"{BASE}:events", {"completed": "1"})
    client.xgroup_create(f"{BASE}:lane:3", "w", "0", mkstream=True)
    yield client
    client.close()


def test_a_queue_whose_jobs_have_all_ended_is_clean(client: redis.Redis, redis_url: str) -> None:
    clean_state(redis_url, "faults", ["1", "own id"])
    assert is_idle(client, "faults")


@pytest.mark.parametrize(
    ("key", "passing"),
    [("id", False), ("lane:4", False), ("job:a:b", False), ("producer:ab12", True), ("batch:ab12", True)],
)
def test_the_documentation_is_read_for_keys_and_lifetimes(key: str, passing: bool) -> None:
    assert [promise for pattern, promise in documented_keys().items() if pattern.match(key)] == [passing]


@pytest.mark.parametrize("key", ["lane:5", "lock", "job:", "ids", "xid"])
def test_other_keys_are_not_documented(key: str) -> None:
    assert not [pattern for pattern in documented_keys() if pattern.match(key)]


def test_another_queues_keys_are_not_looked_at(client: redis.Redis, redis_url: str) -> None:
    client.xadd("sq:{other}:lane:1", {"d": "job"})
    client.set("foreign", 1)
    clean_state(redis_url, "faults", ["1"])


def test_a_job_that_retention_removed_is_forgiven_only_when_told(client: redis.Redis, redis_url: str) -> None:
    clean_state(redis_url, "faults", ["1", "gone"], removed=True)
    with pytest.raises(AssertionError, match="job gone is in no state"):
        clean_state(redis_url, "faults", ["1", "gone"])


@pytest.mark.parametrize(
    ("plant", "complaint"),
    [
        (lambda c: c.xadd(f"{BASE}:lane:1", {"d": "job"}), "'in_lanes': 1"),
        (lambda c: c.hset(f"{BASE}:meta", "parked_2", 1), "'parked': 1"),
        (lambda c: c.zadd(f"{BASE}:places:tenant", {"9": 3}), "places of keys whose jobs have all ended"),
        (lambda c: c.zadd(f"{BASE}:keys", {"idle": 0, "busy": 1}), r"keys that count jobs, .*\[b'busy'\]"),
        (lambda c: c.zadd(f"{BASE}:delayed", {"9": 1}), "'delayed': 1"),
        (lambda c: c.zadd(f"{BASE}:failed", {"1": 1}), r"job 1 is in \['completed', 'failed'\]"),
        (lambda c: c.hset(f"{BASE}:job:1", "s", "q"), "job 1: "),
        (lambda c: c.hset(f"{BASE}:job:77", "s", "c"), r"records of jobs that are in no state: \['77'\]"),
        (lambda c: c.set(f"{BASE}:producer:def", "answer"), "has no TTL"),
        (lambda c: c.set(f"{BASE}:lock", "1"), "is not documented"),
        (lambda c: c.expire(f"{BASE}:completed", 100), "expires"),
    ],
    ids=[
        "waiting",
        "parked",
        "place",
        "counting-key",
        "delayed",
        "two-states",
        "wrong-record",
        "orphaned-record",
        "no-ttl",
        "undocumented",
        "expiring",
    ],
)
def test_a_leftover_is_found(client: redis.Redis, redis_url: str, plant: Plant, complaint: str) -> None:
    plant(client)
    with pytest.raises(AssertionError, match=complaint):
        clean_state(redis_url, "faults", ["1", "own id"])


def test_a_pending_entry_is_found_even_if_the_stream_entry_is_gone(client: redis.Redis, redis_url: str) -> None:
    lane = f"{BASE}:lane:3"
    entry = client.xadd(lane, {"d": "job"})
    client.xreadgroup("w", "somebody", {lane: ">"})
    client.xdel(lane, entry)
    assert counts_of(client, "faults")["pending"] == 1
    with pytest.raises(AssertionError, match="'pending': 1"):
        clean_state(redis_url, "faults", ["1"])

"""The cluster that fault tests stand on, tried: it serves all slots, fails over, and moves slots."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.clusters import PRIMARIES, SLOTS, Cluster, slot_of
from tests.faults.sentinels import wait_until


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


async def test_all_slots_are_served_by_three_primaries_with_a_replica_each(cluster: Cluster) -> None:
    owners = {id(cluster.owner(slot)) for slot in range(0, SLOTS, 500)}
    assert len(owners) == PRIMARIES
    client = cluster.client()
    await client.set("{a}key", "value")
    assert await client.get("{a}key") == b"value"
    await cluster.close_clients()
    owner = cluster.owner(slot_of("{a}key"))
    assert owner.call("GET", "{a}key") == b"value"
    assert not cluster.replica_of(owner).is_primary


def test_a_planned_failover_swaps_the_roles(cluster: Cluster) -> None:
    old = cluster.owner(slot_of("b"))
    new = cluster.fail_over(old)
    assert cluster.owner(slot_of("b")) is new
    assert cluster.replica_of(new) is old


def test_a_slot_moves_with_what_it_holds(cluster: Cluster) -> None:
    slot = slot_of("{c}")
    source = cluster.owner(slot)
    target = next(node for node in cluster.nodes if node.is_primary and node is not source)
    for n in range(10):
        source.call("SET", f"{{c}}{n}", n)
    seen = []
    cluster.move(slot, target, between=lambda: seen.append(source.call("CLUSTER", "COUNTKEYSINSLOT", slot)))
    assert seen == [5]
    assert cluster.owner(slot) is target
    assert [target.call("GET", f"{{c}}{n}") for n in range(10)] == [b"%d" % n for n in range(10)]


def test_a_replica_takes_over_from_a_primary_that_was_killed(cluster: Cluster) -> None:
    old = cluster.owner(slot_of("d"))
    replica = cluster.replica_of(old)
    old.kill()
    wait_until(lambda: replica.is_primary and cluster.whole(), "the replica takes over")
    assert cluster.owner(slot_of("d")) is replica
    old.start()
    wait_until(lambda: not old.is_primary and cluster.whole(), "the old primary follows")

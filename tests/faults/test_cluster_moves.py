"""Slots move and primaries fail over under load: producers and workers follow, and every job still runs.

A queue is one slot. While it moves no script runs, as in an outage; what a worker or a producer meets then is no more
than that.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from streamq import ActiveJob, Job, Queue, Settings, Worker
from streamq.errors import StoreError, StoreUnavailable
from tests.faults.checker import check
from tests.faults.clusters import Cluster, Node, slot_of
from tests.faults.ledger import Ledger
from tests.faults.scene import KEEP_ALL, scaled
from tests.faults.sentinels import replication_of
from tests.faults.state import base_of, clean_state
from tests.faults.workers import Fleet, eventually

pytestmark = pytest.mark.timeout(300)

NAME = "faults"
SLOT = slot_of(base_of(NAME))
LEASE = 6.0


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


class Load:
    """Two worker processes and a producer of 100 jobs a second, as they are while something happens to the cluster."""

    def __init__(self, cluster: Cluster, ledger: Ledger, fleet: Fleet, *, durable: bool = False) -> None:
        settings = Settings(redis_url=cluster.cluster_url, timeout=2, durable_replicas=1, durable_timeout=1)
        self.queue = Queue(NAME, settings=settings, defaults=KEEP_ALL)
        self.ledger, self.fleet, self.durable = ledger, fleet, durable
        self.accepted: list[str] = []

    @asynccontextmanager
    async def running(self, lease: float = LEASE) -> AsyncIterator[None]:
        """Run it for as long as the block does, and until every accepted job has ended."""
        self.fleet.start_many(2, NAME, concurrency=5, lease=lease)
        await self.flows("at first")
        over = asyncio.Event()
        producing = asyncio.create_task(self._produce(over))
        try:
            try:
                yield
            finally:
                over.set()
                await producing
            await eventually(self._drained, 30, "all that was accepted ends")
        finally:
            await self.queue.close()

    async def flows(self, when: str, within: float = 10) -> None:
        """Wait until a job that is added now has run: the bound is that of an outage."""
        asked = time.monotonic()
        while True:
            try:
                await self._add()
                break
            except StoreError:
                assert time.monotonic() - asked < within, f"nothing can be added, {when}"
        job = self.accepted[-1]
        left = within - (time.monotonic() - asked)
        await eventually(lambda: self.ledger.lines("end", job=job), left, f"a job runs, {when}")

    async def runs_on(self, when: str) -> None:
        """Wait until 50 more jobs have run, which is what is added in half a second."""
        ends = len(self.ledger.lines("end"))
        await eventually(lambda: len(self.ledger.lines("end")) >= ends + 50, 10, f"jobs go on to run, {when}")

    async def _produce(self, over: asyncio.Event) -> None:
        async def one() -> None:
            with contextlib.suppress(StoreError):  # not accepted: it took longer than a producer waits
                await self._add()

        async with asyncio.TaskGroup() as group:
            while not over.is_set():
                group.create_task(one())
                await asyncio.sleep(0.01)

    async def _add(self) -> None:
        self.note([await self.queue.add("sleep", 0.02, durable=self.durable)])

    def note(self, jobs: list[Job]) -> None:
        """Note that these were accepted."""
        self.ledger.accept([job.id for job in jobs])
        self.accepted += [job.id for job in jobs]

    async def _drained(self) -> bool:
        stats = await self.queue.stats()
        return stats.total == stats.completed + stats.failed

    def each_ran_once(self) -> None:
        """Assert that every accepted job ran exactly once."""
        verdict = check(self.ledger.lines())
        assert not verdict.lost, f"{len(verdict.lost)} lost"
        assert not verdict.repeated, f"{len(verdict.repeated)} ran again"
        assert not verdict.unfinished
        assert len(self.accepted) > scaled(100, 500)


@pytest.fixture
def fleet(cluster: Cluster, ledger: Ledger, tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(cluster.cluster_url, ledger, tmp_path)
    yield fleet
    complaints = fleet.complaints()
    fleet.stop()
    assert not complaints, "\n".join(complaints)


def another_primary(cluster: Cluster, source: Node) -> Node:
    """Return a primary that does not serve the queue."""
    return next(node for node in cluster.running() if node.is_primary and node is not source)


async def test_a_slot_that_moves_under_load_loses_and_repeats_nothing(
    cluster: Cluster, ledger: Ledger, fleet: Fleet
) -> None:
    """R98: MOVED during a slot migration is handled. The slot moves away and back, and takes 1.5 s each time."""
    load = Load(cluster, ledger, fleet)
    async with load.running():
        home = cluster.owner(SLOT)
        for target in (another_primary(cluster, home), home):
            source = cluster.owner(SLOT)
            await load.runs_on("before the slot moves")
            await asyncio.to_thread(cluster.move, SLOT, target, between=lambda: time.sleep(1.5))
            await load.flows("after the slot has moved", within=5)
            assert source.call("CLUSTER", "COUNTKEYSINSLOT", SLOT) == 0
            assert cluster.owner(SLOT) is target
    load.each_ran_once()
    clean_state(cluster.owner(SLOT).url, NAME, load.accepted)


@pytest.mark.parametrize("seconds", [1.5, 2.0, 5.0])
async def test_a_move_about_as_long_as_a_lease_or_longer_repeats_nothing(
    cluster: Cluster, ledger: Ledger, fleet: Fleet, seconds: float
) -> None:
    """As after any outage, every lease begins anew: what ran all the while is settled by whoever ran it."""
    load = Load(cluster, ledger, fleet)
    async with load.running(lease=2.0):
        long = await load.queue.add_many([("sleep", seconds + 1.0) for _ in range(6)])
        load.note(long)
        await eventually(lambda: ledger.lines("start", job=long[-1].id), 10, "the long jobs run")
        target = another_primary(cluster, cluster.owner(SLOT))
        await asyncio.to_thread(cluster.move, SLOT, target, between=lambda: time.sleep(seconds))
        await load.flows("after the slot has moved", within=5)
    load.each_ran_once()


async def test_a_slot_that_moves_in_one_go_under_load_loses_and_repeats_nothing(
    cluster: Cluster, ledger: Ledger, fleet: Fleet
) -> None:
    if cluster.nodes[0].version < (9,):
        pytest.skip("only Valkey 9 and newer can")
    load = Load(cluster, ledger, fleet)
    target = another_primary(cluster, cluster.owner(SLOT))
    async with load.running():
        await load.runs_on("before the slot moves")
        await asyncio.to_thread(cluster.move_at_once, SLOT, target)
        await load.flows("after the slot has moved", within=5)
        await load.runs_on("after the slot has moved")
    load.each_ran_once()
    clean_state(target.url, NAME, load.accepted)


async def test_a_planned_failover_under_load_loses_and_repeats_nothing(
    cluster: Cluster, ledger: Ledger, fleet: Fleet
) -> None:
    load = Load(cluster, ledger, fleet)
    async with load.running():
        await load.runs_on("before the failover")
        new = await asyncio.to_thread(cluster.fail_over, cluster.owner(SLOT))
        await load.flows("after the failover", within=5)
        await load.runs_on("after the failover")
    load.each_ran_once()
    clean_state(new.url, NAME, load.accepted)


async def test_a_primary_that_is_killed_under_load_loses_no_durable_job(
    cluster: Cluster, ledger: Ledger, fleet: Fleet
) -> None:
    """What the old primary acknowledged and had not sent on may run again; what a replica confirmed is never lost."""
    load = Load(cluster, ledger, fleet, durable=True)
    async with load.running():
        await asyncio.sleep(1)
        old = cluster.owner(SLOT)
        replica = cluster.replica_of(old)
        killed = time.monotonic()
        old.kill()
        await eventually(lambda: replica.is_primary, 20, "the replica takes over")
        old.start()  # a durable add wants a replica again
        await asyncio.to_thread(cluster.wait_until_whole)
        await load.flows("after the failover", within=10)
        healed = time.monotonic()
    verdict = check(ledger.lines())
    assert not verdict.lost, f"{len(verdict.lost)} lost: {sorted(verdict.lost)[:10]}"
    assert not verdict.duplicates_outside([(killed - 1, healed + LEASE)])
    assert len(load.accepted) > 50


async def test_an_add_that_a_move_outlasts_says_so_and_added_nothing(cluster: Cluster) -> None:
    owner = cluster.owner(SLOT)
    target = another_primary(cluster, owner)
    async with Queue(NAME, settings=Settings(redis_url=cluster.cluster_url, timeout=0.5)) as queue:
        await queue.add("noop")
        target.call("CLUSTER", "SETSLOT", SLOT, "IMPORTING", owner.id)
        owner.call("CLUSTER", "SETSLOT", SLOT, "MIGRATING", target.id)
        with pytest.raises(StoreUnavailable, match="being moved to another node, and nothing runs meanwhile: ASK"):
            await queue.add("noop")
        assert target.call("CLUSTER", "COUNTKEYSINSLOT", SLOT) == 0  # no second life there
        for node in (owner, target):
            node.call("CLUSTER", "SETSLOT", SLOT, "STABLE")
        assert (await queue.add("noop")).id == "2"


async def test_a_cluster_that_lost_some_slots_is_an_outage_that_passes(
    cluster: Cluster, ledger: Ledger, fleet: Fleet
) -> None:
    """The queue's own node runs all the while, and says CLUSTERDOWN: it may be the one that is cut off."""
    load = Load(cluster, ledger, fleet)
    async with load.running():
        owner = cluster.owner(SLOT)
        other = another_primary(cluster, owner)
        gone = [cluster.replica_of(other), other]
        for node in gone:
            node.kill()
        await eventually(lambda: "cluster_state:fail" in owner.info(), 20, "the cluster is down")
        with pytest.raises(StoreUnavailable, match="the cluster does not serve the queue's slot: CLUSTERDOWN"):
            await load.queue.add("noop")
        for node in gone:
            node.start()
        await asyncio.to_thread(cluster.wait_until_whole)
        await load.flows("after the cluster is whole again", within=5)
    verdict = check(ledger.lines())
    assert not verdict.lost
    assert not verdict.unfinished
    clean_state(cluster.owner(SLOT).url, NAME, load.accepted)


async def test_a_wake_up_that_a_moving_slot_swallowed_is_made_up_for(cluster: Cluster) -> None:
    """The token comes in the moment in which scripts begin to be refused: the worker has it, and its tick fails."""
    owner = cluster.owner(SLOT)
    target = another_primary(cluster, owner)
    base = base_of(NAME)
    ran = asyncio.Event()
    cluster.replica_of(owner).kill()  # Valkey has replicas agree to a SETSLOT first, and dies if that is in a MULTI
    await eventually(lambda: b"connected_slaves:0" in replication_of(owner), 10, "the replica is gone")

    async def run(job: ActiveJob[object]) -> None:
        ran.set()

    settings = Settings(redis_url=cluster.cluster_url, lease=15)
    async with Queue(NAME, settings=settings) as queue, Worker(NAME, run, settings=settings):
        await queue.pause()
        await queue.add("noop")
        await eventually(lambda: b"cmd=blpop" in _clients(owner) and not owner.call("EXISTS", f"{base}:wake"), 10)
        with owner.connect() as client:
            pipe = client.pipeline(transaction=True)
            pipe.execute_command("HDEL", f"{base}:meta", "paused")
            pipe.execute_command("RPUSH", f"{base}:wake", "1")
            pipe.execute_command("CLUSTER", "SETSLOT", SLOT, "MIGRATING", target.id)
            pipe.execute()
        assert f"{base}:wake".encode() not in owner.call("CLUSTER", "GETKEYSINSLOT", SLOT, 100)  # it was taken
        assert not ran.is_set()
        owner.call("CLUSTER", "SETSLOT", SLOT, "STABLE")
        async with asyncio.timeout(3):  # less than the five seconds after which a parked worker looks by itself
            await ran.wait()


def _clients(node: Node) -> bytes:
    with node.connect() as client:
        client.set_response_callback("CLIENT LIST", lambda reply: reply)
        reply: bytes = client.execute_command("CLIENT LIST")
        return reply

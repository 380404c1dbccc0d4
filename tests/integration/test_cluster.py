"""A Redis Cluster as a server like any other: all that a queue does, over nodes that each serve some queues."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from redis.asyncio import RedisCluster

import streamq.sync
from streamq import ActiveJob, FlowJob, JobState, Processors, Queue, Retention, Schedule, Settings, Unique, Worker
from streamq._engine import keys
from streamq._engine.cluster import slot_of
from streamq._engine.endpoint import Endpoint
from streamq.cli.findings import ACL
from streamq.dashboard import create_app
from streamq.errors import InvalidInput, JobFailed, StoreRefused
from streamq.exporter import Exporter
from tests.faults.clusters import Cluster
from tests.integration.cli import Cli
from tests.servers import RedisServer

pytestmark = pytest.mark.timeout(120)

SETTINGS = Settings(lease=3, timeout=5)
KEEP_ALL = msgspec.structs.replace(SETTINGS, keep_completed=Retention(1_000))
"""For those who look at results of many jobs later."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[RedisCluster]:
    async with RedisCluster.from_url(cluster.url) as client:
        yield client


@pytest.fixture
def url(cluster: Cluster) -> str:
    return cluster.cluster_url


def names_on_all_nodes(cluster: Cluster, prefix: str) -> list[str]:
    """Return names of queues, one for each primary."""
    found: dict[int, str] = {}
    for number in range(1_000):
        name = f"{prefix}{number}"
        found.setdefault(cluster.owner(slot_of(keys.base(name))).port or 0, name)
        if len(found) == 3:
            return list(found.values())
    raise AssertionError("no names for all nodes")


async def echo(job: ActiveJob[Any]) -> Any:
    return job.data


async def test_a_job_lives_its_life_by_a_client_and_by_a_url(client: RedisCluster, url: str) -> None:
    """R98: no key of a queue is in another slot, whatever is done with it."""
    async with Queue("life", client, settings=SETTINGS) as queue, Worker("life", echo, redis=url, settings=SETTINGS):
        job = await queue.add("echo", {"n": 1})
        assert await job.result(timeout=20) == {"n": 1}
        delayed = await queue.add("echo", 2, delay=0.2)
        assert await delayed.result(timeout=20) == 2
        added = await queue.add_many([("echo", n) for n in range(2_000)])
        assert await added[-1].result(timeout=30) == 1_999
        await queue.pause()
        waiting = await queue.add("echo", 3, job_id="mine")
        await waiting.cancel()
        assert (await queue.stats()).cancelled == 1
        await queue.obliterate(force=True)
        assert (await queue.stats()).total == 0


async def test_queues_on_all_nodes_are_served_by_one_process(cluster: Cluster, url: str) -> None:
    """R98: several queues in one process, each on a node of its own."""
    names = names_on_all_nodes(cluster, "many")
    async with AsyncExitStack() as stack:
        queues = [await stack.enter_async_context(Queue(name, url, settings=SETTINGS)) for name in names]
        for name in names:
            await stack.enter_async_context(Worker(name, echo, redis=url, settings=SETTINGS))
        jobs = await asyncio.gather(*(queue.add("echo", n) for queue in queues for n in range(50)))
        results = await asyncio.gather(*(job.result(timeout=30) for job in jobs))
    assert results == [*range(50)] * 3
    places = {queue._wire.place for queue in queues}
    assert places == {("127.0.0.1", cluster.owner(slot_of(keys.base(name))).port) for name in names}


async def test_a_flow_over_slots_is_refused_before_anything_is_sent(cluster: Cluster, url: str) -> None:
    first, second, _ = names_on_all_nodes(cluster, "flow")
    text = (
        f"a flow stays within one hash slot of a Redis Cluster, and queues '{first}' and '{second}' are in two: "
        "give their names a common tag, such as '{bank}reports' and '{bank}emails'"
    )
    async with Queue(first, url, settings=SETTINGS) as queue:
        with pytest.raises(InvalidInput) as raised:
            await queue.add_flow(FlowJob("top", children=[FlowJob("low", queue=second)]))
        assert str(raised.value) == text
        assert queue._wire.connects == 0


async def test_a_flow_over_queues_with_a_common_tag_runs(url: str) -> None:
    processors = Processors()

    @processors.register("low")
    async def low(job: ActiveJob[Any]) -> int:
        return 20

    @processors.register("top")
    async def top(job: ActiveJob[Any]) -> Any:
        return [[child.queue, child.result] for child in await job.child_ends()]

    async with (
        Queue("{bank}reports", url, settings=SETTINGS) as queue,
        Worker("{bank}reports", processors, redis=url, settings=SETTINGS),
        Worker("{bank}emails", processors, redis=url, settings=SETTINGS),
    ):
        flow = FlowJob("top", children=[FlowJob("low", queue="{bank}emails"), FlowJob("low")])
        job = await queue.add_flow(flow)
        assert await job.result(timeout=20) == [["{bank}emails", 20], ["{bank}reports", 20]]
        assert [(node.queue, node.name) for node in (await queue.flow(job.id)).nodes] == [
            ("{bank}emails", "low"),
            ("{bank}reports", "low"),
        ]


async def test_a_dead_letter_queue_in_another_slot_is_refused(cluster: Cluster, url: str) -> None:
    first, second, _ = names_on_all_nodes(cluster, "dead")
    with pytest.raises(
        InvalidInput, match=f"a queue with its dead-letter queue stays within .* '{first}' and '{second}'"
    ):
        Worker(first, echo, redis=url, dead_letter_queue=second)


async def test_a_plain_address_of_a_node_says_which_to_use(cluster: Cluster) -> None:
    names = names_on_all_nodes(cluster, "plain")
    elsewhere = next(n for n in names if cluster.owner(slot_of(keys.base(n))).port != cluster.nodes[0].port)
    async with Queue(elsewhere, cluster.url, settings=SETTINGS) as queue:
        with pytest.raises(
            StoreRefused, match=r"MOVED .*this is a node of a cluster: its address is redis\+cluster://"
        ):
            await queue.add("x")


async def test_a_server_that_is_no_cluster_says_so(server: RedisServer) -> None:
    async with Queue("q", f"redis+cluster://127.0.0.1:{server.port}", settings=SETTINGS) as queue:
        with pytest.raises(StoreRefused, match=r"does not tell the cluster's slots: .*cluster support disabled"):
            await queue.add("x")


async def test_schedules_events_dead_letters_and_durable_adds_work_there(cluster: Cluster, url: str) -> None:
    settings = Settings(lease=3, durable_replicas=1, attempts=1)

    async def run(job: ActiveJob[Any]) -> Any:
        if job.name == "fails":
            raise ValueError("no")
        await job.progress(50)
        return await job.step("once", lambda: job.data)

    async with Queue("all", url, settings=settings) as queue, Queue("{all}dead", url, settings=settings) as dead:
        seen: set[str] = set()
        all_seen = asyncio.Event()

        async def watch() -> None:
            async for event in queue.events(after="0-0"):
                seen.add(event.kind)
                if {"progress", "completed", "dead"} <= seen:
                    all_seen.set()

        watching = asyncio.create_task(watch())
        worker = Worker("all", run, redis=url, settings=settings, dead_letter_queue="{all}dead")
        async with worker, asyncio.timeout(60):
            assert await (await queue.add("echo", 7, durable=True)).result() == 7
            await queue.upsert_schedule("s", Schedule(every=3_600, name="echo", data=8))
            assert await (await queue.trigger_schedule("s")).result() == 8
            failed = await queue.add("fails", key="tenant", unique=Unique("one"))
            with pytest.raises(JobFailed):
                await failed.result()
            await all_seen.wait()
            async for event in dead.events(after="0-0"):
                if event.kind == "added":
                    break
            (letter,) = await queue.dead_letters()
            assert letter.job_id == failed.id
            assert len((await queue.redrive(letter.id)).job_ids) == 1
            assert len(await queue.workers()) == 1
        watching.cancel()


async def test_the_command_line_the_sync_face_and_the_exporter_take_the_clusters_url(
    cluster: Cluster, url: str, tmp_path: Path
) -> None:
    names = names_on_all_nodes(cluster, "faces")
    settings = Settings(redis_url=url)

    def add_synchronously() -> list[str]:
        ids = []
        for name in names:
            with streamq.sync.Queue(name, settings=settings) as queue:
                ids.append(queue.add("echo", 1).id)
        return ids

    assert await asyncio.to_thread(add_synchronously) == ["1", "1", "1"]
    told = await asyncio.to_thread(Cli(url, tmp_path), "stats", *names, "--json")
    assert [(record["queue"], record["waiting"]) for record in told.records] == [(name, 1) for name in names]
    exporter = Exporter(names, settings)
    try:
        found = {metric.name: metric for metric in await asyncio.to_thread(lambda: list(exporter.collect()))}
    finally:
        await asyncio.to_thread(exporter.close)
    waiting = [s.value for s in found["streamq_queue_jobs"].samples if s.labels["state"] == "waiting" and s.value]
    assert waiting == [1, 1, 1]


async def test_payloads_are_not_cleaned_by_what_one_node_knows(cluster: Cluster, url: str, tmp_path: Path) -> None:
    for address in (url, cluster.url):
        done = await asyncio.to_thread(Cli(address, tmp_path), "offload", "clean", str(tmp_path), "-y", code=3)
        assert "this is a Redis Cluster: no node of it knows all jobs" in done.err


async def test_a_worker_stops_cleanly_after_its_queue_has_moved(cluster: Cluster, url: str) -> None:
    """Its parked tick is on one server and its other connection on another: that one is not asked to unblock it."""
    slot = slot_of(keys.base("stops"))
    async with Queue("stops", url, settings=SETTINGS) as queue:
        worker = Worker("stops", echo, redis=url, settings=SETTINGS)
        async with worker:
            assert await (await queue.add("echo", 1)).result(timeout=20) == 1
            home = cluster.owner(slot)
            target = next(node for node in cluster.nodes if node.is_primary and node is not home)
            await asyncio.to_thread(cluster.move, slot, target)
            assert await (await queue.add("echo", 2)).result(timeout=20) == 2
        assert (await queue.stats()).workers == 0


async def test_a_user_of_least_privilege_needs_to_ask_for_slots_besides(cluster: Cluster) -> None:
    rule = ACL.partition("> ")[2].split()
    password = "pw"  # noqa: S105
    names = names_on_all_nodes(cluster, "acl")
    async with AsyncExitStack() as stack:
        for user, more in (("full", ["+cluster|slots"]), ("less", [])):
            for node in cluster.nodes:
                node.call("ACL", "SETUSER", user, "reset", "on", f">{password}", *rule, *more)
                stack.callback(node.call, "ACL", "DELUSER", user)
        address = cluster.cluster_url.partition("://")[2]
        full = f"redis+cluster://full:{password}@{address}"
        for name in names:
            async with Queue(name, full, settings=SETTINGS) as queue, Worker(name, echo, redis=full, settings=SETTINGS):
                assert await (await queue.add("echo", 1)).result(timeout=20) == 1
        async with Queue("q", f"redis+cluster://less:{password}@{address}", settings=SETTINGS) as queue:
            with pytest.raises(StoreRefused, match=r"does not tell the cluster's slots: .*no permissions"):
                await queue.add("echo", 1)


async def test_a_node_that_does_not_answer_is_asked_after_the_others(cluster: Cluster) -> None:
    replica = next(node for node in cluster.nodes if not node.is_primary)
    away = RedisServer(port=0)  # it is never started
    endpoint = Endpoint(
        f"redis+cluster://127.0.0.1:{away.port},127.0.0.1:{replica.port},127.0.0.1:{cluster.nodes[0].port}",
        6.0,
        "sq:{x}",
    )
    replica.pause()
    try:
        connection = await endpoint.connect()
    finally:
        replica.cont()
        away.close()
    assert connection.port == cluster.owner(slot_of("sq:{x}")).port
    await connection.disconnect()
    assert endpoint._nodes is not None
    assert endpoint._nodes._places[-1] != ("127.0.0.1", connection.port)


async def test_shards_are_spread_over_the_nodes_and_doctor_looks_at_each(
    cluster: Cluster, url: str, tmp_path: Path
) -> None:
    async with (
        Queue("spread", url, settings=SETTINGS, shards=12) as queue,
        Worker("spread", echo, redis=url, settings=KEEP_ALL, shards=12),
    ):
        jobs = await asyncio.gather(*(queue.add("echo", n) for n in range(120)))
        assert await asyncio.gather(*(job.result(timeout=30) for job in jobs)) == [*range(120)]
        assert (await queue.stats()).completed == 120
        told = await asyncio.to_thread(Cli(url, tmp_path), "doctor", "spread", "--json")
    modes = {record["text"] for record in told.records if record["topic"] == "cluster mode"}
    ports = {cluster.owner(slot_of(keys.base("spread", shard))).port for shard in range(12)}
    assert modes == {f"on; node 127.0.0.1:{port}" for port in ports}
    assert len(ports) == 3


async def test_the_dashboard_shows_queues_of_several_nodes_and_names_with_a_tag(cluster: Cluster, url: str) -> None:
    names = [*names_on_all_nodes(cluster, "shown"), "{bank}shown"]
    async with AsyncExitStack() as stack:
        queues = [await stack.enter_async_context(Queue(name, url, settings=SETTINGS)) for name in names]
        for queue in queues:
            await queue.add("echo")
        transport = httpx.ASGITransport(app=create_app(queues))
        http = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://localhost"))
        overview = (await http.get("/")).text
        assert all(name in overview for name in names)
        for name in names:
            page = await http.get("/queue", params={"q": name})
            assert (page.status_code, name in page.text) == (200, True)


async def test_a_queue_over_shards_is_served_by_all_nodes(cluster: Cluster, client: RedisCluster, url: str) -> None:
    bases = [keys.base("hot", shard) for shard in range(12)]
    assert len({cluster.owner(slot_of(base)).port for base in bases}) == 3
    async with Queue("hot", client, shards=12, settings=SETTINGS) as queue:
        jobs = await queue.add_many([("echo", n) for n in range(60)])
        jobs += [await queue.add("echo", n, key=f"k{n % 7}") for n in range(60, 80)]
        jobs.append(await queue.add("echo", 80, job_id="mine"))
        top = await queue.add_flow(FlowJob("echo", 81, children=[FlowJob("echo", n) for n in range(3)]))
        await queue.upsert_schedule("s", every=3_600, name="echo", data=82)
        async with Worker("hot", echo, redis=url, shards=12, concurrency=10, settings=KEEP_ALL):
            assert [await job.result(30) for job in jobs] == list(range(81))
            assert await top.result(30) == 81
            assert await (await queue.trigger_schedule("s")).result(30) == 82
        stats = await queue.stats()
        assert (stats.waiting, stats.active, stats.completed) == (0, 0, 86)
        found = await queue.jobs(JobState.COMPLETED, count=100)
        assert len({job.id for job in found}) == 86
        with pytest.raises(InvalidInput, match="a queue with its dead-letter queue stays within one hash slot"):
            Worker("hot", echo, redis=url, shards=12, dead_letter_queue="dead", settings=SETTINGS)

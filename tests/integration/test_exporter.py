"""`streamq exporter`, scraped: the state of real queues, within bounds, and the truth while Redis is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
from prometheus_client import CollectorRegistry

from streamq import InvalidInput, JobOptions, Priority, Queue, Schedule, Settings, Worker
from streamq.exporter import Exporter
from tests.faults.workers import eventually
from tests.integration.scraping import PATIENCE, Scrape, Served, served
from tests.integration.test_metrics import PROCESSORS, worker_of
from tests.servers import RedisServer
from tests.unit.test_metrics import EXPORTERS, exported, listed


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[Queue]:
    async with Queue("m", redis_url) as queue:
        yield queue


@pytest.fixture
def exporter(redis_url: str) -> Iterator[Callable[..., Exporter]]:
    made: list[Exporter] = []

    def make(*names: str, url: str = redis_url) -> Exporter:
        made.append(Exporter(names, Settings(redis_url=url)))
        return made[-1]

    yield make
    for one in made:
        one.close()


async def series(exporter: Exporter) -> CollectorRegistry:
    """Collect once; the registry answers from that."""
    found = await asyncio.to_thread(lambda: list(exporter.collect()))
    registry = CollectorRegistry()
    registry.collect = lambda: iter(found)  # type: ignore[method-assign]
    return registry


async def test_jobs_are_counted_by_state_and_priority_with_the_age_of_the_oldest(
    queue: Queue, exporter: Callable[..., Exporter], redis_url: str
) -> None:
    started, gate = asyncio.Event(), asyncio.Event()

    async def work(job: object) -> None:
        started.set()
        await gate.wait()

    await queue.add("a", priority=Priority.CRITICAL)
    async with Worker("m", work, redis=redis_url, concurrency=1):
        await asyncio.wait_for(started.wait(), PATIENCE)
        await queue.add_many([("b", n) for n in range(3)])
        await queue.add("later", delay=3600)
        await (await queue.add("never")).cancel()
        await queue.pause()
        registry = await series(exporter("m"))
        gate.set()

    def jobs(state: str, priority: str = "") -> float | None:
        labels = {"queue": "m", "state": state, "priority": priority}
        return registry.get_sample_value("streamq_queue_jobs", labels)

    assert {p: jobs("waiting", p) for p in ("critical", "high", "normal", "low")} == {
        "critical": 0, "high": 0, "normal": 3, "low": 0,
    }  # fmt: skip
    assert (jobs("active", "critical"), jobs("active", "normal"), jobs("delayed"), jobs("completed")) == (1, 0, 1, 0)
    assert jobs("cancelled") == 1
    assert registry.get_sample_value("streamq_queue_jobs_cancelled_total", {"queue": "m"}) == 1
    ages = "streamq_queue_oldest_waiting_age_seconds"
    assert 0 < (registry.get_sample_value(ages, {"queue": "m", "priority": "normal"}) or 0) < PATIENCE
    assert registry.get_sample_value(ages, {"queue": "m", "priority": "low"}) == 0
    assert registry.get_sample_value("streamq_queue_paused", {"queue": "m"}) == 1
    assert registry.get_sample_value("streamq_queue_workers", {"queue": "m"}) == 1


async def test_the_page_lists_the_series_as_they_are_exported(queue: Queue, exporter: Callable[..., Exporter]) -> None:
    await queue.add("a")
    told = exported(await asyncio.to_thread(lambda: list(exporter("m").collect())))
    page = {name: (kind, sorted(labels)) for name, (kind, labels) in listed().items() if name.startswith(EXPORTERS)}
    assert told == page


async def test_a_lease_that_lapsed_is_told_until_somebody_takes_the_jobs(
    queue: Queue, exporter: Callable[..., Exporter], redis_url: str
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.zadd("sq:{m}:workers", {"lost": 1, "alive": 9e15})
    registry = await series(exporter("m"))
    assert registry.get_sample_value("streamq_queue_lapsed_leases", {"queue": "m"}) == 1
    assert registry.get_sample_value("streamq_queue_workers", {"queue": "m"}) == 1


async def test_a_schedule_is_late_only_when_no_worker_fires_it(
    queue: Queue, exporter: Callable[..., Exporter], redis_url: str
) -> None:
    for name in ("due", "later", "paused"):
        await queue.upsert_schedule(name, Schedule(name="a", every=3600))
    await queue.pause_schedule("paused")
    with redis.Redis.from_url(redis_url) as client:
        client.zadd("sq:{m}:schedules", {"due": (time.time() - 60) * 1000})
    registry = await series(exporter("m"))
    assert registry.get_sample_value("streamq_queue_schedules", {"queue": "m"}) == 3
    assert registry.get_sample_value("streamq_queue_schedules_late", {"queue": "m"}) == 1


async def test_the_memory_of_a_queue_is_estimated_well_enough(
    queue: Queue, exporter: Callable[..., Exporter], redis_url: str
) -> None:
    await queue.add_many([("a", "x" * 300)] * 500)
    for n in range(300):
        await queue.add("b", "y" * 500, delay=3600, job_id=f"mine-{n}")
    with redis.Redis.from_url(redis_url) as client:
        true = sum(client.memory_usage(key) or 0 for key in client.scan_iter("sq:{m}:*"))
    memory = (await series(exporter("m"))).get_sample_value("streamq_queue_memory_bytes", {"queue": "m"})
    assert memory == pytest.approx(true, rel=0.2)


async def test_what_a_scrape_costs_does_not_grow_with_the_jobs(
    queue: Queue, exporter: Callable[..., Exporter], redis_url: str
) -> None:
    async def commands(jobs: int) -> int:
        await queue.add_many([("a", n) for n in range(jobs)])
        await queue.add_many([("b", n, JobOptions(delay=60)) for n in range(jobs)])
        with redis.Redis.from_url(redis_url) as client:
            one = exporter("m")
            client.config_resetstat()
            await series(one)
            stats = client.info("commandstats")
        return sum(stat["calls"] for stat in stats.values())

    few, many = await commands(30), await commands(3000)
    assert many <= few + 5


async def test_a_user_who_may_not_measure_memory_sees_all_else(
    server: RedisServer, exporter: Callable[..., Exporter]
) -> None:
    server.call("ACL", "SETUSER", "watcher", "on", ">pw", "~sq:*", "+@read", "+@connection", "+@scripting", "+time",
        "-memory")  # fmt: skip
    url = server.url.replace("redis://", "redis://watcher:pw@")
    registry = await series(exporter("m", url=url))
    assert registry.get_sample_value("streamq_up") == 1
    assert registry.get_sample_value("streamq_queue_dead_letters", {"queue": "m"}) == 0
    assert registry.get_sample_value("streamq_queue_memory_bytes", {"queue": "m"}) is None


async def test_scrapers_that_come_together_share_one_look(exporter: Callable[..., Exporter], redis_url: str) -> None:
    one = exporter("m")
    with redis.Redis.from_url(redis_url) as client:
        await series(one)
        client.config_resetstat()
        await asyncio.gather(*(series(one) for _ in range(20)))
        looks = client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]
    assert looks <= 2, "twenty scrapes within a second or two"


@pytest.mark.parametrize(("names", "text"), [
    ([], "an exporter takes 1 to 500 queues, not 0"),
    ([f"q{n}" for n in range(501)], "an exporter takes 1 to 500 queues, not 501"),
    (["a{b}"], "queue name must not contain braces"),
])  # fmt: skip
def test_queues_that_make_no_sense_are_refused(names: list[str], text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        Exporter(names)


# As a process ---------------------------------------------------------------------------------------------------------


async def test_the_command_says_that_redis_is_away_and_recovers(server: RedisServer, tmp_path: Path) -> None:
    with served(tmp_path, ["streamq", "exporter", "m", "other", "--port", "0"], REDIS_URL=server.url) as exporter:
        await exporter.serves()
        await exporter.answers("/readyz", 200)
        await exporter.shows("streamq_up", 1)
        assert (await exporter.scrape()).value("streamq_queue_dead_letters", queue="other") == 0
        server.stop()
        await exporter.shows("streamq_up", 0)
        scrape = await exporter.scrape()
        assert not [name for name, _ in scrape.samples if name.startswith("streamq_queue_")], "no stale state"
        assert (await exporter.get("/readyz"))[0] == 503
        assert (await exporter.get("/livez"))[0] == 200
        server.start()
        await exporter.shows("streamq_up", 1)
        assert ((await exporter.scrape()).value("streamq_exporter_failures_total") or 0) >= 1
        server.pause()
        await exporter.shows("streamq_up", 0)
        server.cont()
        await exporter.shows("streamq_up", 1)
        await exporter.answers("/readyz", 200)
        assert await exporter.ends() == 0


async def test_a_command_that_starts_without_redis_waits_for_it(server: RedisServer, tmp_path: Path) -> None:
    server.stop()
    with served(tmp_path, ["streamq", "exporter", "m", "--port", "0"], REDIS_URL=server.url) as exporter:
        await exporter.serves()
        await exporter.shows("streamq_up", 0)
        server.start()
        await exporter.shows("streamq_up", 1)


def both(scrape: Scrape) -> set[str]:
    names = {name for name, _ in scrape.samples}
    return {"streamq_up", "streamq_queue_workers", "streamq_worker_concurrency"} & names


@pytest.mark.parametrize("options", [[], ["--processes", "2"]], ids=["alone", "as two"])
async def test_a_worker_may_export_the_queues_beside_its_own_series(
    redis_url: str, tmp_path: Path, options: list[str]
) -> None:
    with worker_of(redis_url, tmp_path, "--export", *options) as worker:
        await worker.serves()
        await worker.shows("streamq_queue_workers", 2 if options else 1, queue="m")

        async def shows_both() -> bool:
            return len(both(await worker.scrape())) == 3

        await eventually(shows_both, PATIENCE)
        assert await worker.ends() == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["-q", "m", "--export"], "--export needs --metrics-port"),
        (["--export", "--metrics-port", "0", "--processes", "2"], "--export with several processes needs --queues"),
    ],
)
async def test_an_export_that_makes_no_sense_is_a_usage_error(tmp_path: Path, options: list[str], text: str) -> None:
    with served(tmp_path, ["streamq.worker", "-p", PROCESSORS, *options]) as refused:
        assert await asyncio.to_thread(refused.process.wait, PATIENCE) == 2
        assert text in refused.log


async def test_a_taken_port_is_a_usage_error(redis_url: str, tmp_path: Path) -> None:
    def start() -> Served:
        return stack.enter_context(served(tmp_path, ["streamq", "exporter", "m", "--port", port], REDIS_URL=redis_url))

    with ExitStack() as stack:
        port = "0"
        first = start()
        await first.serves()
        port = first.url.rpartition(":")[2]
        second = start()
        assert await asyncio.to_thread(second.process.wait, PATIENCE) == 2
        assert "can't be used" in second.log

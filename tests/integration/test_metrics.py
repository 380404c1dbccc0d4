"""Real worker processes, scraped: their series, alone and as several, and what their health says in trouble."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from streamq import JobFailed, Queue
from tests.faults.workers import eventually
from tests.integration.scraping import PATIENCE, Served, served
from tests.servers import RedisServer
from tests.unit.test_metrics import EXPORTERS, listed

PROCESSORS = "tests.integration.processors_for_metrics"
LEASE = 1.5
Start = Callable[..., Served]


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[Queue]:
    async with Queue("m", redis_url) as queue:
        yield queue


def worker_of(url: str, folder: Path, *options: str, **environment: str) -> AbstractContextManager[Served]:
    environment = {"REDIS_URL": url, "STREAMQ_LEASE": str(LEASE), "JOB_RETRY_DELAY": "10", **environment}
    arguments = ["streamq.worker", "-q", "m", "-p", PROCESSORS, "--metrics-port", "0", *options]
    return served(folder, arguments, **environment)


@pytest.fixture
def start(redis_url: str, tmp_path: Path) -> Iterator[Start]:
    """Start a worker process that serves metrics; it is stopped at the end."""
    with ExitStack() as stack:
        yield lambda *options, **environment: stack.enter_context(
            worker_of(redis_url, tmp_path, *options, **environment)
        )


async def test_every_end_of_an_attempt_is_counted_under_its_processor(queue: Queue, start: Start) -> None:
    for name, data in (("fails", "x"), ("refuses", None), ("counts", "not a number"), ("nobody's", None)):
        await queue.add(name, data)
    expired = await queue.add("pid", expires_in=0.001)
    worker = start()
    await worker.serves()
    await (await queue.add("pid")).result(PATIENCE)
    with pytest.raises(JobFailed):
        await queue.result(expired.id, PATIENCE)
    ends = [("pid", "done"), ("pid", "fail"), ("fails", "retry"), ("fails", "fail"), ("refuses", "fail"),
            ("counts", "fail")]  # fmt: skip
    for processor, outcome in ends:
        await worker.shows("streamq_attempts_total", 1, queue="m", processor=processor, outcome=outcome)
    scrape = await worker.scrape()
    handed_on = scrape.value("streamq_attempts_total", queue="m", processor="unknown", outcome="release")
    assert handed_on is not None
    assert handed_on >= 1
    assert "nobody" not in scrape.text, "names of jobs are no labels"
    assert scrape.value("streamq_jobs_claimed_total", queue="m") == 6 + handed_on
    assert scrape.value("streamq_job_attempt_bucket", queue="m", le="1.0") == 5 + handed_on
    assert scrape.value("streamq_job_attempt_bucket", queue="m", le="2.0") == 6 + handed_on


async def test_a_worker_exports_what_the_page_lists_and_nothing_else(queue: Queue, start: Start) -> None:
    worker = start()
    await worker.serves()
    await (await queue.add("pid")).result(PATIENCE)
    families = {f.name + ("_total" if f.type == "counter" else ""): f.type for f in (await worker.scrape()).families}
    page = {name: kind for name, (kind, _) in listed().items() if not name.startswith(EXPORTERS)}
    assert {name: kind for name, kind in families.items() if name.startswith("streamq_")} == page


async def test_gauges_tell_what_the_worker_does_now(queue: Queue, start: Start, tmp_path: Path) -> None:
    worker = start("-c", "3")
    await worker.serves()
    gate = tmp_path / "gate"
    jobs = [await queue.add("waits", str(gate)) for _ in range(2)]
    await worker.shows("streamq_jobs_running", 2, queue="m")
    scrape = await worker.scrape()
    assert scrape.value("streamq_worker_concurrency", queue="m") == 3
    assert scrape.value("streamq_worker_healthy", queue="m") == 1
    assert (scrape.value("streamq_connections_opened_total", queue="m") or 0) >= 1
    assert (scrape.value("streamq_lease_age_seconds", queue="m") or 99) < PATIENCE
    gate.touch()
    for job in jobs:
        await job.result(PATIENCE)
    await worker.shows("streamq_jobs_running", 0, queue="m")


async def test_jobs_of_a_worker_that_was_killed_are_counted_as_taken_back(
    queue: Queue, start: Start, tmp_path: Path
) -> None:
    lost, gate = start(), tmp_path / "gate"
    await lost.serves()
    job = await queue.add("waits", str(gate))
    await lost.shows("streamq_jobs_running", 1, queue="m")
    lost.process.kill()
    gate.touch()
    worker = start()
    await job.result(PATIENCE)
    assert (await worker.scrape()).value("streamq_jobs_taken_back_total", queue="m") == 1
    assert (await worker.scrape()).value("streamq_jobs_poisoned_total", queue="m") == 0


async def test_a_job_that_took_its_worker_down_too_often_is_counted_as_poison(queue: Queue, start: Start) -> None:
    for _ in range(2):
        lost = start(STREAMQ_MAX_STALLS="2")
        await lost.serves()
        job = await queue.add("waits", "never", job_id="poison")
        await lost.shows("streamq_jobs_running", 1, queue="m")
        lost.process.kill()
    worker = start(STREAMQ_MAX_STALLS="2")
    with pytest.raises(JobFailed, match="WorkerLost"):
        await job.result(PATIENCE)
    await worker.serves()
    await worker.shows("streamq_jobs_poisoned_total", 1, queue="m")


async def test_a_job_handed_back_by_a_stop_is_counted(queue: Queue, start: Start, tmp_path: Path) -> None:
    # The figures of children that have ended are still served by their parent.
    worker = start("--processes", "1", "--max-jobs", "1", "--autoreload", "--grace", "0")
    await worker.serves()
    await queue.add("waits", str(tmp_path / "never"))
    await worker.shows("streamq_jobs_running", 1, queue="m")
    await (await queue.add("pid")).result(PATIENCE)  # the process is recycled, and lets go of the other job
    await worker.shows("streamq_attempts_total", 1, queue="m", processor="waits", outcome="release")


async def test_two_processes_are_scraped_as_one(queue: Queue, start: Start, tmp_path: Path) -> None:
    parent = start("--processes", "2", "-c", "4")
    await parent.serves()
    await parent.answers("/readyz", 200)
    await parent.shows("streamq_worker_concurrency", 8, queue="m")
    gate, total = tmp_path / "gate", 0
    pids: set[int] = set()
    while len(pids) < 2:
        jobs = [await queue.add("pid") for _ in range(10)]
        pids.update([await job.result(PATIENCE) for job in jobs])
        total += len(jobs)
    await parent.shows("streamq_attempts_total", total, queue="m", processor="pid", outcome="done")
    jobs = [await queue.add("waits", str(gate)) for _ in range(6)]
    await parent.shows("streamq_jobs_running", 6, queue="m")
    scrape = await parent.scrape()
    assert scrape.value("streamq_job_run_seconds_count", queue="m", processor="pid") == total
    assert not [labels for name, labels in scrape.samples if name.startswith("streamq_") and "pid" in dict(labels)]
    gate.touch()
    for job in jobs:
        await job.result(PATIENCE)


async def test_the_counts_of_a_process_that_died_stay_and_its_gauges_go(queue: Queue, start: Start) -> None:
    parent = start("--processes", "2", "-c", "4")
    await parent.serves()
    await parent.shows("streamq_worker_concurrency", 8, queue="m")
    pid = await (await queue.add("pid")).result(PATIENCE)
    await parent.shows("streamq_attempts_total", 1, queue="m", processor="pid", outcome="done")
    psutil.Process(pid).kill()
    await eventually(lambda: "ended with 9" in parent.log, PATIENCE)
    await parent.shows("streamq_worker_concurrency", 8, queue="m")
    assert (await parent.scrape()).value("streamq_attempts_total", queue="m", processor="pid", outcome="done") == 1


@pytest.mark.parametrize("options", [[], ["--processes", "2"]], ids=["alone", "as two"])
async def test_a_handler_that_blocks_the_loop_is_told_of_until_it_ends(
    queue: Queue, start: Start, tmp_path: Path, options: list[str]
) -> None:
    worker = start(*options)
    await worker.serves()
    await worker.answers("/readyz", 200, "ok")
    await worker.answers("/livez", 200, "ok")
    gate = tmp_path / "gate"
    job = await queue.add("blocks", str(gate))
    if not options:
        await worker.answers("/livez", 503, "the loop of queue m stands still")
    await worker.answers("/readyz", 503, "queue m")

    async def lag_is_longer_than_the_lease() -> bool:
        return ((await worker.scrape()).value("streamq_event_loop_lag_seconds", queue="m") or 0) > LEASE

    await eventually(lag_is_longer_than_the_lease, PATIENCE)
    gate.touch()
    await job.result(PATIENCE)
    await worker.answers("/livez", 200, "ok")
    await worker.answers("/readyz", 200, "ok")


@pytest.mark.parametrize("options", [[], ["--processes", "2"]], ids=["alone", "as two"])
async def test_a_worker_without_redis_is_alive_and_not_ready_and_recovers(
    server: RedisServer, tmp_path: Path, options: list[str]
) -> None:
    with worker_of(server.url, tmp_path, *options) as worker:
        await worker.serves()
        await worker.answers("/readyz", 200)
        opened = (await worker.scrape()).value("streamq_connections_opened_total", queue="m") or 0
        server.stop()
        await worker.answers("/readyz", 503, "queue m")
        assert (await worker.get("/livez"))[0] == 200
        await worker.shows("streamq_worker_healthy", 0, queue="m")
        server.start()
        await worker.answers("/readyz", 200)
        await worker.shows("streamq_worker_healthy", 1, queue="m")

        async def it_has_connected_anew() -> bool:
            return ((await worker.scrape()).value("streamq_connections_opened_total", queue="m") or 0) > opened

        await eventually(it_has_connected_anew, PATIENCE)
        assert await worker.ends() == 0


@pytest.mark.parametrize("options", [[], ["--processes", "2"]], ids=["alone", "as two"])
async def test_a_worker_that_stops_is_not_ready_and_goes_on_serving_until_its_jobs_have_ended(
    queue: Queue, start: Start, tmp_path: Path, options: list[str]
) -> None:
    worker, gate = start(*options), tmp_path / "gate"
    await worker.serves()
    job = await queue.add("waits", str(gate))
    await worker.shows("streamq_jobs_running", 1, queue="m")
    worker.process.send_signal(signal.SIGTERM)
    await worker.answers("/readyz", 503, "stopping")
    assert (await worker.scrape()).value("streamq_jobs_running", queue="m") == 1
    gate.touch()
    assert await asyncio.to_thread(worker.process.wait, PATIENCE) == 0
    await job.result(PATIENCE)
    assert (await worker.get("/livez"))[0] == 0, "nothing serves any more"


async def test_another_path_is_told_what_there_is(start: Start) -> None:
    worker = start()
    await worker.serves()
    assert await worker.get("/") == (404, "try /metrics, /livez or /readyz\n")


async def test_a_port_that_is_taken_is_a_usage_error(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = start("--metrics-port", str(taken.getsockname()[1]))
        assert await asyncio.to_thread(refused.process.wait, PATIENCE) == 2
    assert re.search(r"streamq.worker: the metrics port 127.0.0.1:\d+ can't be used", refused.log)


async def test_systemd_hears_of_start_and_stop_and_keeps_hearing_until_the_loop_stands_still(
    queue: Queue, start: Start, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE)
        worker = start(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="200000")

        async def hears() -> str:
            return (await asyncio.to_thread(systemd.recv, 1024)).decode()

        assert [await hears() for _ in range(3)] == ["STATUS=starting", "READY=1\nSTATUS=running", "WATCHDOG=1"]
        assert await hears() == "WATCHDOG=1"
        gate = tmp_path / "gate"
        job = await queue.add("blocks", str(gate))
        await worker.answers("/livez", 503)
        systemd.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                systemd.recv(1024)  # what had come before
        with pytest.raises(BlockingIOError):
            systemd.recv(1024)
        gate.touch()
        await job.result(PATIENCE)
        systemd.settimeout(PATIENCE)
        assert await hears() == "WATCHDOG=1"
        worker.process.terminate()
        while (heard := await hears()) == "WATCHDOG=1":
            pass
        assert heard == "STOPPING=1"

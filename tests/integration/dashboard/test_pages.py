"""What the pages show."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from urllib.parse import quote

import pytest
import redis
from starlette.applications import Starlette
from starlette.routing import Mount

from streamq import FlowJob, JobOptions, Priority, Queue, RateLimit, Settings, Unique, Unrecoverable
from streamq.dashboard import create_app
from tests.integration.conftest import Bench
from tests.integration.dashboard.conftest import Browser, browsing, served

HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"
PAGES = [
    "/",
    "/queue?q=q",
    "/jobs?q=q",
    "/jobs?q=q&state=failed",
    "/keys?q=q",
    "/key?q=q&key=a",
    "/workers",
    "/schedules",
    "/dead?q=q",
]


async def run(job: Any) -> object:
    """Complete, or fail as the job's name says."""
    await job.log(f"at work on {job.name}")
    if job.name.startswith("fails"):
        raise Unrecoverable(job.data or "no")
    return {"done": job.data}


@pytest.mark.parametrize("path", PAGES)
async def test_a_queue_in_which_nothing_ever_happened_has_all_pages(browser: Browser, path: str) -> None:
    found = await browser.get(path)
    assert found.status == 200, found.words


async def test_the_overview_counts_each_queue(browser: Browser, queue: Queue) -> None:
    await queue.add_many([("a", None)] * 1_234)
    await queue.add("b", delay=60)
    found = await browser.get("/")
    assert "Waiting 1,234" in found.words
    assert re.search(r"q no worker 1,234 \S+( m?s)? 0 1 0 0", found.words), found.words


async def test_a_queue_s_page_tells_its_limits_and_rates_and_draws_what_ended(
    browser: Browser, queue: Queue, bench: Bench, client: redis.Redis
) -> None:
    await queue.set_rate_limit(RateLimit(500, per=60))
    await queue.set_concurrency(7)
    async with bench.worker(run):
        for name in ("works", "fails"):
            job = await queue.add(name)
            await bench.happened("failed" if name == "fails" else "completed", job.id)
    found = await browser.get("/queue?q=q")
    assert "at most 500 starts per 1m 0s" in found.words
    assert "at most 7 at once" in found.words
    assert "1 completed, 0 retried, 1 failed" in found.words
    rates = re.search(r"Done/s ([\d.]+) Failed/s ([\d.]+)", found.words)
    assert rates is not None
    assert float(rates[1]) > 0
    assert float(rates[2]) > 0


async def test_jobs_are_listed_by_state_and_found_by_id_name_and_tag(browser: Browser, queue: Queue) -> None:
    await queue.add("plain", {"n": 1})
    await queue.add("tagged", {"n": 2}, tags=("eu", "vip"))
    own = await queue.add("own", {"n": 3}, job_id="invoice-7", priority=Priority.HIGH)
    every = await browser.get("/jobs?q=q&state=waiting")
    assert all(name in every.words for name in ("plain", "tagged", "own"))
    by_name = await browser.get("/jobs?q=q&state=waiting&name=plain")
    assert "plain" in by_name.words
    assert "tagged" not in by_name.words
    by_tag = await browser.get("/jobs?q=q&state=waiting&tag=vip")
    assert "tagged" in by_tag.words
    assert "plain" not in by_tag.words
    by_id = await browser.get(f"/jobs?q=q&id={own.id}")
    assert by_id.path == f"/job?q=q&id={own.id}"
    assert '"n": 3' in by_id.words
    missed = await browser.get("/jobs?q=q&id=nobody")
    assert "No job of this queue has the id nobody" in missed.words


async def test_a_long_list_goes_on_page_by_page_and_misses_none(browser: Browser, queue: Queue) -> None:
    jobs = await queue.add_many([("n", i, JobOptions(tags=("t",) if i % 2 else ())) for i in range(130)])
    for query, expected in (("", jobs), ("&tag=t", jobs[1::2])):
        seen: list[str] = []
        path: str | None = f"/jobs?q=q&state=waiting{query}"
        while path:
            found = await browser.get(path)
            seen += re.findall(r'<th scope="row"><a href="/job\?q=q&amp;id=(\d+)"', found.text)
            following = re.search(r'<a href="([^"]+)">(?:Next page|Search on)', found.text)
            path = following[1].replace("&amp;", "&") if following else None
        assert seen == [job.id for job in expected]


async def test_a_job_s_page_tells_all_there_is_to_know(browser: Browser, queue: Queue, bench: Bench) -> None:
    async with bench.worker(run):
        job = await queue.add(
            "fails", "the bank is closed", tags=("eu",), headers={"trace": "t-1"}, unique=Unique("account:7")
        )
        await bench.happened("failed", job.id)
        done = await queue.add("works", {"page": 2})
        await done.result(timeout=30)
    failed = (await browser.get(f"/job?q=q&id={job.id}")).words
    for text in (
        "Unrecoverable",
        "the bank is closed",
        "at work on fails",
        "eu",
        "t-1",
        "Traceback",
        "Attempts made 1",
        "Unique key account:7",
    ):
        assert text in failed
    kinds = ("added", "active", "failed", "dead")
    assert re.search(" ".join(rf"{kind} \d\d:\d\d:\d\d\.\d{{3}}" for kind in kinds), failed), failed
    completed = (await browser.get(f"/job?q=q&id={done.id}")).words
    assert 'Result { "done": { "page": 2 } }' in completed


async def test_workers_and_what_they_run_are_shown(browser: Browser, queue: Queue, bench: Bench) -> None:
    gate = asyncio.Event()

    async def hold(job: Any) -> None:
        await gate.wait()

    async with bench.worker(hold):
        job = await queue.add("long-report")
        await bench.happened("active", job.id)
        found = await browser.get("/workers")
        gate.set()
    assert re.search(rf"\S+ q [\d.]+ m?s 1 long-report {job.id} ", found.words), found.words


async def test_schedules_are_shown(browser: Browser, queue: Queue) -> None:
    await queue.upsert_schedule("nightly", cron="0 2 * * *", tz="Europe/Berlin", name="close-the-day")
    await queue.upsert_schedule("often", every=90, name="poll")
    await queue.pause_schedule("often")
    words = (await browser.get("/schedules")).words
    assert "nightly q 0 2 * * * Europe/Berlin close-the-day" in words
    assert "often paused q every 1m 30s poll" in words


async def test_what_is_not_there_is_said_to_be_so(browser: Browser) -> None:
    for path in ("/queue?q=nobody", "/job?q=q&id=7", "/queue", "/nowhere", "/job?q=q"):
        found = await browser.get(path)
        assert found.status in (400, 404), path
        assert "be shown" in found.words
    assert (await browser.get("/jobs?q=q&start=nonsense")).status in (200, 400)


@pytest.mark.parametrize("path", ["/dead?q=q&start=x", "/jobs?q=q&name=%00", "/job?q=q&id=%7B%7D"])
async def test_parameters_that_make_no_sense_are_refused(browser: Browser, path: str) -> None:
    assert (await browser.get(path)).status == 400


async def test_nothing_that_a_producer_writes_becomes_markup(
    browser: Browser, queue: Queue, bench: Bench, client: redis.Redis
) -> None:
    long = "n" * 10_000
    async with bench.worker(run):
        name = f"fails {HOSTILE}\u202e"
        data = HOSTILE * 15_000
        failed = await queue.add(name, data, tags=(HOSTILE,), headers={HOSTILE: HOSTILE}, job_id=f"../{HOSTILE}?#%2e")
        await bench.happened("failed", failed.id)
    waiting = await queue.add(HOSTILE, {HOSTILE: [HOSTILE, "\x00\x1b[31m", b"\xff", float("inf"), 2**70]})
    await queue.upsert_schedule(HOSTILE, every=3_600, name=HOSTILE)
    # Past the library: a name of 10 kB and an error of a megabyte, by somebody who writes to Redis.
    client.xadd("sq:{q}:lane:3", {"d": _envelope(long + HOSTILE), "t": 1})
    client.xadd("sq:{q}:dead", {"j": HOSTILE, "d": _envelope(long), "x": _error(HOSTILE * 20_000), "p": 3})
    client.xadd("sq:{q}:dead", {"j": "broken", "d": b"\xc1", "x": b"\xc1", "p": 3})
    pages = [
        *PAGES,
        f"/jobs?q=q&name={quote(HOSTILE)}&tag={quote(HOSTILE)}&id={quote(HOSTILE)}",
        f"/job?q=q&id={quote(failed.id, safe='')}",
        f"/job?q=q&id={waiting.id}",
        f"/queue?q={quote(HOSTILE)}",
    ]
    for path in pages:
        found = await browser.get(path)
        assert found.status < 500, path
        assert "<img src=x" not in found.text, path
        assert len(re.findall("<script", found.text)) == 1, path
        assert not re.search(r"[\x00-\x08\x0b-\x1f\u202a-\u202e]", found.text), path
        assert len(found.text) < 200_000, (path, len(found.text))
    assert "alert(1)" in (await browser.get(f"/job?q=q&id={quote(failed.id, safe='')}")).words


def _envelope(name: str) -> bytes:
    from streamq._engine import codec

    return codec.encode_envelope(name, codec.encode_data("data", None, 100), None)


def _error(message: str) -> bytes:
    from streamq._engine import codec
    from streamq.job import JobError

    return codec.encode_error(JobError("ValueError", message))


async def test_it_can_be_mounted_in_another_app(settings: Settings, queue: Queue) -> None:
    await queue.add("a", job_id="one")
    app = create_app(["q"], settings=settings, interval=0.05)
    async with served(Starlette(routes=[Mount("/ops/queues", app)]), app) as url, browsing(url) as browser:
        found = await browser.get("/ops/queues/")
        links = set(re.findall(r'(?:href|src|action|formaction)="([^"#]+)"', found.text))
        assert all(link.startswith("/ops/queues/") for link in links), links
        assert (await browser.get("/ops/queues/static/dashboard.css")).status == 200
        done = await browser.post("/ops/queues/do/pause?q=q", {"back": "/ops/queues/queue?q=q"})
        assert done.path == "/ops/queues/queue?q=q"
        assert "q is paused" in done.text
        async with browser.watch("/ops/queues/queue?q=q") as following:
            assert "/ops/queues/do/resume" in (await following())[1]
    await app.close()


async def test_no_page_asks_another_host_for_anything(browser: Browser) -> None:
    for path in PAGES:
        found = await browser.get(path)
        assert not re.search(r'(?:href|src|action)="(?:https?:)?//', found.text)
        assert " style=" not in found.text
        assert not re.search(r"\son\w+=", found.text)


async def test_a_job_page_links_parents_and_children(browser: Browser, queue: Queue, bench: Bench) -> None:
    low = [FlowJob("works", n, job_id=f"low{n}") for n in range(2)]
    await queue.add_flow(FlowJob("top", job_id="top", children=[*low, FlowJob("x", queue="other")]))
    listed = await browser.get("/jobs?q=q&state=waiting_children")
    assert "top" in listed.words
    assert "3 of 3 have not ended" in listed.words
    top = await browser.get("/job?q=q&id=top")
    assert "low0 q not ended low1 q not ended 1 other not ended" in top.words
    assert "Parents top" in (await browser.get("/job?q=q&id=low0")).words
    assert "Waiting for children 1" in (await browser.get("/queue?q=q")).words
    async with bench.worker(run):
        await bench.happened("completed", "low1")
        await bench.happened("completed", "low0")
    done = await browser.get("/job?q=q&id=top")
    assert "1 of 3 have not ended" in done.words
    assert "low0 q completed" in done.words


async def test_keys_are_listed_by_their_jobs_page_by_page_with_their_limits(browser: Browser, queue: Queue) -> None:
    await queue.limit_key(concurrency=4)
    await queue.limit_key("big", rate=RateLimit(10, per=60), weight=3)
    await queue.pause_key(HOSTILE)
    await queue.add_many([("work", None, JobOptions(key="big"))] * 8)
    await queue.add_many([("work", None, JobOptions(key=f"tenant-{n}")) for n in range(60)])
    first = await browser.get("/keys?q=q")
    assert "62 in all Set for all: rate not set, at once 4, weight not set" in first.words
    assert re.search("big 8 3 5 10 per 1m 0s . 3 Pause", first.words)
    assert "First page" not in first.words
    second = await browser.get("/keys?q=q&skip=50")
    assert second.words.count("tenant-") + first.words.count("tenant-") == 60
    assert "paused" in second.words
    assert "Next page" not in second.words
    assert "There are no more keys." in (await browser.get("/keys?q=q&skip=900")).words
    for found in (first, second):
        assert "<script>alert" not in found.text
        assert "<img src=x" not in found.text


async def test_a_key_s_page_tells_its_jobs_and_limits_and_is_linked_from_its_jobs(
    browser: Browser, queue: Queue
) -> None:
    await queue.limit_key(concurrency=4)
    await queue.limit_key(HOSTILE, concurrency=1, rate=RateLimit(5, per=2))
    job = await queue.add("work", key=HOSTILE)
    await queue.add("work", key=HOSTILE)
    shown = await browser.get(f"/job?q=q&id={job.id}")
    [address] = re.findall(r'title="its key" href="([^"]+)"', shown.text)
    found = await browser.get(address.replace("&amp;", "&"))
    assert f"Key {HOSTILE}" in found.words
    assert "Jobs 2 In turn 1 Parked 1" in found.words
    assert (
        "Its own rate 5 starts per 2.0 s, at once 1, weight not set Of all keys rate not set, at once 4" in found.words
    )
    assert "<script>alert" not in found.text
    await queue.limit_key(" acme ", rate=RateLimit(100, per=30 * 86_400))
    spaced = await browser.get("/key?q=q&key=+acme+")
    assert 'value="100/2592000s"' in spaced.text
    unknown = await browser.get("/key?q=q&key=nobody")
    assert "Jobs 0" in unknown.words
    assert (await browser.get("/key?q=q")).status == 400
    assert (await browser.get("/key?q=nowhere&key=a")).status == 404


async def test_a_flow_is_shown_as_a_tree_over_queues_and_is_linked_from_its_jobs(
    browser: Browser, queue: Queue
) -> None:
    leaf = FlowJob(HOSTILE, job_id="leaf")
    many = [FlowJob("many", job_id=f"many-{n}") for n in range(60)]
    middle = FlowJob("middle", job_id="middle", children=[leaf])
    await queue.add_flow(FlowJob("top", job_id="top", children=[middle, FlowJob("wide", job_id="wide", children=many)]))
    assert "/flow?q=q&amp;id=top" in (await browser.get("/job?q=q&id=top")).text
    found = await browser.get("/flow?q=q&id=top")
    assert "top top q waiting for children 2 of 2 open middle middle q waiting for children 1 of 1 open" in found.words
    assert "leaf <script>" in found.words
    assert "<script>alert" not in found.text
    assert "many-49" in found.words
    assert "many-50" not in found.words
    assert "10 more" in found.words
    async with browser.watch("/flow?q=q&id=top") as following:
        assert "middle" in (await following())[1]
    assert (await browser.get("/flow?q=q&id=nobody")).status == 404


async def test_the_steps_that_a_job_has_run_are_shown_until_it_completes(
    browser: Browser, queue: Queue, bench: Bench
) -> None:
    async def work(job: Any) -> None:
        await job.step("charge", lambda: {"receipt": HOSTILE})
        await job.save_cursor(41)
        if job.data == "fails":
            raise Unrecoverable("no")

    async with bench.worker(work):
        failed, done = await queue.add("work", "fails"), await queue.add("work")
        await bench.happened("failed", failed.id)
        await bench.happened("completed", done.id)
    found = await browser.get(f"/job?q=q&id={failed.id}")
    assert "Steps that have run charge" in found.words
    assert "Cursor 41" in found.words
    assert "<script>alert" not in found.text
    assert "Steps that have run" not in (await browser.get(f"/job?q=q&id={done.id}")).words

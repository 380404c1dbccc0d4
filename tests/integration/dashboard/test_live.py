"""Pages that stay up to date, through outages of Redis."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamq import Queue, Settings
from streamq.dashboard import create_app
from streamq.dashboard.live import MOST_CHANNELS, Crowded, Hub
from tests.integration.conftest import PATIENCE, Calls
from tests.integration.dashboard.conftest import Browser, browsing, served
from tests.servers import RedisServer


async def until(following: Any, kind: str, text: str) -> None:
    """Wait for an event that says so."""
    async with asyncio.timeout(PATIENCE):
        while True:
            got, said = await following()
            if got == kind and text in said:
                return


async def test_a_page_that_is_watched_tells_what_changes(browser: Browser, queue: Queue) -> None:
    async with browser.watch("/queue?q=q") as following:
        await until(following, "live", "<dt>Waiting</dt>")
        await queue.add_many([("a", None)] * 4_321)
        await until(following, "live", ">4,321</a>")


async def test_an_action_shows_at_once_to_all_who_watch(dashboard: Any) -> None:
    browser = await dashboard(interval=3_600)
    await browser.get("/")
    async with browser.watch("/queue?q=q") as one, browser.watch("/queue?q=q") as other:
        await until(one, "live", "Pause")
        await until(other, "live", "Pause")
        await browser.post("/do/pause?q=q")
        await until(one, "live", "Resume")
        await until(other, "live", "Resume")


async def test_a_hundred_watchers_ask_redis_as_often_as_one(dashboard: Any, queue: Queue, calls: Calls) -> None:
    browser = await dashboard(interval=3_600)
    streams = [browser.watch("/queue?q=q") for _ in range(50)]
    following = [await stream.__aenter__() for stream in streams]
    await asyncio.gather(*(until(each, "live", "Waiting") for each in following))
    for stream in streams:
        await stream.__aexit__(None, None, None)
    assert calls.names.count("stats") == 1


async def test_a_job_that_goes_is_said_to_be_gone(browser: Browser, queue: Queue) -> None:
    job = await queue.add("a")
    async with browser.watch(f"/job?q=q&id={job.id}") as following:
        await until(following, "live", "waiting")
        await queue.remove(job.id)
        await until(following, "gone", "unknown")


async def test_only_so_many_different_pages_are_watched() -> None:
    async def draw() -> str:
        return "page"

    hub = Hub(interval=3_600)
    streams = [hub.watch(number, draw) for number in range(MOST_CHANNELS)]
    for stream in streams:
        await anext(stream)
    with pytest.raises(Crowded):
        hub.watch("one more", draw)
    await anext(hub.watch(0, draw))
    await streams[-1].aclose()
    await anext(hub.watch("one more", draw))
    hub.close()


async def test_an_outage_is_told_and_got_over(server: RedisServer) -> None:
    settings = Settings(redis_url=server.url, timeout=0.5)
    app = create_app(["q"], settings=settings, interval=0.05)
    async with served(app, app) as url, browsing(url) as browser, Queue("q", settings=settings) as queue:
        await queue.add("kept")
        assert (await browser.get("/queue?q=q")).status == 200
        async with browser.watch("/queue?q=q") as following:
            await until(following, "live", "Waiting")
            server.kill()
            await until(following, "trouble", "Redis")
            away = await browser.get("/jobs?q=q")
            assert away.status == 503
            assert "Redis is away" in away.words
            done = await browser.post("/do/pause?q=q", {"back": "/queue?q=q"})
            assert done.status == 503
            assert "It may or may not have been done" in done.text
            assert server.url not in away.text
            server.start()
            await until(following, "live", "Waiting")
        assert "kept" in (await browser.get("/jobs?q=q&state=waiting")).words

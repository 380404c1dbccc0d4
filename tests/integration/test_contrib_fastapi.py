"""FastAPI: a real app, its lifespan and its dependencies, on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
import redis
from fastapi import FastAPI

from streamq import ActiveJob, FlowJob, InvalidInput, JobOptions, JobState, Processors, Queue, Unique
from streamq._engine.shards import SPAN
from streamq.contrib.fastapi import Queues

processors = Processors()


@processors.register("double")
async def double(job: ActiveJob[int]) -> int:
    return job.data * 2


@asynccontextmanager
async def started(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Start and end an app as a server does, and talk to it meanwhile."""
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://app") as client,
    ):
        yield client


def make(queues: Queues) -> FastAPI:
    app = FastAPI(lifespan=queues.lifespan)
    numbers = Annotated[Queue, queues.dependency("numbers")]

    async def add(n: int, queue: numbers) -> str:  # type: ignore[valid-type]
        return (await queue.add("double", n)).id  # type: ignore[attr-defined, no-any-return]

    async def look(job_id: str, queue: numbers) -> Any:  # type: ignore[valid-type]
        return await queue.result(job_id, timeout=20)  # type: ignore[attr-defined]

    for route in (add, look):
        route.__annotations__["queue"] = numbers  # FastAPI looks names up in the module, and this one is not there
    app.post("/jobs")(add)
    app.get("/jobs/{job_id}")(look)
    return app


def connections(client: redis.Redis) -> int:
    return int(client.info("clients")["connected_clients"])


async def test_routes_add_jobs_and_a_worker_inside_the_app_runs_them(redis_url: str) -> None:
    app = make(Queues(redis_url, workers={"numbers": processors}))
    async with started(app) as http:
        ids = [(await http.post("/jobs", params={"n": n})).json() for n in range(5)]
        found = await asyncio.gather(*(http.get(f"/jobs/{job_id}") for job_id in ids))
    assert [answer.json() for answer in found] == [0, 2, 4, 6, 8]


async def test_a_queue_with_shards_is_found_as_it_is(redis_url: str) -> None:
    async with Queue("numbers", redis_url, shards=3) as numbers:
        await numbers.stats()
        queues = Queues(redis_url, workers={"numbers": processors})
        async with started(make(queues)) as http:
            ids = [(await http.post("/jobs", params={"n": n})).json() for n in range(60)]
            assert await asyncio.gather(*(numbers.result(job_id, 20) for job_id in ids)) == [2 * n for n in range(60)]
            taken = await numbers.add("double", 1, delay=60, unique=Unique("once"))
            assert not (await queues["numbers"].add("double", 2, unique=Unique("once"))).is_new
        assert {int(job_id) // SPAN for job_id in ids} == {0, 1, 2}
        assert (await numbers.get_job(taken.id)) is not None


async def test_a_queue_without_shards_can_all_that_it_ever_could(redis_url: str) -> None:
    async def run(job: ActiveJob[int]) -> None:
        if not job.children:
            await job.add_children([FlowJob("double", 3, queue="others")])

    queues = Queues(redis_url, workers={"numbers": {"top": run}, "others": processors})
    async with started(make(queues)):
        numbers, others = queues["numbers"], queues["others"]
        top = await numbers.add_flow(FlowJob("top", children=[FlowJob("double", 4, queue="others")]))
        await top.result(20)
        await (await numbers.add("top")).result(20)
        assert (await others.stats()).completed == 2
        schedule = await numbers.upsert_schedule("s", every=60, name="top", options=JobOptions(key="k"))
        assert schedule.id == "s"


async def test_the_app_shares_one_queue_and_closes_it_at_its_end(redis_url: str, client: redis.Redis) -> None:
    queues = Queues(redis_url)
    before = connections(client)
    async with started(make(queues)) as http:
        for n in range(3):
            await http.post("/jobs", params={"n": n})
        assert queues["numbers"] is queues["numbers"]
        assert connections(client) == before + 1
        assert (await queues["numbers"].stats()).waiting == 3
    assert connections(client) == before


async def test_the_environment_is_read_when_the_app_starts(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    queues = Queues()
    app = make(queues)
    monkeypatch.setenv("REDIS_URL", redis_url)
    async with started(app) as http:
        job_id = (await http.post("/jobs", params={"n": 1})).json()
        job = await queues["numbers"].get_job(job_id)
    assert job is not None
    assert job.state == JobState.WAITING


async def test_it_goes_along_with_a_lifespan_of_ones_own_and_with_a_restart(redis_url: str) -> None:
    queues, seen = Queues(redis_url), list[str]()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with queues.lifespan(app):
            seen.append((await queues["numbers"].add("a")).id)
            yield

    app = FastAPI(lifespan=lifespan)
    for _ in range(2):
        async with started(app):
            pass
    assert seen == ["1", "2"]


async def test_what_can_not_be_is_said(redis_url: str) -> None:
    queues = Queues(redis_url)
    with pytest.raises(InvalidInput, match=r"the app has not started: pass lifespan=queues\.lifespan to FastAPI"):
        queues["numbers"]
    with pytest.raises(InvalidInput, match="queue name must not contain braces"):
        queues.dependency("{numbers}")
    async with queues.lifespan():
        with pytest.raises(InvalidInput, match="these queues are open already"):
            async with queues.lifespan():
                pass

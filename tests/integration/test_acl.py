"""The users of deploy/redis/users.acl on a real server: each may do what it is for, and nothing else."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from streamq import Priority, Queue, Schedule, Settings, Unrecoverable, Worker
from streamq.cli import doctor
from streamq.dashboard import create_app
from streamq.errors import ServerNotFound, StoreRefused
from streamq.exporter import Exporter
from streamq.unique import Unique
from tests.faults.workers import ROOT
from tests.integration.conftest import Bench
from tests.integration.dashboard.conftest import Browser, browsing, served
from tests.servers import RedisServer

FILE = ROOT / "deploy" / "redis" / "users.acl"
ROLES = ("producer", "worker", "operator", "viewer")
FOREIGN = [
    ("FLUSHALL",), ("FLUSHDB",), ("CONFIG", "GET", "*"), ("CONFIG", "SET", "appendonly", "no"), ("KEYS", "*"),
    ("SCAN", "0"), ("SHUTDOWN", "NOSAVE"), ("ACL", "LIST"), ("SCRIPT", "FLUSH"), ("MONITOR",),
    ("REPLICAOF", "NO", "ONE"), ("SAVE",), ("CLIENT", "KILL", "ID", "1"), ("FUNCTION", "LIST"),
    ("PUBLISH", "channel", "x"), ("GET", "session:1"), ("SET", "session:1", "x"), ("DEL", "session:1"),
    ("HGETALL", "sqx:{q}:meta"), ("XADD", "other:{q}:lane:3", "*", "f", "v"),
]  # fmt: skip


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server with the users of the file; its password for each is the role's name."""
    users = re.sub(r">(\w+)_PASSWORD", lambda found: f">{found[1].lower()}", FILE.read_text())
    path = tmp_path_factory.mktemp("acl") / "users.acl"
    # The tests' own connection is the default user, which the file turns off.
    path.write_text(users.replace("user default off", "user default on nopass ~* &* +@all"))
    try:
        server = RedisServer(arguments=("--aclfile", str(path)))
    except ServerNotFound as error:
        pytest.skip(str(error))
    with server:
        yield server


@pytest.fixture(autouse=True)
def emptied(guarded: RedisServer) -> None:
    guarded.call("FLUSHALL")
    guarded.call("SCRIPT", "FLUSH")  # so that each role has to bring its scripts


def url_of(server: RedisServer, role: str) -> str:
    return server.unix_url.replace("unix://", f"unix://{role}:{role}@")


def settings_of(server: RedisServer, role: str) -> Settings:
    return Settings(redis_url=url_of(server, role), lease=2.0, retry_delay=0.01)


@pytest.fixture
def settings(guarded: RedisServer) -> Settings:
    return Settings(redis_url=guarded.unix_url, lease=2.0, retry_delay=0.01)


async def run(job: Any) -> object:
    """Complete, fail, or fail at first, as the job's name says."""
    if job.name == "fails":
        raise Unrecoverable("no")
    if job.name == "fails-first" and job.attempt == 1:
        raise ValueError("not yet")
    await job.progress(50)
    await job.log("at work")
    return {"done": job.name}


def test_the_file_turns_off_whoever_has_no_password(tmp_path: Path) -> None:
    lines = FILE.read_text().splitlines()
    assert lines[0] == "user default off"
    assert [line.split()[1] for line in lines[1:]] == ["admin", *ROLES]
    assert all(">" in line for line in lines[1:])


@pytest.mark.parametrize("role", ROLES)
def test_nobody_may_touch_the_server_or_another_program_s_keys(role: str, guarded: RedisServer) -> None:
    guarded.call("SET", "session:1", "kept")
    for command in FOREIGN:
        with closing(redis.Redis.from_url(url_of(guarded, role))) as client:
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command)
            with pytest.raises(redis.exceptions.ResponseError):
                client.eval("return redis.call(unpack(ARGV))", 0, *command)
    assert guarded.call("GET", "session:1") == b"kept"


def test_a_wrong_password_opens_nothing(guarded: RedisServer) -> None:
    wrong = guarded.unix_url.replace("unix://", "unix://worker:producer@")
    with closing(redis.Redis.from_url(wrong)) as client, pytest.raises(redis.exceptions.AuthenticationError):
        client.ping()


async def test_a_user_of_one_queue_reaches_no_other(guarded: RedisServer) -> None:
    rules = next(line for line in FILE.read_text().splitlines() if line.startswith("user producer "))
    own = rules.replace("~sq:*", "~sq:{mail}*").replace(">PRODUCER_PASSWORD", ">own").split()[2:]
    guarded.call("ACL", "SETUSER", "own", *own)
    url = guarded.unix_url.replace("unix://", "unix://own:own@")
    async with Queue("mail", url) as mail, Queue("reports", url) as reports:
        assert (await mail.add("send")).id == "1"
        with pytest.raises(StoreRefused):
            await reports.add("send")
    assert guarded.call("KEYS", "sq:{reports}*") == []


async def test_a_producer_adds_in_every_way_and_waits_for_results(guarded: RedisServer, settings: Settings) -> None:
    async with Queue("q", settings=settings_of(guarded, "producer")) as queue, Worker("q", run, settings=settings):
        jobs = [
            await queue.add("plain"),
            await queue.add("own", job_id="own-1", priority=Priority.HIGH),
            await queue.add("later", delay=0.05),
            await queue.add("only", unique=Unique("k")),
            *await queue.add_many([("many", n) for n in range(3)]),
        ]
        assert [await job.result(timeout=30) for job in jobs] == [
            {"done": name} for name in ("plain", "own", "later", "only", "many", "many", "many")
        ]
        await queue.add_many([("staged", n) for n in range(1_200)])
        await queue.upsert_schedule("nightly", Schedule(name="plain", every=3600))
        waiting = await queue.add("plain", delay=3600)
        await queue.cancel(waiting.id)
        assert (await queue.stats()).completed > 0
        async for event in queue.events(after="0-0"):
            assert event.job_id
            break


async def test_a_producer_may_not_run_jobs(guarded: RedisServer) -> None:
    settings = settings_of(guarded, "producer")
    async with Queue("q", settings=settings) as queue:
        await queue.add("plain")
        worker = Worker("q", run, settings=settings)
        running = asyncio.create_task(worker.run())
        with pytest.raises((StoreRefused, TimeoutError)):
            await asyncio.wait_for(asyncio.shield(running), 2)
        assert not worker.healthy
        await worker.stop(grace=0)
        await asyncio.gather(running, return_exceptions=True)
        assert (await queue.stats()).waiting == 1


async def test_a_worker_runs_retries_fails_promotes_fires_and_takes_back(
    guarded: RedisServer, settings: Settings
) -> None:
    async with Queue("q", settings=settings) as queue:
        bench = Bench(queue, settings)
        stalled = await queue.add("stalls")
        # Held by somebody who is not there: the audit gives it a lease, which lapses.
        guarded.call("XGROUP", "CREATE", "sq:{q}:lane:3", "w", "0")
        guarded.call("XREADGROUP", "GROUP", "w", "gone", "STREAMS", "sq:{q}:lane:3", ">")
        jobs = [await queue.add(name) for name in ("plain", "fails-first")] + [await queue.add("later", delay=0.05)]
        failed = await queue.add("fails")
        await queue.upsert_schedule("often", Schedule(name="plain", every=0.1))
        async with Worker("q", run, settings=settings_of(guarded, "worker")) as worker:
            assert await stalled.result(timeout=30) == {"done": "stalls"}
            for job in jobs:
                assert await job.result(timeout=30) == {"done": job.name}
            await bench.happened("dead", failed.id)
            async for event in queue.events(after="0-0"):
                if event.kind == "completed" and event.job_id.startswith("often@"):
                    break
            assert worker.healthy


@pytest.mark.parametrize(("role", "lacks"), [("worker", set()), ("operator", {"XREADGROUP", "BLPOP", "CLIENT"})])
async def test_a_role_may_run_all_commands_that_the_scripts_use(
    role: str, lacks: set[str], guarded: RedisServer
) -> None:
    async with Queue("q", settings=settings_of(guarded, role)) as queue:
        refused = await queue._store.permissions(doctor.COMMANDS)
    assert {command.split()[0] for command in refused} == lacks


async def dashboard_of(role: str, server: RedisServer, acts: Any) -> None:
    app = create_app(["q"], settings=settings_of(server, role), interval=0.05)
    async with served(app, app) as url, browsing(url) as browser:
        await acts(browser)


async def test_an_operator_sees_every_page_and_acts_on_each(guarded: RedisServer, settings: Settings) -> None:
    async with Queue("q", settings=settings) as queue:
        bench = Bench(queue, settings)
        failed = await queue.add_many([("fails", None)] * 3)
        async with Worker("q", run, settings=settings):
            for job in failed:
                await bench.happened("dead", job.id)
        delayed = await queue.add("later", delay=3600)
        await queue.upsert_schedule("nightly", Schedule(name="plain", every=3600))

        async def acts(browser: Browser) -> None:
            for path in ("/", "/queue?q=q", "/jobs?q=q&state=failed", f"/job?q=q&id={failed[0].id}", "/workers",
                         "/schedules", "/dead?q=q"):  # fmt: skip
                found = await browser.get(path)
                assert found.status == 200, (path, found.words)
            yes = {"confirmed": "yes", "back": "/queue?q=q"}
            for action, form in (
                ("pause", {}), ("resume", {}), ("retry", {"id": failed[0].id}), ("remove", {"id": failed[1].id}),
                ("promote", {"id": delayed.id}), ("redrive-all", {}), ("clean", {"state": "failed", "grace": "0"}),
                ("trigger", {"id": "nightly"}), ("pause-schedule", {"id": "nightly"}),
            ):  # fmt: skip
                done = await browser.post(f"/do/{action}?q=q", {**yes, **form})
                assert done.status in (200, 404), (action, done.words)
                assert "permission" not in done.words.lower(), (action, done.words)

        await dashboard_of("operator", guarded, acts)
        await queue.drain(delayed=True)


async def test_a_viewer_s_exporter_and_dashboard_show_all_and_it_can_change_nothing(
    guarded: RedisServer, settings: Settings
) -> None:
    async with Queue("q", settings=settings) as queue:
        bench = Bench(queue, settings)
        failed = await queue.add("fails")
        async with Worker("q", run, settings=settings):
            await bench.happened("dead", failed.id)
        await queue.add("waits")
        before = await queue.stats()
        exporter = Exporter(["q"], settings_of(guarded, "viewer"))
        try:
            families = {family.name: family for family in await asyncio.to_thread(lambda: list(exporter.collect()))}
        finally:
            exporter.close()
        assert families["streamq_up"].samples[0].value == 1
        assert families["streamq_queue_memory_bytes"].samples[0].value > 0
        assert families["streamq_queue_dead_letters"].samples[0].value == 1

        async def looks(browser: Browser) -> None:
            for path in ("/", "/queue?q=q", "/jobs?q=q&state=failed", f"/job?q=q&id={failed.id}", "/workers",
                         "/schedules", "/dead?q=q"):  # fmt: skip
                found = await browser.get(path)
                assert found.status == 200, (path, found.words)

        await dashboard_of("viewer", guarded, looks)
        async with Queue("q", settings=settings_of(guarded, "viewer")) as looker:
            for act in (looker.add("no"), looker.pause(), looker.retry(failed.id), looker.remove(failed.id)):
                with pytest.raises(StoreRefused):
                    await act
            with pytest.raises(StoreRefused):
                await looker.obliterate(force=True)
        after = await queue.stats()
        assert (after.waiting, after.failed, after.paused) == (before.waiting, before.failed, before.paused)

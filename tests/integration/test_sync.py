"""streamq.sync on a real server: threads, forks, Flask, the end of the interpreter."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
import redis

from streamq import (
    ActiveJob,
    JobFailed,
    JobOptions,
    JobState,
    Processors,
    Settings,
    Unrecoverable,
    Worker,
    WrongState,
)
from streamq.dead_letters import DeadLetter
from streamq.observer import Observer, Sending
from streamq.sync import Job, Queue, add_job, close_all_queues, get_job, get_queue, get_queue_stats

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 30.0

processors = Processors()


@processors.register("double", attempts=1)
async def double(job: ActiveJob[int]) -> int:
    await job.progress(50)
    await job.log("doubling")
    if job.data < 0:
        raise Unrecoverable("no negative numbers")
    return job.data * 2


@contextmanager
def working(url: str, name: str = "q") -> Iterator[None]:
    """A worker on an event loop of its own, in a thread of its own, while the block runs."""
    loop, ready = asyncio.new_event_loop(), threading.Event()
    worker = Worker(name, processors, redis=url, settings=Settings(redis_url=url))

    async def work() -> None:
        async with worker:
            ready.set()
            await stopped.wait()

    stopped = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(work()))
    thread.start()
    assert ready.wait(PATIENCE)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join(PATIENCE)
        loop.close()


@pytest.fixture
def queue(redis_url: str) -> Iterator[Queue]:
    with Queue("q", redis_url) as queue:
        yield queue


# The API --------------------------------------------------------------------------------------------------------------


def test_jobs_are_added_run_and_looked_at_without_await(queue: Queue, redis_url: str) -> None:
    job = queue.add("double", 21, priority=2)  # type: ignore[arg-type]
    assert isinstance(job, Job)
    assert (job.id, job.name, job.queue, job.is_new) == ("1", "double", "q", True)
    assert repr(job) == "<Job q/1 double>"
    assert queue.stats().waiting == 1
    with working(redis_url):
        assert job.result(PATIENCE) == 42
        bad, worse = queue.add_many(("double", n) for n in (-1, -2))
        with pytest.raises(JobFailed, match="no negative numbers"):
            bad.result(PATIENCE)
        with pytest.raises(JobFailed):
            worse.result(PATIENCE)
    snapshot = job.snapshot()
    assert snapshot is not None
    assert (snapshot.state, snapshot.progress, queue.logs(job.id)) == (JobState.COMPLETED, 50, ["doubling"])
    assert queue.redrive(queue.dead_letters()[0]).job_ids == [bad.id]
    with pytest.raises(WrongState):
        queue.retry(job.id)


def test_options_and_ids_are_those_of_the_queue(redis_url: str) -> None:
    with Queue("q", redis_url, defaults=JobOptions(delay=60)) as queue:
        first, again = queue.add("a", job_id="x"), queue.add("a", job_id="x")
        assert (first.is_new, again.is_new) == (True, False)
        assert queue.stats().delayed == 1
        assert queue.defaults == JobOptions(delay=60)
        assert queue.settings == Settings.from_env()


def test_a_result_that_does_not_come_in_time_raises(queue: Queue) -> None:
    with pytest.raises(TimeoutError, match=r"no end of job 1 was seen within 0\.05 s; it goes on"):
        queue.add("double", 1).result(0.05)


def test_events_can_be_iterated_and_left(queue: Queue) -> None:
    queue.add_many([("a", None)] * 3)
    events = queue.events(after="0-0")
    assert [next(events).job_id for _ in range(3)] == ["1", "2", "3"]
    events.close()
    with pytest.raises(StopIteration):
        next(events)


def test_dead_letters_are_told_to_a_handler_that_may_block(queue: Queue, redis_url: str) -> None:
    told: list[DeadLetter] = []
    heard = threading.Event()

    def handle(letter: DeadLetter) -> None:
        queue.stats()  # a call that blocks, as handlers of plain code do
        told.append(letter)
        heard.set()

    watch = queue.on_dead(handle)
    with working(redis_url):
        job = queue.add("double", -1)
        assert heard.wait(PATIENCE)
    assert told[0].job_id == job.id
    watch.stop()


def test_letters_are_redriven_to_another_queue(queue: Queue, redis_url: str) -> None:
    with working(redis_url), pytest.raises(JobFailed):
        queue.add("double", -1).result(PATIENCE)
    with Queue("other", redis_url) as other:
        assert len(queue.redrive(everything=True, to=other).job_ids) == 1
        assert other.stats().waiting == 1


def test_the_flat_style(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    job = add_job("emails", "send", {"to": "ada"})
    assert get_queue("emails") is get_queue("emails")
    assert get_queue_stats("emails").waiting == 1
    found = get_job(get_queue("emails"), job.id)
    assert found is not None
    assert found.data == {"to": "ada"}
    close_all_queues()
    assert get_queue_stats("emails").waiting == 1
    close_all_queues()


def test_a_call_runs_in_the_context_of_its_caller(redis_url: str) -> None:
    tenant: ContextVar[str] = ContextVar("tenant")

    class Carries(Observer):
        def sending(self, queue: str, name: str, jobs: int) -> Sending:
            sending = Sending()
            sending.headers = {"tenant": tenant.get()}
            return sending

    tenant.set("t1")
    with Queue("q", redis_url, observer=Carries()) as queue:
        job = queue.add("a").snapshot()
    assert job is not None
    assert job.headers == {"tenant": "t1"}


# Threads --------------------------------------------------------------------------------------------------------------


def test_32_threads_share_a_connection_and_their_adds_go_out_together(redis_url: str, client: redis.Redis) -> None:
    calls: list[str] = []

    class Counts(Observer):
        def transition(self, queue: str, name: str, seconds: float, error: BaseException | None) -> None:
            calls.append(name)

    with Queue("q", redis_url, observer=Counts()) as queue:
        queue.add("first")
        before = client.info("stats")["total_connections_received"]
        start = threading.Barrier(32)

        def work(number: int) -> list[str]:
            start.wait()
            return [queue.add("noop", {"n": number}).id for _ in range(50)]

        with ThreadPoolExecutor(32) as pool:
            ids = [job_id for found in pool.map(work, range(32)) for job_id in found]
        assert len(set(ids)) == 1_600
        assert queue.stats().waiting == 1_601
        assert client.info("stats")["total_connections_received"] == before
    assert calls.count("add") < 800  # each call took the adds of several threads along


def test_an_error_reaches_the_thread_that_called_and_no_other(queue: Queue) -> None:
    def work(number: int) -> str:
        try:
            return queue.add("noop", number if number % 2 else {1, 2}).id
        except ValueError as error:
            return type(error).__name__

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, range(40)))
    assert found.count("UnencodableData") == 20
    assert queue.stats().waiting == 20


async def test_threads_of_a_program_with_an_event_loop_may_call(queue: Queue) -> None:
    assert (await asyncio.to_thread(queue.stats)).total == 0


# Forks and ends -------------------------------------------------------------------------------------------------------


def run(script: str, url: str, *, within: float = 60.0) -> Any:
    """Run a script in a process of its own, which must end well and say nothing on stderr; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", HEAD + script], capture_output=True, text=True,
        env={**os.environ, "REDIS_URL": url, "PYTHONPATH": str(ROOT)}, timeout=within,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


HEAD = """
import json, os, sys, threading, time
from streamq.sync import Queue
queue = Queue("q")

def in_child(work):
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid:
        os.close(theirs)
        with os.fdopen(ours) as said:
            found = json.loads(said.read() or "null")
        assert os.waitpid(pid, 0)[1] == 0
        return found
    with os.fdopen(theirs, "w") as told:
        told.write(json.dumps(work()))
    sys.exit(0)
"""


@pytest.mark.parametrize(
    "before", ["pass", "queue.add('parent')", "[queue.stats(), next(queue.events(after='0-0')) if False else 0]"]
)
def test_a_queue_made_before_a_fork_works_in_parent_and_child(before: str, redis_url: str) -> None:
    found = run(
        before + "\n"
        "child = in_child(lambda: [queue.add('child').id for _ in range(3)])\n"
        "grandchild = in_child(lambda: in_child(lambda: queue.add('grandchild').id))\n"
        "mine = [queue.add('parent').id for _ in range(3)]\n"
        "print(json.dumps([child, grandchild, mine, queue.stats().waiting]))\n",
        redis_url,
    )
    child, grandchild, mine, waiting = found
    assert len({*child, grandchild, *mine}) == 7
    assert waiting == 7 + ("parent" in before)


def test_a_fork_in_the_midst_of_other_threads_calls_harms_nobody(redis_url: str) -> None:
    script = """
stop = threading.Event()
added = [0] * 8
def work(at):
    while not stop.is_set():
        queue.add("noop")
        added[at] += 1
threads = [threading.Thread(target=work, args=(at,)) for at in range(8)]
[thread.start() for thread in threads]
children = [in_child(lambda: [queue.add("child").id for _ in range(20)]) for _ in range(10)]
before = sum(added)
while sum(added) < before + 100:
    time.sleep(0.001)
stop.set()
[thread.join() for thread in threads]
print(json.dumps([len({job_id for ids in children for job_id in ids}), sum(added), queue.stats().waiting]))
"""
    children, added, waiting = run(script, redis_url)
    assert children == 200
    assert waiting == 200 + added


def test_processes_of_multiprocessing_add_too(redis_url: str) -> None:
    script = """
import multiprocessing
def work(n):
    return queue.add("noop", n).id
queue.add("first")
with multiprocessing.get_context("fork").Pool(3) as pool:
    ids = pool.map(work, range(30))
    pool.close()
    pool.join()
print(json.dumps([len(set(ids)), queue.stats().waiting]))
"""
    assert run(script, redis_url) == [30, 31]


@pytest.mark.parametrize(
    "script",
    [
        "queue.add('a')\nprint(1)",
        "print(1)",
        "queue.add('a')\nqueue.close()\nprint(1)",
        "events = queue.events(after='0-0')\nqueue.add('a')\nnext(events)\nprint(1)",
        "job = queue.add('a')\nthreading.Thread(target=lambda: job.result(), daemon=True).start()\nprint(1)",
        "threading.Thread(target=lambda: (queue.add('a'), print(1))).start()",
        "queue.on_dead(print)\nprint(1)",
    ],
)
def test_the_interpreter_ends_cleanly(script: str, redis_url: str) -> None:
    assert run(script + "\n", redis_url, within=20) == 1


def test_ctrl_c_ends_a_wait(redis_url: str) -> None:
    script = HEAD + "job = queue.add('a')\nprint('waits', flush=True)\njob.result()\n"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "REDIS_URL": redis_url, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "waits\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE)
    assert "KeyboardInterrupt" in said
    assert process.returncode != 0


def test_a_wait_that_was_interrupted_leaves_nothing_behind(queue: Queue) -> None:
    class Alarm(Exception):
        pass

    def ring(number: int, frame: object) -> None:
        raise Alarm

    job = queue.add("a")
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(Alarm):
            job.result()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert queue.stats().waiting == 1


# Flask ----------------------------------------------------------------------------------------------------------------


def test_a_flask_app_adds_jobs_in_its_requests(redis_url: str, serving: Callable[[Any], str]) -> None:
    from flask import Flask, request

    app = Flask("shop")
    emails = Queue("q", redis_url)

    @app.post("/orders")
    def order() -> dict[str, str]:
        return {"job": emails.add("double", request.get_json()["n"]).id}

    @app.get("/orders/<job_id>")
    def look(job_id: str) -> Any:
        return {"doubled": emails.result(job_id, timeout=PATIENCE)}

    import httpx

    url = serving(app)
    with working(redis_url), httpx.Client(base_url=url) as http, ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda n: http.post("/orders", json={"n": n}).json()["job"], range(16)))
        found = list(pool.map(lambda job_id: http.get(f"/orders/{job_id}").json()["doubled"], ids))
    assert sorted(found) == [2 * n for n in range(16)]
    emails.close()


@pytest.fixture
def serving() -> Iterator[Callable[[Any], str]]:
    """Serve a WSGI app on a free port, a thread for each request, until the test ends."""
    from werkzeug.serving import BaseWSGIServer, make_server

    servers: list[tuple[BaseWSGIServer, threading.Thread]] = []

    def serve(app: Any) -> str:
        server = make_server("127.0.0.1", 0, app, threaded=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server, thread in servers:
        server.shutdown()
        thread.join(PATIENCE)
        server.server_close()

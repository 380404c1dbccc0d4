"""A hostile producer, before real workers: it adds no series, forges no log line, and makes none that is long.

What it can do to the dashboard's pages is in `dashboard/test_pages.py`, to a terminal in `test_cli_ends.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from streamq import Queue
from streamq._engine import codec
from tests.faults.workers import eventually
from tests.integration.scraping import PATIENCE, Served, served

MARKUP = "<script>alert(1)</script>\"'&"
FORGED = '\n{"level":"info","message":"forged"}\r\n2026-11-25 00:00:00,000 INFO    bank: forged\x1b[2J\u202e\u2028\x00'
HUGE = (MARKUP + FORGED) * 10_000
LONGEST_LINE = 60_000
Start = Callable[..., Served]


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[Queue]:
    async with Queue("m", redis_url) as queue:
        yield queue


@pytest.fixture
def start(redis_url: str, tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as stack:

        def run(*options: str) -> Served:
            command = ["streamq.worker", "--processors", "tests.integration.processors_for_hostile", "--queues", "m",
                       "--metrics-port", "0", "--export", *options]  # fmt: skip
            return stack.enter_context(served(tmp_path, command, REDIS_URL=redis_url, STREAMQ_MAX_PAYLOAD="4194304"))

        yield run


async def attack(queue: Queue, url: str) -> None:
    """Add 300 jobs of names of their own, and, past the library, some with names of 10 kB."""
    assert len(HUGE) > 1_000_000
    await queue.add_many([(f"made up {n} {MARKUP}"[:200], n) for n in range(300)])
    with redis.Redis.from_url(url) as client:
        for name in (f"fails{MARKUP}{FORGED}" * 100, MARKUP * 500, FORGED * 200):
            assert len(name) > 10_000
            envelope = codec.encode_envelope(name, codec.encode_data("data", HUGE, 4_194_304), None)
            client.xadd("sq:{m}:lane:3", {"d": envelope, "t": 1})
        client.xadd("sq:{m}:lane:3", {"d": b"\xc1 no envelope", "t": b"\xff" * 10_000})
        client.xadd("sq:{m}:lane:3", {FORGED: HUGE})
    last = await queue.add("last", "done")
    await last.result(timeout=60)

    async def over() -> bool:
        stats = await queue.stats()
        return not stats.waiting and not stats.active

    await eventually(over, PATIENCE)


@pytest.mark.parametrize("form", ["json", "console"])
async def test_neither_the_series_nor_the_log_lines_grow_or_are_forged(
    form: str, queue: Queue, redis_url: str, start: Start
) -> None:
    worker = start("--log-format", form)
    await worker.serves()
    first = await queue.add("plain", "hello")
    await first.result(timeout=30)
    failing = await queue.add("fails", "hello")
    await eventually(lambda: "failed for good" in worker.log, PATIENCE)
    before = {(name, labels) for name, labels in (await worker.scrape()).samples}
    await attack(queue, redis_url)
    scrape = await worker.scrape()
    after = set(scrape.samples)
    new = {labels for name, labels in after - before if not name.startswith(("process_", "python_"))}
    # What could not be read at all is counted as that: one processor more, whatever was sent.
    assert {dict(labels).get("processor") for labels in new} <= {None, "unknown"}
    assert len(after) < len(before) + 40
    assert "forged" not in scrape.text
    assert "made up" not in scrape.text
    await worker.ends()
    lines = worker.log.splitlines()
    assert len(lines) > 300
    assert max(map(len, lines)) < LONGEST_LINE
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u2028\u202e]", worker.log.replace("\n", ""))
    if form == "json":
        told = [json.loads(line) for line in lines]
        assert not [line for line in told if line["message"] == "forged"]
    else:
        start_of_line = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR) ")
        assert [line for line in lines if not start_of_line.match(line)] == []
        assert not [line for line in lines if line.startswith("2026-11-25 00:00:00,000")]
    assert failing.id

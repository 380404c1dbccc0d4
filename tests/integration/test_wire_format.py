"""The wire format: streamq and a second implementation, in Node, read each other's jobs."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import redis

from streamq import ActiveJob, Processors, Queue, Settings
from streamq._engine import codec, scripts
from tests.integration.conftest import PATIENCE, Bench

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
PROGRAM = EXAMPLES / "streamq.mjs"
VECTORS = json.loads((EXAMPLES / "vectors.json").read_text())
DATA = {"account": 17, "amounts": [1, -2, 3.5, 2**40], "note": "Grüße " * 60, "nothing": None, "yes": True}
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")

runs = Processors()


@runs.register("echo")
async def echo(job: ActiveJob[Any]) -> Any:
    return job.data


@runs.register("refuse", attempts=1)
async def refuse(job: ActiveJob[Any]) -> None:
    raise ValueError("no such account")


def node(*arguments: str) -> Any:
    """Run the example and return what it prints."""
    done = subprocess.run(["node", PROGRAM, *arguments], capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout) if arguments[0] != "-" or arguments[1] != "pack" else done.stdout.decode().strip()


@pytest.fixture
def place(redis_url: str) -> str:
    """Where Node finds the server."""
    with redis.Redis.from_url(redis_url) as client:
        asked = client.get_connection_kwargs()
    if asked.get("db", 0):
        pytest.skip("the example speaks to database 0")
    return str(asked["path"]) if "path" in asked else f"{asked['host']}:{asked['port']}"


@pytest.fixture
def add_script(tmp_path: Path) -> str:
    """The script that adds jobs, in a file."""
    path = tmp_path / "add.lua"
    path.write_text(scripts.load("add").body)
    return str(path)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector['kind']}-{vector['hex'][:24]}")
def test_each_vector_is_what_streamq_writes_and_reads(vector: dict[str, Any]) -> None:
    body = bytes.fromhex(vector["hex"])
    value = int(vector["text"]) if "text" in vector else vector["value"]
    if vector["kind"] == "data":
        assert codec.encode_data("data", value, 10_000) == body
    assert codec.decode(body) == value


def test_the_vectors_envelopes_are_envelopes() -> None:
    found = [codec.decode_envelope(bytes.fromhex(one["hex"])) for one in VECTORS if one["kind"] == "envelope"]
    assert [envelope.name for envelope in found] == ["monthly-report", "monthly-report"]
    options = found[1].options
    assert options is not None
    assert (options.a, options.t, options.g) == (5, 30.0, ("a",))


@needs_node
def test_node_reads_and_writes_the_vectors() -> None:
    for vector in VECTORS:
        if "value" in vector:
            assert node("-", "unpack", vector["hex"]) == vector["value"]
            packed = bytes.fromhex(node("-", "pack", json.dumps(vector["value"])))
            assert codec.decode(packed) == vector["value"]


@needs_node
async def test_a_job_that_node_adds_is_run_and_its_result_read_by_node(
    bench: Bench, place: str, add_script: str
) -> None:
    added = node(place, "add", bench.queue.name, "echo", json.dumps(DATA), add_script)
    assert added["new"]
    waiting = node(place, "get", bench.queue.name, added["id"])
    assert (waiting["state"], waiting["name"], waiting["data"]) == ("waiting", "echo", DATA)
    failing = node(place, "add", bench.queue.name, "refuse", "1", add_script)
    async with bench.worker(runs):
        await bench.happened("completed", added["id"])
        await bench.happened("failed", failing["id"])
    completed = node(place, "get", bench.queue.name, added["id"])
    assert (completed["state"], completed["result"], completed["attempts"]) == ("completed", DATA, 1)
    failed = node(place, "get", bench.queue.name, failing["id"])
    assert (failed["state"], failed["error"]) == ("failed", "ValueError: no such account")


@needs_node
async def test_node_reads_jobs_that_streamq_adds(queue: Queue, settings: Settings, place: str) -> None:
    plain = await queue.add("echo", DATA)
    own = await queue.add("echo", DATA, job_id="own")
    later = await queue.add("echo", DATA, delay=3600)
    assert [node(place, "get", queue.name, job.id)["state"] for job in (plain, own, later)] == [
        "waiting",
        "waiting",
        "delayed",
    ]
    assert all(node(place, "get", queue.name, job.id)["data"] == DATA for job in (plain, own, later))
    assert node(place, "get", queue.name, "999") is None


def test_the_example_is_short() -> None:
    assert len(PROGRAM.read_text().splitlines()) <= 150

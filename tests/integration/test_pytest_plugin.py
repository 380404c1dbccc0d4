"""The pytest plugin, in pytest runs of its own: what its fixtures give, and what it costs those who don't use it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

UNSET = "ignore:The configuration option:pytest.PytestDeprecationWarning"
"""pytest-asyncio's, about an option that these runs leave alone."""

USES = '''
import os
from streamq import JobState, Processors, Queue
from streamq.testing import assert_added, drain

processors = Processors()


@processors.task("send", queue="emails")
async def send(to):
    return to.upper()


async def sign_up(to):
    """As an application does it: its queue is the environment's."""
    async with Queue("emails") as queue:
        await send.on(queue).add(to)

{mark}
async def test_first(streamq_env, streamq_queues):
    assert os.environ["REDIS_URL"] == streamq_env
    await sign_up("ada")
    emails = streamq_queues("emails")
    assert (await drain(emails, processors)).done == 1
    job = await assert_added(emails, "send", {{"to": "ada"}}, state=JobState.COMPLETED)
    assert job.result == "ADA"

{mark}
async def test_second_finds_nothing_of_the_first(streamq_queues, streamq_queue, streamq_url):
    assert (await streamq_queues("emails").stats()).total == 0
    assert streamq_queue.name == "test"
    assert streamq_queues("test") is streamq_queue
    assert streamq_queue.redis == streamq_url != os.environ["REDIS_URL"]

{mark}
async def test_clock(streamq_clock, streamq_queues):
    emails = streamq_queues("emails")
    await emails.add("send", {{"to": "eve"}}, delay=3600)
    assert (await drain(emails, processors)).total == 0
    streamq_clock.advance(3600)
    assert (await drain(emails, processors)).done == 1
'''

DOES_NOT = """
import sys

def test_nothing_of_streamq_was_imported(request):
    assert [name for name in sys.modules if name.split(".")[0] in ("streamq", "redis", "msgspec")] == []
    assert request.config.pluginmanager.hasplugin("streamq_pytest")
"""


def run(folder: Path, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(text)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("STREAMQ_", "PYTEST_"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "streamq_pytest", "-W", "error", "-W", UNSET, *arguments, "test_it.py"],
        cwd=folder, env={**env, "PYTHONPATH": str(ROOT), "REDIS_URL": "redis://127.0.0.1:1/0"},
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("mark", "arguments"),
    [
        ("", ("-o", "asyncio_mode=auto")),
        ("import pytest\n@pytest.mark.asyncio", ("-o", "asyncio_mode=strict")),
        ("import pytest\n@pytest.mark.anyio\n@pytest.mark.parametrize('anyio_backend', ['asyncio'])",
         ("-p", "no:asyncio")),
    ],
    ids=["asyncio-auto", "asyncio-strict", "anyio"],
)  # fmt: skip
def test_fixtures_give_queues_on_an_empty_server_of_the_runs_own(
    mark: str, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    done = run(tmp_path, USES.format(mark=mark), *arguments)
    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_it_works_in_parallel_runs(tmp_path: Path) -> None:
    done = run(tmp_path, USES.format(mark=""), "-o", "asyncio_mode=auto", "-n", "2", "--dist", "each")
    assert "6 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [(), ("-p", "no:asyncio"), ("-p", "no:asyncio", "-p", "no:anyio")])
def test_who_does_not_use_it_does_not_import_streamq(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = run(tmp_path, DOES_NOT, *arguments)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_a_named_server_is_used_and_emptied(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"def test_it(streamq_url):\n    assert streamq_url == {redis_url!r}\n"
    (tmp_path / "conftest.py").write_text(f"import os\nos.environ['STREAMQ_TEST_REDIS_URL'] = {redis_url!r}\n")
    done = run(tmp_path, text)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    refused = run(tmp_path, text, "-n", "1")
    assert "STREAMQ_TEST_REDIS_URL names one server, and several processes would empty it" in refused.stdout

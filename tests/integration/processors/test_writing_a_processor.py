"""docs/writing-a-processor.md, followed to the letter."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[3] / "docs" / "writing-a-processor.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the guide shows."""
    text = GUIDE.read_text()
    for name in ("rates.py", "ask.py", "test_rates.py"):
        block = re.compile(r"```python\n(.*?)```", re.DOTALL).search(text, text.index(f"`{name}`"))
        assert block is not None
        (tmp_path / name).write_text(block[1])
    return tmp_path


async def output(folder: Path, *command: str, **more: str) -> str:
    env = {name: value for name, value in os.environ.items() if name != "REDIS_URL"} | more
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=folder, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    text = (await process.communicate())[0].decode()
    assert process.returncode == 0, text
    return text


async def test_the_worker_and_the_producer_say_what_the_guide_says(folder, redis_url):
    env = os.environ | {"REDIS_URL": redis_url}
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "streamq.worker", "--processors", "rates", "--log-level", "error", cwd=folder, env=env
    )
    try:
        said = await output(folder, "ask.py", REDIS_URL=redis_url)
    finally:
        worker.terminate()
        assert await worker.wait() == 0
    promised = re.search(r"python ask\.py\n```\n\n```\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert promised is not None
    assert said == promised[1]


async def test_the_guides_tests_pass(folder):
    said = await output(
        folder, "-m", "pytest", "-q", "-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"
    )
    assert "2 passed" in said

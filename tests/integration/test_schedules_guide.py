"""The examples of docs/schedules.md run as they stand there."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from streamq import Queue, Worker

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "schedules.md"


def test_the_guide_does_what_it_says(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    for block in blocks:
        exec(compile(block, str(GUIDE), "exec"), names)  # noqa: S102 - our own page
    assert len(blocks) == 4
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["heartbeat", "nightly"]

    async def use() -> None:
        async with Queue("reports") as queue, Worker("reports", names["processors"]):
            job = await queue.trigger_schedule("nightly")
            slot = datetime.fromtimestamp(int(job.id.removeprefix("nightly@")) / 1000, UTC)
            assert await job.result(timeout=20) == f"the report of {slot:%d %B}"
            await names["plan"](queue)
            assert [schedule.id for schedule in await queue.schedules()][1:] != []
            await names["operate"](queue)
            assert await queue.get_schedule("interest") is None

    asyncio.run(use())
    triggered, looked = capsys.readouterr().out.splitlines()
    assert triggered.startswith("interest@")
    assert looked.endswith(f"0 0 0 {triggered}")

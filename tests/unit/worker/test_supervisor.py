"""A background loop that fails goes on; one that returns, or is cancelled, ends."""

from __future__ import annotations

import asyncio

import pytest

from streamq.worker import supervisor


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.0)


async def test_a_loop_that_raises_is_told_of_and_started_again(caplog: pytest.LogCaptureFixture) -> None:
    turns: list[int] = []
    told: list[BaseException] = []

    async def loop() -> None:
        turns.append(1)
        if len(turns) < 4:
            raise ValueError(f"turn {len(turns)}")

    await supervisor.supervise("the loop", loop, told.append)
    assert [str(error) for error in told] == ["turn 1", "turn 2", "turn 3"]
    assert len(turns) == 4
    assert caplog.text.count("the loop failed; it goes on") == 3


async def test_a_cancelled_loop_ends() -> None:
    started = asyncio.Event()

    async def loop() -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(supervisor.supervise("the loop", loop, lambda error: None))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

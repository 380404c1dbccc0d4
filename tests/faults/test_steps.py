"""A worker is killed between a job's steps, or within one: what was stored is not done again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.scene import LEASE, Scene


@pytest.mark.parametrize(
    ("die", "noted", "result"),
    [
        ("after charge", ["charge", "ship"], ["charge in run 1", "ship in run 2"]),
        ("after ship", ["charge", "ship"], ["charge in run 1", "ship in run 1"]),
        ("in ship", ["charge", "ship", "ship"], ["charge in run 1", "ship in run 2"]),
    ],
)
async def test_a_step_that_was_stored_before_its_worker_was_killed_is_not_run_again(
    scene: Scene, tmp_path: Path, die: str, noted: list[str], result: list[str]
) -> None:
    """The third: killed when the step's function has done its work, and before that is stored. It runs again."""
    notes = tmp_path / "notes"
    for worker in await scene.start(2, concurrency=1):
        worker.expected_to_live = False
    job = await scene.add("charge-and-ship", {"notes": str(notes), "die": die})
    assert await job.result(timeout=2 * LEASE + 10) == result
    assert notes.read_text().split() == noted
    assert scene.direct.keys(f"{scene.base}:steps:*") == []

"""The handling of worker processes, tried on real ones: what the other tests rely on has to be seen to happen."""

from __future__ import annotations

import pytest

from tests.faults.scene import Scene
from tests.faults.workers import eventually, stays


async def test_a_worker_that_dies_unasked_is_complained_of_and_one_that_was_killed_is_not(scene: Scene) -> None:
    victim, suicidal = await scene.start(2, concurrency=1)
    victim.kill()
    assert victim.exit_code == -9
    assert scene.ledger.lines("killed")[-1].pid == victim.pid
    assert not scene.fleet.complaints()
    await scene.queue.add("suicide", {"times": 1})
    await eventually(lambda: not suicidal.alive, 10)
    assert [text.split(",")[0] for text in scene.fleet.complaints()] == [f"{suicidal.name} is gone (-9)"]
    suicidal.expected_to_live = False


async def test_a_frozen_worker_neither_works_nor_ends_until_it_is_thawed(scene: Scene) -> None:
    (worker,) = await scene.start(lease=30)
    worker.freeze()
    job = await scene.add("noop")
    await stays(lambda: scene.starts() == 0, 0.5, "a frozen worker starts nothing")
    assert worker.alive
    worker.thaw()
    await scene.started(job)


async def test_a_worker_started_again_is_a_new_process_with_the_same_log(scene: Scene) -> None:
    (worker,) = await scene.start()
    first = worker.pid
    worker.terminate()
    assert await worker.exits(5) == 0
    worker.start()
    assert worker.pid != first
    await scene.workers_ready([worker])
    await eventually(lambda: worker.log.count("runs queue faults") == 2, 5)
    assert worker.rss > 1_000_000
    assert worker.open_files > 3
    assert worker.cpu_seconds > 0


async def test_what_does_not_happen_fails_with_what_was_waited_for(scene: Scene) -> None:
    with pytest.raises(AssertionError, match=r"did not happen within 0\.1 s: pigs fly"):
        await eventually(lambda: False, 0.1, "pigs fly")
    with pytest.raises(AssertionError, match="did not last: pigs fly"):
        await stays(lambda: False, 0.1, "pigs fly")
    await scene.add("noop")
    with pytest.raises(AssertionError, match="the queue drains"):
        await scene.idle(0.1)

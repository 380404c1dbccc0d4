"""Clocks that are wrong, that drift, that are set while everything runs: nothing early, nothing twice, nothing lost.

Cron over the changes of the clocks is in tests/unit/test_slots.py, against a walker that looks each minute.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis

from tests.faults.clocks import SteppedClock, needs_faketime, server_that_bears_it
from tests.faults.figures import at_most, publish, seed_of_this_run
from tests.faults.ledger import Ledger
from tests.faults.load import busy, steady
from tests.faults.produce import LONGEST_DELAY
from tests.faults.scene import LONG, Scene, scaled
from tests.faults.storm import Plan, Storm
from tests.faults.workers import Fleet, eventually
from tests.servers import RedisServer

pytestmark = [needs_faketime, pytest.mark.timeout(scaled(120, 900))]

HOUR = 3_600
NEVER = (1e6, 1e6)
ONLY_LONG = pytest.mark.skipif(not LONG, reason="only in the long form")


async def test_wrong_and_drifting_clocks_of_workers_and_producers_change_nothing(scene: Scene) -> None:
    """Time is the server's: an hour ahead, an hour behind, a third too fast, a third too slow."""
    plan = Plan(
        seed_of_this_run(), jobs=scaled(1_500, 20_000), least_kills=0, least_server_kills=0, per_second=200,
        kill_every=NEVER, server_every=NEVER, worker_clocks=(f"+{HOUR}", f"-{HOUR}", "+0 x1.3", "+0 x0.7"),
        producer_clocks=(f"+{HOUR}", f"-{HOUR}"), without=("thread",),  # libfaketime breaks time.sleep itself
    )  # fmt: skip
    outcome = await Storm(scene, plan).run()
    publish("clocks of clients", plan.seed, {"clocks wrong": 6}, outcome.found())
    assert outcome.accepted - outcome.children + outcome.held_back == plan.jobs
    assert not outcome.lost
    assert not outcome.early
    assert not outcome.unexplained
    assert not outcome.repeated_by_kills
    assert not outcome.wrong_ends


@pytest.fixture
def clock(tmp_path: Path) -> SteppedClock:
    return SteppedClock(tmp_path)


@pytest.fixture
def clocked(clock: SteppedClock) -> Iterator[RedisServer]:
    """A server that goes by that clock."""
    binary = server_that_bears_it()
    if binary is None:
        pytest.skip("no server program that is found runs under libfaketime")
    with RedisServer(port=0, always=True, environment=clock.environment, binary=binary) as server:
        yield server


@pytest.fixture
async def clocked_scene(clocked: RedisServer, ledger: Ledger, tmp_path: Path) -> AsyncIterator[Scene]:
    """A scene on that server."""
    fleet = Fleet(clocked.url, ledger, tmp_path)
    with redis.Redis.from_url(clocked.url, socket_timeout=10) as direct:
        scene = Scene(clocked, direct, ledger, fleet)
        yield scene
        complaints = fleet.complaints()
        fleet.stop()
        await scene.close()
    assert not complaints


async def test_a_servers_clock_that_is_set_forth_and_back_repeats_and_loses_nothing(
    clocked_scene: Scene, clock: SteppedClock
) -> None:
    """P2: an hour ahead lapses every lease at once; an hour back leaves them an hour too long."""
    scene = clocked_scene
    true = scene.now_ms()
    workers = await scene.start(3, concurrency=5)
    async with steady(scene, lambda count: [("sleep", 0.5)] * count, waiting=20):
        for _ in range(steps := scaled(2, 20)):
            for ahead in (HOUR, 0):
                for worker in workers:
                    await busy(scene, worker, least=2)
                clock.set(ahead)
                await eventually(lambda ahead=ahead: abs(scene.now_ms() - true - ahead * 1000) < HOUR * 500, 5)  # type: ignore[misc]
                ended = scene.ends()
                await eventually(lambda ended=ended: scene.ends() >= ended + 30, 15, scene.remains)  # type: ignore[misc]
    await scene.idle(15)
    verdict, jobs = scene.verdict(), len(scene.accepted)
    publish(
        "clock of the server", None, {"set by an hour, forth or back": 2 * steps},
        {"jobs": jobs, "lost": at_most(len(verdict.lost), jobs), "run twice": at_most(len(verdict.repeated), jobs)},
        scene.server,
    )  # fmt: skip
    scene.each_ran_once()
    scene.clean()


@pytest.mark.parametrize("speed", [1.2, pytest.param(0.8, marks=ONLY_LONG)])
async def test_a_servers_clock_that_drifts_shortens_delays_by_as_much_and_no_more(
    clocked_scene: Scene, clock: SteppedClock, speed: float
) -> None:
    """Delays go by the server's clock; nothing runs before it says so, and nothing twice."""
    clock.set(0, speed=speed)
    plan = Plan(
        seed_of_this_run(), jobs=scaled(800, 10_000), least_kills=0, least_server_kills=0, per_second=150,
        kill_every=NEVER, server_every=NEVER,
    )  # fmt: skip
    outcome = await Storm(clocked_scene, plan).run()
    publish(
        f"drift of the server's clock by {speed:g}",
        plan.seed,
        {"clocks wrong": 1},
        outcome.found(),
        clocked_scene.server,
    )
    assert not outcome.lost
    assert not outcome.unexplained
    assert not outcome.repeated_by_kills
    assert not outcome.wrong_ends
    assert max(outcome.early.values(), default=0.0) <= max(LONGEST_DELAY * (1 - 1 / speed), 0.0) + 0.01


@ONLY_LONG
async def test_a_worker_that_dies_when_the_clock_was_put_back_is_missed_all_the_same(
    clocked_scene: Scene, clock: SteppedClock
) -> None:
    """P6: its lease would end in an hour; an audit cuts it."""
    scene = clocked_scene
    clock.set(HOUR)
    first, _ = await scene.start(2, concurrency=5)
    jobs = await scene.add_many([("sleep", 1.0)] * 10)
    await eventually(lambda: scene.starts() == 10, 5)
    first.kill()
    clock.set(0)
    killed = time.monotonic()
    await scene.idle(45)
    assert time.monotonic() - killed > 1
    assert len(scene.verdict().repeated) == 5
    assert len(jobs) == 10
    scene.clean()

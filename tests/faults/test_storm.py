"""The kill storm: nothing is lost, ends twice, or runs again but for the death of its worker."""

from __future__ import annotations

import pytest

from tests.faults.figures import percentile, publish, seed_of_this_run
from tests.faults.scene import Scene, scaled
from tests.faults.storm import Plan, Storm


@pytest.mark.timeout(scaled(180, 3_600))
async def test_a_storm_of_kills_loses_nothing_and_repeats_only_what_it_killed(scene: Scene) -> None:
    """P1, P2, P3, P6. Void if too little was killed."""
    short = {"jobs": 5_000, "least_kills": 10, "least_server_kills": 1, "per_second": 250}
    full = {"jobs": 100_000, "least_kills": 100, "least_server_kills": 10, "per_second": 200}
    short |= {"kill_every": (0.8, 2.0), "server_every": (8.0, 12.0)}
    plan = Plan(seed_of_this_run(), **scaled(short, full))
    outcome = await Storm(scene, plan).run()
    publish("kill storm", plan.seed, outcome.faults(), outcome.found())
    assert outcome.kills >= plan.least_kills, "void: too few workers were killed"
    assert outcome.server_kills >= plan.least_server_kills, "void: the server was killed too rarely"
    assert len(outcome.recoveries) >= plan.least_kills, "void: the killed workers held too little"
    assert outcome.accepted - outcome.children + outcome.unsure + outcome.held_back == plan.jobs
    assert outcome.children > 0, "void: no flow was added"
    assert outcome.held_back > 0, "void: no unique key held anything back"
    assert not outcome.lost
    assert not outcome.unfinished
    assert not outcome.overlapping
    assert not outcome.early
    assert not outcome.of_one_key
    assert outcome.keyed > 0, "void: no job had a key"
    assert not outcome.of_one_place, outcome.of_one_place[:5]
    assert not outcome.out_of_order, outcome.out_of_order[:5]
    assert not outcome.crowded, outcome.crowded
    assert not outcome.before_their_children
    assert not outcome.unexplained, outcome.unexplained[:5]
    assert not outcome.wrong_ends, list(outcome.wrong_ends.items())[:5]
    assert percentile(outcome.recoveries, 0.99) <= plan.recovery_bound

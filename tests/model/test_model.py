"""The scripts on a real server do what the model says, whatever is done in which order.

4,000 steps by default, always the same ones; `make model` takes 50,000 (`STREAMQ_MODEL_STEPS`), others each time unless
`STREAMQ_SEED` names a run.
What fails is made short first, which takes minutes; `STREAMQ_MODEL_RAW=1` tells it as it is.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.faults.figures import SEED, at_most, publish
from tests.model import clock
from tests.model.machine import Machine
from tests.model.real import Real

SHORT = 4_000
STEPS_EACH = 50
STEPS = int(os.environ.get("STREAMQ_MODEL_STEPS", SHORT))


def seed_of(is_long: bool) -> int:
    """The run that the environment names; else always the same short one, and a new long one."""
    return int(os.environ.get(SEED) or (random.SystemRandom().randrange(1_000_000) if is_long else 1))


@pytest.fixture
def real(redis_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Real]:
    """A queue whose scripts read the test's clock."""
    clock.install(monkeypatch, tmp_path / "lua")
    real = Real(redis_url)
    yield real
    real.close()


@pytest.mark.timeout(300 if STEPS <= SHORT else 7_200)
def test_the_scripts_do_what_the_model_says(real: Real) -> None:
    class Bound(Machine):
        pass

    Bound.real, Bound.run, Bound.counts = real, seed_of(STEPS > SHORT), Counter()
    run_state_machine_as_test(
        Bound,
        settings=settings(
            max_examples=max(STEPS // STEPS_EACH, 1),
            stateful_step_count=STEPS_EACH,
            derandomize=True,  # all chance is in the run's seed
            database=None,
            deadline=None,
            print_blob=True,
            report_multiple_bugs=False,
            phases=[Phase.generate] if os.environ.get("STREAMQ_MODEL_RAW") else tuple(Phase),
            suppress_health_check=list(HealthCheck),
        ),
    )
    counts = Bound.counts
    faults = {
        "outcomes sent again, or late": counts["settle_late"],
        "adds sent again, or overtaken": counts["add_again"],
    }
    found = {"steps": counts["steps"], "jobs": counts["jobs"], "differences": at_most(0, counts["steps"])}
    publish("the model beside the scripts", Bound.run, faults, found)

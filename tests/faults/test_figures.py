"""The figures that are published are those that were measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults.figures import KEPT, PAGE, at_most, figures_of, percentile, publish, render


def test_the_page_shows_the_figures_that_were_kept() -> None:
    assert figures_of(PAGE.read_text()) == render(json.loads(KEPT.read_text()))


def test_none_in_n_is_bounded_by_three_in_n() -> None:
    assert at_most(0, 100_000) == "0 in 100,000, at most 3e-05"
    assert at_most(2, 1_000) == "2 in 1,000"
    assert at_most(0, 0) == "0 in 0"


def test_a_percentile_is_a_value_that_was_seen() -> None:
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile(range(1, 101), 0.99) == 100
    assert percentile([], 0.99) == 0


def test_a_run_replaces_its_own_entry_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "figures.json"
    monkeypatch.setenv("STREAMQ_FIGURES", str(kept))
    publish("one", 7, {"kills": 3}, {"lost": 0})
    publish("two", None, {}, {"lost": 1})
    publish("one", 8, {"kills": 4}, {"lost": 0})
    found = json.loads(kept.read_text())
    assert {name: (entry["seed"], entry["faults"]) for name, entry in found.items()} == {
        "one": (8, {"kills": 4}),
        "two": (None, {}),
    }
    assert "one (seed 8)" in capsys.readouterr().out
    assert "| one (seed 8) | kills: 4 | lost: 0 |" in render(found)

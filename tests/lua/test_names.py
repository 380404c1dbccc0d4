"""One name, five places: a transition's script, its method, its test, its row in the documentation, its label.

And one table for keys: what the scripts and `keys.py` name is what docs/keys.md lists.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import streamq
from streamq._engine import keys, scripts
from streamq._engine.store import Store
from tests.lua.key_table import DOCS, key_rows

LUA = scripts.folder()
TESTS = Path(__file__).parent
PAGES = ["state-machine.md", "keys.md", "internals.md", *sorted(p.name for p in (DOCS / "decisions").glob("0*.md"))]


def rows(heading: str) -> list[str]:
    """The names in the first column of the table under a heading of docs/state-machine.md."""
    _, _, section = (DOCS / "state-machine.md").read_text().partition(f"\n## {heading}\n")
    assert section, f"docs/state-machine.md has no heading {heading!r}"
    return re.findall(r"^\| `([a-z_]+)` \|", section.partition("\n## ")[0].partition("\n### ")[0], re.MULTILINE)


def test_the_documented_transitions_are_the_scripts() -> None:
    documented = rows("The transitions")
    assert sorted(documented) == scripts.names()


@pytest.mark.parametrize("name", scripts.names())
def test_a_transition_has_one_method_which_runs_it(name: str) -> None:
    method = getattr(Store, name, None)
    assert inspect.iscoroutinefunction(method), f"Store.{name} is missing"
    assert re.search(rf'self\._\w+\(\s*"{name}"', inspect.getsource(method)), f"Store.{name} runs another script"


@pytest.mark.parametrize("name", scripts.names())
def test_a_transition_has_a_test_of_its_own(name: str) -> None:
    found = [path for path in TESTS.glob(f"test_{name}*.py") if re.fullmatch(rf"test_{name}(_[a-z]+)?", path.stem)]
    assert any(path.read_text().startswith(f'"""{name}') for path in found), f"tests/lua/test_{name}.py is missing"


@pytest.mark.parametrize("name", scripts.names())
def test_a_script_says_what_it_moves_and_who_races_it(name: str) -> None:
    head = (LUA / f"{name}.lua").read_text().splitlines()
    assert re.match(rf"-- {name}: ", head[1])
    for word in ("KEYS", "ARGV", "RETURNS", "RACES"):
        assert any(line.startswith(f"-- {word} ") for line in head), f"lua/{name}.lua does not say {word}"


@pytest.mark.parametrize("name", ["get", "jobs", "logs", "recall", "stats", "workers", "dead_letters", "schedules"])
def test_a_script_that_only_reads_says_so_to_the_server(name: str) -> None:
    assert "no-writes" in (LUA / f"{name}.lua").read_text().splitlines()[0]


@pytest.mark.parametrize(
    "name", ["tick", "renew", "leave", "remove", "cancel", "cancel_many", "pause", "resume", "wake"]
)
def test_a_script_that_a_full_redis_must_run_says_so_to_the_server(name: str) -> None:
    assert "allow-oom" in (LUA / f"{name}.lua").read_text().splitlines()[0]


def test_every_caller_that_the_table_names_is_there() -> None:
    text = (DOCS / "state-machine.md").read_text()
    named = re.findall(r"`(Queue|ActiveJob)\.([a-z_]+)`", text)
    assert named
    assert [f"{kind}.{name}" for kind, name in named if not hasattr(getattr(streamq, kind), name)] == []


def first_part(name: str) -> str:
    return re.split("[:<]", name)[0]


def test_every_key_that_a_script_names_is_documented_and_the_other_way_round() -> None:
    text = "\n".join(path.read_text() for path in LUA.rglob("*.lua"))
    # Names that are put together from a variable stand for a state's set; no script knows of shards.
    named = set(re.findall(r"base \.\. ':([a-z_]+)", text))
    others = {"completed", "failed", "shards"}
    assert named | others == {first_part(row.name) for row in key_rows()}


def test_every_key_that_python_names_is_documented() -> None:
    base = keys.base("q")
    made: list[str] = []
    for maker in vars(keys).values():
        if inspect.isfunction(maker) and maker.__module__ == keys.__name__ and maker is not keys.base:
            found = maker(*(base, "1")[: len(inspect.signature(maker).parameters)])
            made += [found] if isinstance(found, str) else found
    for key in made:
        rest = key.removeprefix(f"{base}:")
        assert any(row.pattern.match(rest) for row in key_rows()), f"{key} is not in docs/keys.md"
    assert made


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_points_at_is_there(page: str) -> None:
    path = next(DOCS.rglob(page))
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{page} points at {target}"

"""The scripts: found, put together, named by their SHA-1."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from streamq._engine import scripts

LUA = Path(__file__).resolve().parents[3] / "lua"


def test_every_file_is_a_script_and_includes_are_none() -> None:
    assert scripts.folder() == LUA
    assert scripts.names() == sorted(path.stem for path in LUA.glob("*.lua"))
    assert not set(scripts.names()) & {path.stem for path in (LUA / "lib").glob("*.lua")} & {"clock", "wake_up"}


@pytest.mark.parametrize("name", scripts.names())
def test_a_script_is_whole(name: str) -> None:
    script = scripts.load(name)
    assert script.body.startswith("#!lua")
    assert "@include" not in script.body
    assert script.sha == hashlib.sha1(script.body.encode(), usedforsecurity=False).hexdigest()
    for include in re.findall(r"^-- @include (\S+)$", (LUA / f"{name}.lua").read_text(), re.MULTILINE):
        for function in re.findall(r"^local (function \w+\()", (LUA / f"{include}.lua").read_text(), re.MULTILINE):
            assert function in script.body


@pytest.mark.parametrize("name", ["add", "tick"])
def test_what_runs_for_plain_jobs_is_without_what_only_bound_jobs_need(name: str) -> None:
    whole, plain = scripts.load(name).body, scripts.load(name, plain=True).body
    libraries = [path.read_text() for path in (LUA / "lib").glob("*.lua")]
    marked = [text for text in libraries if text.startswith("-- @needed by bound jobs only")]
    names = [one for text in marked for one in re.findall(r"^local function (\w+)\(", text, re.MULTILINE)]
    assert [one for one in names if f"function {one}(" in whole]
    assert not [one for one in names if f"function {one}(" in plain]
    assert "function need_bonds() end" in whole
    assert f"error({{ err = '{scripts.NEEDS_BONDS} " in plain
    assert "@needed" not in whole + plain


def test_an_include_is_put_in_once() -> None:
    assert scripts.load("tick").body.count("function now_ms()") == 1


def test_what_a_library_includes_stands_before_it() -> None:
    body = scripts.load("retry_many").body
    assert 0 < body.index("function wake(") < body.index("function release_unique(")


@pytest.mark.parametrize("name", scripts.names())
def test_a_script_stays_far_from_the_200_locals_of_a_scope(name: str) -> None:
    """Lua counts what stands outside of all blocks: names that a library keeps to itself stand in one of its own."""
    outside = re.sub(r"^do -- (\S+)$.*?^end -- \1$", "", scripts.load(name).body, flags=re.MULTILINE | re.DOTALL)
    declared = re.findall(r"^local (?:function )?([\w, ]+)", outside, re.MULTILINE)
    assert sum(len(names.split(",")) for names in declared) <= 170


def test_a_script_is_read_once() -> None:
    assert scripts.load("tick") is scripts.load("tick")


def test_a_package_without_its_scripts_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(scripts, "_PACKAGE", tmp_path / "streamq")
    scripts.folder.cache_clear()
    try:
        with pytest.raises(FileNotFoundError, match="streamq's Lua scripts are missing"):
            scripts.folder()
    finally:
        scripts.folder.cache_clear()


def test_the_scripts_of_an_installed_package_come_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for place in ("streamq/_lua", "lua"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "tick.lua").write_text("#!lua\n")
    monkeypatch.setattr(scripts, "_PACKAGE", tmp_path / "streamq")
    scripts.folder.cache_clear()
    try:
        assert scripts.folder() == tmp_path / "streamq" / "_lua"
    finally:
        scripts.folder.cache_clear()

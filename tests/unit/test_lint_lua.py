"""The Lua lint, on faults planted in small scripts; `make lint` runs it on the real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lint_lua import lint

HEADER = "#!lua\n-- good: waiting -> gone.\n-- KEYS     1 base\n-- ARGV     1 id\n-- RETURNS  1\n-- RACES    none\n"
LIBRARY = "-- The clock.\nlocal STEP = 1000\nlocal function now_ms()\n  return redis.call('TIME')[1] * STEP\nend\n"
BODY = "-- @include lib/clock\nlocal id = ARGV[1]\nreturn { id, now_ms() }\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "lib").mkdir()
    write(tmp_path, library=LIBRARY, body=BODY)
    return tmp_path


def write(folder: Path, *, header: str = HEADER, body: str = BODY, library: str = LIBRARY) -> None:
    (folder / "good.lua").write_text(header + body)
    (folder / "lib" / "clock.lua").write_text(library)


def faults(folder: Path) -> list[str]:
    return [fault.removeprefix(f"{folder}/") for fault in lint(folder)]


def test_a_good_script_has_no_fault(folder: Path) -> None:
    assert faults(folder) == []


@pytest.mark.parametrize(
    ("planted", "fault"),
    [
        ("gone = 1\n", "good.lua:8: gone is a global, which Redis refuses"),
        ("function gone() end\n", "good.lua:8: gone is a global, which Redis refuses"),
        ("redis.call('DEL', gone)\n", "good.lua:8: gone is not known"),
        ("os.exit()\n", "good.lua:8: os is not known"),
        ("local gone = 1\n", "good.lua:8: gone is never read"),
        ("local gone\ngone = 1\n", "good.lua:8: gone is never read"),
        ("local function gone() end\n", "good.lua:8: gone is never read"),
        ("do local inner = 1 end\nredis.call('GET', inner)\n", "good.lua:9: inner is not known"),
        (
            "local function arg() return ARGV[2] end\narg()\n",
            "good.lua:8: ARGV[2] inside a function: name it at the top",
        ),
        ("goto done\n::done::\n", "good.lua:8: Goto is not in Lua 5.1"),
        ("redis.call('SET', 7 // 2)\n", "good.lua:8: FloorDivOp is not in Lua 5.1"),
    ],
)
def test_a_planted_fault_is_found_at_its_line(folder: Path, planted: str, fault: str) -> None:
    include, rest = BODY.split("\n", 1)
    write(folder, body=f"{include}\n{planted}{rest}")
    assert fault in faults(folder)


@pytest.mark.parametrize(
    "fine",
    [
        "local function walk(n) return n == 0 and 0 or walk(n - 1) end\nwalk(3)\n",
        "for _, value in ipairs(ARGV) do redis.call('DEL', value) end\n",
        "for unused = 1, 2 do redis.call('PING') end\n",
        "local box = { name = 1, ['key'] = 2 }\nbox.name = box.other\nfunction box.act() return 1 end\n",
        "local text = 'a'\nredis.call('DEL', text:upper())\n",
        "repeat local last = true until last\n",
        "local _, second = unpack(ARGV)\nredis.call('DEL', second)\n",
    ],
)
def test_what_is_fine_is_not_reported(folder: Path, fine: str) -> None:
    include, rest = BODY.split("\n", 1)
    write(folder, body=f"{include}\n{fine}{rest}")
    assert faults(folder) == []


def test_a_script_that_does_not_parse_is_told_at_its_line(folder: Path) -> None:
    write(folder, body=BODY + "if then\n")
    [fault] = faults(folder)
    assert fault.startswith("good.lua:10: does not parse")


@pytest.mark.parametrize("word", ["KEYS", "ARGV", "RETURNS", "RACES"])
def test_a_header_without_one_of_its_parts_is_told(folder: Path, word: str) -> None:
    write(folder, header=HEADER.replace(f"-- {word} ", "-- "))
    assert f"good.lua:2: the header does not say {word}" in faults(folder)


def test_a_header_starts_with_the_scripts_own_name(folder: Path) -> None:
    write(folder, header=HEADER.replace("-- good:", "-- other:"))
    assert faults(folder) == ["good.lua:2: the header must start with '-- good: '"]


def test_the_first_line_names_the_language(folder: Path) -> None:
    write(folder, header=HEADER.replace("#!lua", "-- lua"))
    assert "good.lua:1: the first line must be #!lua" in faults(folder)


def test_an_include_that_does_not_exist_is_told(folder: Path) -> None:
    write(folder, body="-- @include lib/nowhere\n" + BODY)
    assert f"good.lua:7: {folder}/lib/nowhere.lua does not exist" in faults(folder)


def test_an_include_of_which_nothing_is_used_is_told(folder: Path) -> None:
    write(folder, body="-- @include lib/clock\nreturn ARGV[1]\n")
    assert "good.lua:7: nothing of lib/clock is used" in faults(folder)


def test_a_fault_in_a_library_is_told_at_the_librarys_line(folder: Path) -> None:
    write(folder, library=LIBRARY + "local function gone() return nowhere end\n")
    assert faults(folder) == [
        "lib/clock.lua:6: gone is read by no script",
        "lib/clock.lua:6: nowhere is not known",
    ]


@pytest.mark.parametrize(
    ("planted", "fault"),
    [
        ("redis.call('PING')\n", "lib/clock.lua:6: a library may hold only local functions and constants"),
        (
            "local pong = redis.call('PING')\nlocal function again() return pong end\n",
            "lib/clock.lua:6: a library must not call anything when it is loaded",
        ),
    ],
)
def test_a_library_that_acts_when_it_is_loaded_is_told(folder: Path, planted: str, fault: str) -> None:
    write(folder, library=LIBRARY + planted)
    assert fault in faults(folder)


def test_a_library_that_no_script_includes_is_told(folder: Path) -> None:
    write(folder, body="return ARGV[1]\n")
    assert faults(folder) == ["lib/clock.lua:1: no script includes it"]

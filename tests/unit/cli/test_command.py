"""The command line as a whole: its help, and what it does with its arguments."""

from __future__ import annotations

import argparse
import re
import shlex

import pytest

from streamq.cli import main
from streamq.cli.adding import job_options, parse
from streamq.cli.command import build
from streamq.errors import InvalidInput
from streamq.policy import Backoff, Priority, Retention
from streamq.unique import Unique


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (found,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found.choices)


def test_the_main_help_lists_every_command_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for name in commands(build()):
        assert f"\n  {name} " in said
    assert "exit codes:" in said
    assert "REDIS_URL" in said


@pytest.mark.parametrize("name", sorted(commands(build())))
def test_every_command_has_help_that_fits_a_screen(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    module = f"python -m streamq.{name}" if name in ("worker", "demo") else f"streamq {name}"
    assert lines[0].startswith(f"usage: {module} [-h]")
    assert len(lines) < 60
    assert all(len(line) <= 120 for line in lines)


def test_examples_in_the_help_are_command_lines_that_parse() -> None:
    parser = build()
    texts = [parser.epilog or "", *(command.epilog or "" for command in commands(parser).values())]
    lines = [line.strip() for line in "\n".join(texts).splitlines()]
    examples = [re.split(r" \| |   ", line)[0] for line in lines if line.startswith("streamq ")]
    for example in examples:
        parser.parse_args(shlex.split(example)[1:])
    assert len(examples) > 25


def test_options_of_add_become_options_of_the_job() -> None:
    words = (
        "add q work --priority 2 --attempts 4 --backoff 10s --timeout 1m --expires-in 2m --keep-completed 5/1h "
        "--keep-failed 0 --tag a --header b=c --delay 3 "
        "--unique k --while pending --unique-ttl 1h --on-conflict replace"
    )
    options = build().parse_args(words.split())
    found = job_options(options)
    assert (found.priority, found.attempts, found.delay) == (Priority.HIGH, 4, 3.0)
    assert (found.backoff, found.timeout, found.expires_in) == (Backoff.exponential(10.0), 60.0, 120.0)
    assert (found.keep_completed, found.keep_failed) == (Retention(5, 3_600), Retention(0))
    assert (found.tags, found.headers) == (("a",), {"b": "c"})
    assert found.unique == Unique("k", "pending", 3_600.0, "replace")


@pytest.mark.parametrize("words", ["--while pending", "--unique-ttl 5", "--on-conflict raise"])
def test_what_goes_with_a_unique_key_is_refused_without_one(words: str) -> None:
    options = build().parse_args(["add", "q", "work", *words.split()])
    with pytest.raises(InvalidInput, match="--while, --unique-ttl and --on-conflict go with --unique KEY"):
        job_options(options)


@pytest.mark.parametrize("text", ["", "{", "NaN", "[Infinity]", "hello", "[" * 100_000])
def test_data_that_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="the data is no JSON"):
        parse(text, "the data")

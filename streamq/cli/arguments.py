"""What the commands' arguments have in common: the parser, the options that all take, how values are read.

Pure: nothing here opens a connection or imports the engine.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, NoReturn

from streamq._engine.endpoint import hide_password
from streamq.errors import InvalidInput
from streamq.job import JobState
from streamq.policy import Priority, RateLimit, Retention

USAGE = 2

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[smhdw])")
NONE = "none"


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints never show a password."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the arguments and end with code 2."""
        self.exit(USAGE, f"{self.prog}: {hide_password(message)}\ntry: {self.prog} --help\n")


class Commands:
    """The commands as the families declare them, and the groups under which the main help lists them."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._subparsers = parser.add_subparsers(
            prog=parser.prog, dest="command", metavar="COMMAND", help=argparse.SUPPRESS, parser_class=Parser
        )
        self.groups: dict[str, list[tuple[str, str]]] = {}

    def add(
        self, group: str, name: str, run: Callable[..., Any], help: str, *, examples: str = "", connects: bool = True
    ) -> Parser:
        """Declare a command: `run` is called with its options, and may be a coroutine function."""
        self.groups.setdefault(group, []).append((name, help))
        parser: Parser = self._subparsers.add_parser(
            name,
            description=help[0].upper() + help[1:] + ".",
            epilog=f"examples:\n{examples.strip(chr(10))}" if examples else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        parser.set_defaults(run=run)
        add_common(parser, connects=connects)
        return parser


def add_common(parser: argparse.ArgumentParser, *, connects: bool = True) -> None:
    """Add the options that all commands take; they may also stand before the command."""
    if connects:
        parser.add_argument(
            "-r", "--redis", metavar="URL", default=argparse.SUPPRESS, help="where Redis is (default: the environment)"
        )
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON, an object per line")


def add_queue(parser: argparse.ArgumentParser) -> None:
    """Add the one queue that a command works on."""
    parser.add_argument("queue", metavar="QUEUE", help="the queue")


def add_queues(parser: argparse.ArgumentParser) -> None:
    """Add queues that may be left out."""
    parser.add_argument(
        "queues", metavar="QUEUE", nargs="*", help="queues (default: STREAMQ_QUEUES, or the bank's seven)"
    )


def add_yes(parser: argparse.ArgumentParser) -> None:
    """Add the consent that a destructive command needs."""
    parser.add_argument("-y", "--yes", action="store_true", help="don't ask (needed where nobody can answer)")


def span(text: str) -> float:
    """Read a span of time: seconds, or numbers with a unit (ms, s, m, h, d, w), such as `90`, `1.5s`, `1h30m`."""
    try:
        value = float(text)
        if 0 <= value < float("inf"):
            return value
    except ValueError:
        parts = _SPAN.findall(text)
        if parts and "".join(number + unit for number, unit in parts) == text:
            return sum(float(number) * _UNITS[unit] for number, unit in parts)
    raise argparse.ArgumentTypeError(f"{text!r} is no span of time: give seconds, or 250ms, 30s, 5m, 2h, 1d, 1h30m")


def moment(text: str) -> datetime:
    """Read a moment in ISO 8601; without a zone it is local time."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: give ISO 8601, such as 2026-11-30T18:00") from None
    return at if at.tzinfo is not None else at.astimezone()


def priority(text: str) -> Priority:
    """Read a priority, by name or number."""
    try:
        return Priority(int(text)) if text.isdigit() else Priority[text.upper()]
    except (KeyError, ValueError):
        names = ", ".join(f"{p.name.lower()} ({p.value})" for p in Priority)
        raise argparse.ArgumentTypeError(f"{text!r} is no priority: give {names}") from None


def state(*allowed: JobState) -> Callable[[str], JobState]:
    """Return a reader of job states, of these only."""

    def read(text: str) -> JobState:
        if text not in allowed:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(allowed)}")
        return JobState(text)

    return read


def rate(text: str) -> RateLimit | None:
    """Read a rate limit: `100/1m`, `10/s`, or `none`."""
    if text == NONE:
        return None
    most, slash, per = text.partition("/")
    try:
        return RateLimit(int(most), span(f"1{per}" if per in _UNITS else per) if slash else 1.0)
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no rate: give 10/s, 100/1m, or {NONE} ({error})") from None


def limit(text: str) -> int | None:
    """Read a whole number of at least 1, or `none`."""
    if text == NONE:
        return None
    return positive(text)


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def retention(text: str) -> Retention:
    """Read how much to keep: `COUNT`, or `COUNT/AGE`."""
    count, slash, age = text.partition("/")
    try:
        return Retention(int(count), span(age)) if slash else Retention(int(count))
    except (InvalidInput, ValueError, argparse.ArgumentTypeError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} must be COUNT or COUNT/AGE, such as 100/7d ({error})") from None


def header(text: str) -> tuple[str, str]:
    """Read `NAME=VALUE`."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} must be NAME=VALUE")
    return name, value

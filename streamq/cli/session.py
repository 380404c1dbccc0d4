"""What a command works with while it runs: its options, its output, and queues that it opens."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from streamq.cli.output import Output, clean_text
from streamq.errors import InvalidInput, StreamqError
from streamq.job import QueueName
from streamq.settings import Settings

if TYPE_CHECKING:
    from streamq.queue import Queue

QUEUES = "STREAMQ_QUEUES"


class Declined(StreamqError):
    """The user said no. Nothing was changed."""

    def __str__(self) -> str:
        return "nothing was changed"


class Session:
    """One run of a command."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.out = Output(json=getattr(options, "json", False))

    @property
    def settings(self) -> Settings:
        """The environment's settings, with `--redis` laid over them."""
        settings = Settings.from_env()
        url = getattr(self.options, "redis", None)
        return settings if url is None else msgspec.structs.replace(settings, redis_url=url)

    @asynccontextmanager
    async def queue(self, name: str | None = None) -> AsyncIterator[Queue]:
        """Open the queue that the command names, or another one."""
        from streamq.queue import Queue

        name = self.options.queue if name is None else name
        async with Queue(name, settings=self.settings, shards="stored") as queue:
            yield queue

    @asynccontextmanager
    async def queues(self) -> AsyncIterator[list[Queue]]:
        """Open the queues that the command names, or the default ones."""
        async with AsyncExitStack() as stack:
            names = dict.fromkeys(self.options.queues or default_queues())
            yield [await stack.enter_async_context(self.queue(name)) for name in names]

    def check_consent(self, what: str) -> None:
        """Refuse to destroy anything where `--yes` was not given and nobody can be asked.

        Raises:
            InvalidInput: Nobody can.
        """
        if not self.options.yes and not sys.stdin.isatty():
            raise InvalidInput(f"{what} needs --yes where there is no terminal to ask on; nothing was changed")

    def confirm(self, question: str) -> None:
        """Ask before something is destroyed, unless `--yes` was given.

        Raises:
            InvalidInput: Nobody can be asked.
            Declined: The answer was not yes.
        """
        self.check_consent(self.options.command)
        if self.options.yes:
            return
        print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise Declined


def default_queues() -> list[str]:
    """Return the queues that are meant where none is named: STREAMQ_QUEUES, or else the bank's seven.

    Redis is not asked for them: a list of all queues would be a key that belongs to no queue, and finding them by
    SCAN costs as much as there are keys.
    """
    named = [name.strip() for name in os.environ.get(QUEUES, "").split(",") if name.strip()]
    return named or [str(name) for name in QueueName]


def complain(text: str) -> None:
    """Tell the user what is wrong, beside the output."""
    print(f"streamq: {clean_text(text)}", file=sys.stderr)

"""`manage.py streamq_worker`: `python -m streamq.worker` with the project's processors and settings."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandParser  # type: ignore[import-untyped]

from streamq.contrib.django.conf import read
from streamq.worker.__main__ import leave, main, parser


class Command(BaseCommand):  # type: ignore[misc]
    """Runs workers."""

    help = "Run the jobs of one or more queues, with the processors in the `jobs` modules of the installed apps."
    requires_system_checks: Sequence[str] = ()

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Take Django's options before a `--`, and the worker's as they are."""
        made = super().create_parser(prog_name, subcommand, **kwargs)
        made.epilog = f"All else is for the worker:\n{parser().format_help()}"
        return made

    def run_from_argv(self, argv: list[str]) -> None:
        """Run with what stands behind the command's name, which the worker's own parser reads."""
        if {"-h", "--help"} & set(argv[2:]):
            self.print_help(argv[0], argv[1])
            return
        self.handle(arguments=argv[2:])

    def handle(self, *args: Any, **options: Any) -> None:
        """Run workers until a signal ends them; the process ends with this."""
        arguments = list(options.get("arguments") or args)
        read().into(os.environ)
        sys.path.insert(0, os.getcwd())
        leave(main(["--processors", "streamq.contrib.django.processors", *arguments]))

"""`python -m streamq.worker`: run workers as a process of their own.

Exit codes: 0 stopped as asked; 1 stopped, but Redis was away and jobs could not be handed back; 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Coroutine
from typing import Any

import msgspec

from streamq.errors import InvalidInput, StreamqError
from streamq.job import QueueName
from streamq.policy import RateLimit
from streamq.processor import Processors
from streamq.settings import Settings
from streamq.worker.plugins import from_modules, installed
from streamq.worker.worker import Worker

log = logging.getLogger("streamq.worker")

EPILOG = """\
environment:
  REDIS_URL, or REDIS_HOST, REDIS_PORT, REDIS_USERNAME, REDIS_PASSWORD, REDIS_DB
  QUEUE_CONCURRENCY (5)      jobs that run at once, per queue
  JOB_RETRY_ATTEMPTS (3)     how often a job may fail, the first time included
  JOB_RETRY_DELAY (5000)     ms before the first retry; doubles each time
  STREAMQ_LEASE (15), STREAMQ_GRACE (30), STREAMQ_MAX_STALLS (3), STREAMQ_TIMEOUT (5), STREAMQ_THREADS, ...

signals:
  TERM, INT   claim nothing more, let jobs finish within the grace period, hand the rest back (no attempt is used)
  again       hand everything back now

examples:
  python -m streamq.worker --queues reports,emails
  python -m streamq.worker --queues reports --processors mybank.jobs --concurrency 20
"""


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    found = argparse.ArgumentParser(
        prog="python -m streamq.worker",
        description="Run the jobs of one or more queues.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = found.add_argument
    add("-q", "--queues", metavar="A,B", help="the queues to serve (default: all that the processors name)")
    add("-p", "--processors", metavar="MODULE[:NAME]", action="append", default=[],
        help="where the processors are; may be given more than once (default: the installed plugins)")  # fmt: skip
    add("-c", "--concurrency", type=int, metavar="N", help="jobs that run at once, per queue (default: 5)")
    add("-g", "--grace", type=float, metavar="S", help="seconds that a stop lets jobs finish (default: 30)")
    add("-r", "--redis", metavar="URL", help="where Redis is (default: from the environment)")
    add("--rate", metavar="MAX/SECONDS", help="start at most MAX jobs per SECONDS, per queue, over all workers")
    add("-l", "--log-level", default="info", choices=["debug", "info", "warning", "error"], help="(default: info)")
    return found


def settings_of(options: argparse.Namespace) -> Settings:
    """Lay the command line over the environment."""
    said = {"redis_url": options.redis, "concurrency": options.concurrency, "grace": options.grace}
    return msgspec.structs.replace(Settings.from_env(), **{k: v for k, v in said.items() if v is not None})


def rate_of(text: str | None) -> RateLimit | None:
    """Read `10/1.5`."""
    if text is None:
        return None
    most, _, per = text.partition("/")
    try:
        return RateLimit(int(most), float(per or 1))
    except ValueError as error:
        raise InvalidInput(f"--rate takes MAX/SECONDS, such as 10/1, not {text!r}: {error}") from None


def queues_of(named: str | None, processors: Processors) -> list[str]:
    """Return the queues to serve."""
    if named:
        return [name.strip() for name in named.split(",") if name.strip()]
    return processors.queues() or [str(name) for name in QueueName]


async def serve(workers: list[Worker]) -> int:
    """Run workers until a signal stops them; returns the exit code."""
    loop = asyncio.get_running_loop()
    signals = 0
    stops: set[asyncio.Task[None]] = set()

    def on_signal(name: str) -> None:
        nonlocal signals
        signals += 1
        log.info("%s: %s", name, "stopping" if signals == 1 else "stopping at once")
        for worker in workers:
            stops.add(asyncio.ensure_future(worker.stop(grace=None if signals == 1 else 0)))

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number.name)
    ends = await asyncio.gather(*(worker.run() for worker in workers), return_exceptions=True)
    failed = [end for end in ends if isinstance(end, BaseException)]
    for error in failed:
        log.error("a worker did not stop cleanly: %s", error)
    return 1 if failed else 0


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run on uvloop where it is installed."""
    with contextlib.suppress(ImportError):
        import uvloop

        return uvloop.run(main)
    return asyncio.run(main)


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = parser().parse_args(argv)
    logging.basicConfig(
        level=options.log_level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", stream=sys.stderr
    )
    try:
        settings = settings_of(options)
        processors = from_modules(options.processors) if options.processors else installed()
        if not len(processors):
            raise InvalidInput("no processors: name a module with --processors, or install a plugin")
        limiter = rate_of(options.rate)
        queues = queues_of(options.queues, processors)
    except StreamqError as error:
        print(f"streamq.worker: {error}", file=sys.stderr)
        return 2

    async def start() -> int:
        return await serve([Worker(q, processors, settings=settings, limiter=limiter) for q in queues])

    try:
        return run(start())
    except InvalidInput as error:
        print(f"streamq.worker: {error}", file=sys.stderr)
        return 2


def leave(code: int) -> None:
    """End the process; threads that still run a handler (its job was handed back) are not waited for."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    if any(thread.name.startswith("streamq-job") and thread.is_alive() for thread in threading.enumerate()):
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    leave(main())

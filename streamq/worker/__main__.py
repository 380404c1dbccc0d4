"""`python -m streamq.worker`: run workers as a process of their own.

Exit codes: 0 stopped as asked; 1 stopped, but Redis was away and jobs could not be handed back; 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from streamq.errors import InvalidInput, StreamqError
from streamq.job import QueueName
from streamq.log import configure
from streamq.observer import NOBODY, Observer, together
from streamq.policy import RateLimit
from streamq.processor import Processors
from streamq.queue import Shards
from streamq.settings import Settings
from streamq.worker.plugins import from_modules, installed
from streamq.worker.processes import Processes, is_child
from streamq.worker.serving import Limits, Serving
from streamq.worker.worker import Worker

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from streamq.exporter import Exporter
    from streamq.metrics import Metrics
    from streamq.worker.health import HealthServer

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
  python -m streamq.worker --queues reports --processes 4 --max-jobs 100000
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
    add("--shards", type=shards_of, metavar="N",
        help='over how many shards the queues are spread, or "stored": as Redis says (default: none)')  # fmt: skip
    add("-g", "--grace", type=float, metavar="S", help="seconds that a stop lets jobs finish (default: 30)")
    add("-r", "--redis", metavar="URL", help="where Redis is (default: from the environment)")
    add("-n", "--processes", type=int, metavar="N", default=1,
        help="worker processes, each with this concurrency; one that ends is started anew (default: 1)")  # fmt: skip
    add("--max-jobs", type=int, metavar="N", help="recycle a process after so many jobs")
    add("--max-memory", type=int, metavar="MB", help="recycle a process once it has taken so much memory")
    add("--metrics-port", type=int, metavar="PORT", help="serve /metrics, /livez and /readyz there (default: not)")
    add("--metrics-host", default="127.0.0.1", metavar="HOST", help="(default: 127.0.0.1)")
    add("--export", action="store_true", help="serve the state of the queues there, too (see streamq exporter)")
    add("--autoreload", action="store_true",
        help="in development: start anew when a Python file here changes (needs streamq[reload])")  # fmt: skip
    add("--rate", metavar="MAX/SECONDS", help="start at most MAX jobs per SECONDS, per queue, over all workers")
    add("-l", "--log-level", default="info", choices=["debug", "info", "warning", "error"], help="(default: info)")
    add("--tracing", action="store_true",
        help="make OpenTelemetry spans, with the provider that the process has (needs streamq[otel])")  # fmt: skip
    add("--log-format", default="console", choices=["console", "json"],
        help="lines for people, or JSON with the job's id, queue and attempt in each (default: console)")  # fmt: skip
    return found


def shards_of(text: str) -> Shards:
    """Read a number of shards, or `stored`."""
    return "stored" if text == "stored" else int(text)


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


async def serve(
    options: argparse.Namespace,
    queues: list[str],
    processors: Processors,
    settings: Settings,
    limiter: RateLimit | None,
) -> int:
    """Run a worker for each queue in this process."""
    observer: Observer = NOBODY
    metrics: Metrics | None = None
    if options.metrics_port is not None:
        from prometheus_client import disable_created_metrics

        from streamq.metrics import Metrics

        disable_created_metrics()  # type: ignore[no-untyped-call] # they would double the series
        observer = metrics = Metrics()
    if options.tracing:
        from streamq.tracing import Tracing

        observer = together(observer, Tracing())
    workers = [
        Worker(q, processors, shards=options.shards, settings=settings, limiter=limiter, observer=observer)
        for q in queues
    ]
    serving = Serving(workers, Limits(options.max_jobs, options.max_memory), metrics)
    health: HealthServer | None = None
    exporter: Exporter | None = None
    if metrics is not None and not is_child():
        from prometheus_client import REGISTRY

        if options.export:
            from streamq.exporter import Exporter

            exporter = Exporter(queues, settings)
            REGISTRY.register(exporter)
        from streamq.worker.health import HealthServer

        health = HealthServer(
            options.metrics_host, options.metrics_port, REGISTRY,
            alive=serving.alive, ready=serving.ready, before_scrape=serving.read_gauges,
        )  # fmt: skip
    try:
        return await serving.run(health)
    finally:
        if exporter is not None:
            await asyncio.to_thread(exporter.close)


def run_processes(options: argparse.Namespace, argv: list[str]) -> int:
    """Run the command line in child processes, and watch over them."""
    if options.processes < 1:
        raise InvalidInput(f"--processes must be at least 1, not {options.processes}")
    if options.export and not options.queues:
        raise InvalidInput("--export with several processes needs --queues")
    folder = tempfile.TemporaryDirectory(prefix="streamq-metrics-") if options.metrics_port is not None else None
    env = {} if folder is None else {"PROMETHEUS_MULTIPROC_DIR": folder.name}
    processes = Processes(["-m", "streamq.worker", *argv], options.processes, env)
    if options.autoreload:
        try:
            from watchfiles import PythonFilter, watch
        except ImportError:
            raise InvalidInput('--autoreload needs watchfiles: pip install "streamq[reload]"') from None

        def restart_on_change() -> None:
            for changes in watch(".", watch_filter=PythonFilter(), raise_interrupt=False):
                log.info("%s changed: starting anew", ", ".join(sorted(path for _, path in changes)[:3]))
                processes.restart()

        threading.Thread(target=restart_on_change, name="streamq-autoreload", daemon=True).start()
    if folder is None:
        return processes.run()
    with folder:
        return run_with_metrics(processes, folder.name, options)


def run_with_metrics(processes: Processes, folder: str, options: argparse.Namespace) -> int:
    """Run child processes and serve their metrics, which they write into `folder`, as one."""
    from prometheus_client import CollectorRegistry, multiprocess

    from streamq.exporter import Exporter
    from streamq.worker.health import HealthServer

    registry, children = CollectorRegistry(), multiprocess.MultiProcessCollector(None, folder)  # type: ignore[no-untyped-call]
    registry.register(children)
    exporter = Exporter(queues_of(options.queues, Processors()), settings_of(options)) if options.export else None
    if exporter is not None:
        registry.register(exporter)
    processes.on_end = lambda pid: multiprocess.mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]
    health = HealthServer(
        options.metrics_host, options.metrics_port, registry,
        alive=processes.missing, ready=lambda: "stopping" if processes.stopping else unhealthy(children),
    )  # fmt: skip
    try:
        return processes.run()
    finally:
        health.close()
        if exporter is not None:
            exporter.close()


def unhealthy(children: Collector) -> str:
    """Say which queues' workers have not ticked within their lease, by the series that the children write."""
    values = {
        sample.labels["queue"]: sample.value
        for family in children.collect()
        for sample in family.samples
        if sample.name == "streamq_worker_healthy"
    }
    if not values:
        return "no worker has said anything yet"
    return ", ".join(
        f"a worker of queue {queue} has not ticked within its lease" for queue, ok in values.items() if not ok
    )


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run on uvloop where it is installed."""
    with contextlib.suppress(ImportError):
        import uvloop

        return uvloop.run(main)
    return asyncio.run(main)


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    options = parser().parse_args(argv)
    configure(options.log_level, options.log_format)
    try:
        if options.export and options.metrics_port is None:
            raise InvalidInput("--export needs --metrics-port")
        if options.tracing:
            import streamq.tracing  # noqa: F401 - says so, if it can't be had
        if (options.processes != 1 or options.autoreload) and not is_child():
            return run_processes(options, argv)
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
        return await serve(options, queues, processors, settings, limiter)

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

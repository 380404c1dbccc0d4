"""`streamq exporter`: serve the state of queues to Prometheus, until a signal."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from streamq.cli import arguments
from streamq.cli.processes import RUN

if TYPE_CHECKING:
    from streamq.cli.session import Session

PORT = 9465

EXAMPLES = f"""
  streamq exporter                              the queues of STREAMQ_QUEUES, or the bank's seven, at port {PORT}
  streamq exporter reports emails --port 9100 --host 0.0.0.0
"""


def add_parsers(commands: arguments.Commands) -> None:
    """Declare the command."""
    parser = commands.add(RUN, "exporter", serve, "serve the state of queues to Prometheus", examples=EXAMPLES)
    arguments.add_queues(parser)
    parser.add_argument("--port", type=int, default=PORT, metavar="PORT",
        help=f"serve /metrics, /livez and /readyz there (default: {PORT}; 0: any)")  # fmt: skip
    parser.add_argument("--host", default="127.0.0.1", metavar="HOST", help="(default: 127.0.0.1)")


def serve(session: Session) -> int:
    """Serve until SIGINT or SIGTERM."""
    from prometheus_client import REGISTRY

    from streamq.cli.session import default_queues
    from streamq.exporter import Exporter
    from streamq.worker.health import HealthServer

    options = session.options
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # before threads start, which inherit it
    exporter = Exporter(options.queues or default_queues(), session.settings)
    REGISTRY.register(exporter)
    try:
        server = HealthServer(options.host, options.port, REGISTRY, alive=exporter.alive, ready=exporter.ready)
        url = f"http://{options.host}:{server.port}"
        if session.out.json:
            session.out.record({"url": url})
        else:
            session.out.line(f"metrics and health at {url}")
        signal.sigwait(signals)
        server.close()
    finally:
        exporter.close()
    return 0

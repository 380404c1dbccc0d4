"""Answer a scraper and a supervisor: `/metrics`, `/livez` and `/readyz` on one port, from a thread of their own.

A thread, so that an event loop that stands still can be told: `/livez` then says 503. `/livez` never asks Redis; it
says whether the loops turn. `/readyz` says whether a tick of each worker succeeded within the last lease, and 503 while
the process stops.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from streamq.errors import InvalidInput

log = logging.getLogger("streamq.worker")

Check = Callable[[], str]
"""Returns what is wrong, "" if nothing is."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    timeout = 10  # seconds that a client may be silent

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("health: " + format, *args)


class HealthServer:
    """Serves until `close`. `before_scrape` sets what is read only when it is asked for.

    Raises:
        InvalidInput: The address can't be bound.
    """

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        *,
        alive: Check,
        ready: Check,
        before_scrape: Callable[[], None] = lambda: None,
    ) -> None:
        self._metrics = make_wsgi_app(registry)
        self._checks = {"/livez": alive, "/readyz": ready}
        self._before_scrape = before_scrape
        try:
            self._server = make_server(host, port, self._answer, server_class=_Server, handler_class=_Handler)
        except OSError as error:
            raise InvalidInput(f"the metrics port {host}:{port} can't be used: {error}") from None
        self.port = int(self._server.server_port)
        self._thread = threading.Thread(target=self._server.serve_forever, name="streamq-health", daemon=True)
        self._thread.start()
        log.info("metrics and health at http://%s:%d", host, self.port)

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "/")
        if path == "/metrics":
            self._before_scrape()
            return self._metrics(environ, start_response)  # type: ignore[no-any-return]
        if path in self._checks:
            wrong = self._checks[path]()
            status, text = ("503 Service Unavailable", wrong) if wrong else ("200 OK", "ok")
        else:
            status, text = "404 Not Found", "try /metrics, /livez or /readyz"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")])
        return [f"{text}\n".encode()]

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

"""A real Redis or Valkey server for people who have none running: it starts with its first user and ends with its last.

    async with embedded.server() as server:
        queue = Queue("reports", redis=server.url)

Where the environment names a server (`REDIS_URL`, `REDIS_HOST`) nothing is started and that address is used. Else all
processes of one user that name the same data folder share one server on a unix socket. It writes an append-only file,
so its jobs outlive it. `binary` finds a server program, `launcher` joins or starts the server, `supervisor` is the
process that owns it. Never a fake, never reachable from another machine; meant for one machine, not for production.
"""

from streamq.embedded.binary import ServerBinary, find_server
from streamq.embedded.launcher import (
    EmbeddedServer,
    default_data_dir,
    keep_running,
    server,
    start,
    start_own,
    stop_when_unused,
)

__all__ = [
    "EmbeddedServer",
    "ServerBinary",
    "default_data_dir",
    "find_server",
    "keep_running",
    "server",
    "start",
    "start_own",
    "stop_when_unused",
]

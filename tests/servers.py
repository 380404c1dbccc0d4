"""A real server that one test, or one pytest process, owns: to start, kill, freeze and start again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import redis

from streamq.embedded import ServerBinary, find_server
from streamq.embedded.supervisor import end_with_parent

READY_WITHIN = 20.0
LOOK_EVERY = 0.005


class RedisServer:
    """One server process in a folder of its own. Its data lives until `close`, whatever happens to the process.

    Args:
        port: A TCP port, 0 for a free one (kept over restarts), None for the unix socket alone.
        always: Write each command to disk before it is answered (`appendfsync always`).
        arguments: More of the server's own command-line options.
        environment: Variables for the process, beside those of this one.
        binary: The server's program; the one that `find_server` finds by default.

    The kernel ends the process with the thread that started it, so that a killed test run leaves nothing behind.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        always: bool = False,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        binary: ServerBinary | None = None,
    ) -> None:
        self.binary, self.version = binary or find_server()
        self.folder = Path(tempfile.mkdtemp(prefix="streamq-"))
        self.port = _free_port() if port == 0 else port
        self.socket = self.folder / "server.sock"
        self.unix_url = f"unix://{self.socket}"
        self.url = self.unix_url if self.port is None else f"redis://127.0.0.1:{self.port}/0"
        self._command = [
            *(str(self.binary), "--port", str(self.port or 0), "--bind", "127.0.0.1"),
            *("--unixsocket", str(self.socket), "--unixsocketperm", "600", "--dir", str(self.folder)),
            *("--appendonly", "yes", "--appendfsync", "always" if always else "everysec", "--save", ""),
            *("--maxmemory-policy", "noeviction", *arguments),
        ]
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The running process's id."""
        return self._running().pid

    def start(self) -> RedisServer:
        """Start the process and return when it answers PING, its data loaded."""
        if self._process is not None:
            raise RuntimeError("the server runs already")
        prepare = end_with_parent(os.getpid()) if sys.platform == "linux" else None
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, preexec_fn=prepare, env=self._environment
            )
        until = time.monotonic() + READY_WITHIN
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > until:
                self.kill()
                raise RuntimeError(f"the server did not start: {self.log()[-1000:]}")
            time.sleep(LOOK_EVERY)
        return self

    def kill(self) -> None:
        """End the process as a power cut would (SIGKILL), frozen or not."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the process in good order (SIGTERM)."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Stop the server in good order and start it again at the same address."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze the process (SIGSTOP): connections stay open and nothing answers. Returns when it is frozen."""
        process = self._running()
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def cont(self) -> None:
        """Let a frozen process go on (SIGCONT)."""
        self._running().send_signal(signal.SIGCONT)

    def call(self, *command: Any) -> Any:
        """Send one command over a connection of its own and return the answer as redis-py makes it."""
        with redis.Redis.from_url(self.unix_url, socket_timeout=READY_WITHIN) as client:
            return client.execute_command(*command)

    def answers(self) -> bool:
        """Say whether the server answers PING now, within a second."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(1.0)
                connection.connect(str(self.socket))
                connection.sendall(b"PING\r\n")
                return connection.recv(7) == b"+PONG\r\n"
        except OSError:
            return False

    def log(self) -> str:
        """Return what the server has logged."""
        return (self.folder / "server.log").read_text(errors="replace")

    def close(self) -> None:
        """Kill the process if it runs and remove its data."""
        self.kill()
        shutil.rmtree(self.folder)

    def __enter__(self) -> RedisServer:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the server does not run")
        return self._process

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(READY_WITHIN)
            self._process = None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

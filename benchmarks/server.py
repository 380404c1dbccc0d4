"""A server that one benchmark owns: in a temp folder, on a unix socket and a free loopback port, ended by its pid."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import redis

from streamq.embedded import find_server
from streamq.embedded.supervisor import end_with_parent

READY_WITHIN = 20.0


class Server:
    """One server process without persistence, unless `arguments` say otherwise. Use it as a context manager.

    Redis and redis-py are measured over the unix socket (`url`); `tcp_url` is for clients that know TCP only. The
    kernel ends the process with this one.
    """

    def __init__(self, binary: Path | None = None, *, arguments: Sequence[str] = ()) -> None:
        self.binary = find_server().path if binary is None else binary
        self.folder = Path(tempfile.mkdtemp(prefix="streamq-bench-"))
        self.port = _free_port()
        self.url = f"unix://{self.folder}/server.sock"
        self.tcp_url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [
            *(str(self.binary), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)),
            *("--unixsocket", f"{self.folder}/server.sock", "--unixsocketperm", "600"),
            *("--save", "", "--maxmemory-policy", "noeviction"),
            *(arguments or ("--appendonly", "no")),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self.client: redis.Redis = redis.Redis.from_url(self.url, protocol=2)
        """For looking at the server from outside; never part of a timing."""

    @property
    def version(self) -> str:
        """Name and version, as the program itself says."""
        said = subprocess.run([self.binary, "--version"], capture_output=True, text=True, check=True).stdout
        name = "valkey" if "alkey" in said else "redis"
        found = re.search(r"\bv=([\d.]+)", said)
        return f"{name} {found[1] if found else '?'}"

    def __enter__(self) -> Server:
        prepare = end_with_parent(os.getpid()) if sys.platform == "linux" else None
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, preexec_fn=prepare)
        until = time.monotonic() + READY_WITHIN
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError((self.folder / "server.log").read_text(errors="replace")[-1000:])
            time.sleep(0.01)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.client.close()
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(READY_WITHIN)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False

    def empty(self) -> None:
        """Remove all data, and wait until its memory is free; scripts stay loaded."""
        self.client.execute_command("FLUSHALL", "SYNC")  # type: ignore[no-untyped-call]

    def memory(self) -> int:
        """Bytes that the data takes, as the server counts them."""
        return int(self.client.info("memory")["used_memory"])

    def work(self) -> dict[str, float]:
        """CPU seconds, commands run (those inside scripts too) and commands received, since the server's start."""
        cpu, stats = self.client.info("cpu"), self.client.info("commandstats")
        received = self.client.info("stats")
        return {
            "cpu": float(cpu["used_cpu_user"] + cpu["used_cpu_sys"]),
            "commands": float(sum(entry["calls"] for entry in stats.values())),
            "received": float(received["total_reads_processed"]),
        }


def binaries() -> list[Path]:
    """Return every server program that is at hand: those on PATH and the packaged one."""
    from streamq.embedded import binary  # its private list is the one place that knows where to look

    return binary._candidates(os.environ)


def keys_left(client: Any) -> list[dict[str, Any]]:
    """Return each key that there is, with its type and its size in bytes."""
    return [
        {
            "key": key.decode(),
            "type": client.type(key).decode(),
            "bytes": client.memory_usage(key, samples=0),
            "ttl_s": client.ttl(key),
        }
        for key in sorted(client.scan_iter(count=1000))
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

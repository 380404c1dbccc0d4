"""The process that owns one embedded server. Run as a script by `launcher`, without site-packages: it lives long.

Its life: take `supervisor.lock` and `server.lock`, detach, start the server (again if it dies), and look twice a second
whether anybody still holds `users.lock`. When nobody does and no `stay` mark is there, stop the server and end. The
users lock is held meanwhile, so that a newcomer waits for the end and then starts afresh.

No server outlives it: on Linux the kernel tells the server (PR_SET_PDEATHSIG), elsewhere a watcher process does.
`server.lock` is inherited by the server, so it is free only when both are gone.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

LOOK_EVERY = 0.5
STOP_WITHIN = 10.0
QUICK_DEATHS = 5
PR_SET_PDEATHSIG = 1


def main(folder: str, socket: str, binary: str, watch: str) -> int:
    """Own the server of `folder` until nobody uses it. `watch`, "signal" or "poll", is how our own death ends it."""
    supervisor_lock = _hold(os.path.join(folder, "supervisor.lock"))
    server_lock = _hold(os.path.join(folder, "server.lock"))
    if os.fork():
        os._exit(0)  # the launcher waits for this one and needs no child to reap later; the locks live on
    os.setsid()
    os.umask(0o077)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the starter's mask would keep SIGTERM from the server
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    command = [
        *(binary, "--port", "0", "--unixsocket", socket, "--unixsocketperm", "600", "--dir", folder),
        *("--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--maxmemory-policy", "noeviction"),
        *("--daemonize", "no"),
    ]
    users = os.open(os.path.join(folder, "users.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if watch == "poll":
        _start_watcher(folder, held=(supervisor_lock, server_lock, users))
    server, started, deaths = None, 0.0, 0
    try:
        while True:
            if server is None or server.poll() is not None:
                deaths = deaths + 1 if time.monotonic() - started < LOOK_EVERY * 2 else 1
                if deaths > QUICK_DEATHS or (server is not None and server.returncode > 0):
                    return 1  # it keeps dying, or it refused to run: the log says why
                server, started = _spawn(command, server_lock, watch), time.monotonic()
                _write_state(folder, socket, binary, server.pid)
            time.sleep(LOOK_EVERY)
            if _nobody_left(users, os.path.join(folder, "stay")):
                return 0
    finally:
        os.close(supervisor_lock)  # first, so that nobody joins a server that is being stopped
        if server is not None:
            _stop(server)


def _hold(path: str) -> int:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return lock


def _nobody_left(users: int, stay: str) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    if os.path.exists(stay):
        fcntl.flock(users, fcntl.LOCK_UN)
        return False
    return True


def _spawn(command: list[str], server_lock: int, watch: str) -> subprocess.Popen[bytes]:
    prepare = end_with_parent(os.getpid()) if watch == "signal" else None
    return subprocess.Popen(command, pass_fds=[server_lock], preexec_fn=prepare)  # noqa: S603


def end_with_parent(parent: int) -> Callable[[], None]:
    """Return what a new process runs before its program so that it gets SIGTERM when our thread ends. Linux only."""
    prctl = ctypes.CDLL(None).prctl

    def ask_for_it() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask_for_it


def _start_watcher(folder: str, held: tuple[int, ...]) -> None:
    """Start a process that ends the server once the supervisor is gone."""
    parent = os.getpid()
    if os.fork():
        return
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for lock in held:
        os.close(lock)
    while os.getppid() == parent:
        time.sleep(LOOK_EVERY)
    try:
        _hold(os.path.join(folder, "server.lock"))
    except BlockingIOError:  # the server still has it, so the pid is the server's
        with open(os.path.join(folder, "state.json")) as state:
            os.kill(json.load(state)["server"], signal.SIGTERM)
    os._exit(0)


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(STOP_WITHIN)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _write_state(folder: str, socket: str, binary: str, server: int) -> None:
    path = os.path.join(folder, "state.json")
    with open(path + ".new", "w") as out:
        json.dump({"supervisor": os.getpid(), "server": server, "socket": socket, "binary": binary}, out)
    os.replace(path + ".new", path)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

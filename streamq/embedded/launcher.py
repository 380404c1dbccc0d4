"""Join the embedded server of a data folder, or start it.

A user is whoever holds a shared lock on `users.lock`; the kernel drops it when the process ends, however it ends. One
at a time (`start.lock`) they look whether a supervisor lives (`supervisor.lock`), and the first one starts it.
Locks are never inherited by programs that a user starts; a forked child counts as a user of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket as sockets
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from stat import S_ISDIR
from types import TracebackType
from typing import Any
from urllib.parse import quote

from streamq.embedded.binary import check, find_server
from streamq.errors import ServerNotFound
from streamq.settings import redis_url

if sys.platform != "win32":
    import fcntl

LONGEST_SOCKET_PATH = 103
START_WITHIN = 60.0
LEFTOVER_MAY_TAKE = 2.0
LOOK_EVERY = 0.01
LOG_LIMIT = 1_000_000
WATCH = "signal" if sys.platform == "linux" else "poll"


class EmbeddedServer:
    """A server that this process uses until `close`. `url` is what a `Queue` takes."""

    def __init__(self, url: str, folder: Path | None = None, users_lock: int | None = None) -> None:
        self.url, self.folder, self._users_lock = url, folder, users_lock

    @property
    def pid(self) -> int | None:
        """The server's process id; None if the environment named the server."""
        return None if self.folder is None else int(_state(self.folder)["server"])

    @property
    def supervisor_pid(self) -> int | None:
        """The id of the process that owns the server; None if the environment named the server."""
        return None if self.folder is None else int(_state(self.folder)["supervisor"])

    def close(self) -> None:
        """Stop using the server. It ends within a second of its last user, and keeps its jobs. Safe to call twice."""
        if self._users_lock is not None:
            os.close(self._users_lock)  # not LOCK_UN, which would also release the lock of a forked child
            self._users_lock = None

    def __enter__(self) -> EmbeddedServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def start(data_dir: Path | None = None, *, stay: bool = False) -> EmbeddedServer:
    """Use the server of `data_dir`, starting it if nobody has; return when it answers.

    Where `REDIS_URL` or `REDIS_HOST` is set, nothing is started and that server is used, unseen. The folder is made
    with mode 700, the socket with mode 600. With `stay` the server outlives its users (see `keep_running`).

    Raises:
        ServerNotFound: None is installed, none could be started, or the folder is not ours. No process is left.
    """
    if os.environ.get("REDIS_URL") or os.environ.get("REDIS_HOST"):
        return EmbeddedServer(redis_url(os.environ))
    return start_own(data_dir, stay=stay)


def start_own(data_dir: Path | None = None, *, stay: bool = False) -> EmbeddedServer:
    """Do as `start`, but never use the server that the environment names.

    Raises:
        ServerNotFound: As `start`.
    """
    if sys.platform == "win32":
        raise ServerNotFound("streamq starts a server on Linux and macOS only: set REDIS_URL to a server that runs")
    folder = _prepare(data_dir or default_data_dir())
    users = _open_lock(folder / "users.lock")
    try:
        with _starting(folder):
            _lock(users, fcntl.LOCK_SH, "the last server to end")
            if stay:
                keep_running(folder)
            launched = False
            while not _answers(folder):
                if launched:
                    raise ServerNotFound(f"the server did not start; {folder / 'server.log'} ends with: {_log(folder)}")
                if not stay:
                    stop_when_unused(folder)
                binary = _binary(folder)
                _launch(folder, binary)
                launched = True
            if launched:
                (folder / "binary").write_text(str(binary))
            return EmbeddedServer(_url(folder), folder, users)
    except BaseException:
        os.close(users)
        raise


@asynccontextmanager
async def server(data_dir: Path | None = None, *, stay: bool = False) -> AsyncIterator[EmbeddedServer]:
    """Use a server for as long as the block runs; otherwise as `start`."""
    starting = asyncio.ensure_future(asyncio.to_thread(start, data_dir, stay=stay))
    try:
        started = await asyncio.shield(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(lambda done: None if done.exception() else done.result().close())
        raise
    with started:
        yield started


def keep_running(data_dir: Path | None = None) -> None:
    """Have the server of `data_dir`, which runs, outlive its users until `stop_when_unused` or its own end."""
    (data_dir or default_data_dir()).joinpath("stay").touch(mode=0o600)


def stop_when_unused(data_dir: Path | None = None) -> None:
    """Let the server of `data_dir` end with its last user: within a second if there is none."""
    (data_dir or default_data_dir()).joinpath("stay").unlink(missing_ok=True)


def default_data_dir(env: Mapping[str, str] | None = None) -> Path:
    """Return `$XDG_DATA_HOME/streamq`, or `~/.local/share/streamq`."""
    env = os.environ if env is None else env
    home = env.get("XDG_DATA_HOME", "")
    # The standard says that a relative path is to be ignored.
    return (Path(home) if os.path.isabs(home) else Path.home() / ".local" / "share") / "streamq"


def _prepare(folder: Path) -> Path:
    folder = folder.absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = folder.stat()
        if about.st_uid != os.getuid():
            raise ServerNotFound(f"the data folder {folder} belongs to another user")
        if about.st_mode & 0o077:
            if not (folder / "users.lock").exists() and any(folder.iterdir()):
                raise ServerNotFound(f"the data folder {folder} is open to others and holds other files")
            folder.chmod(0o700)
    except OSError as error:
        raise ServerNotFound(f"the data folder {folder} can't be used: {error.strerror}") from None
    return folder


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _lock(lock: int, kind: int, what: str) -> None:
    until = time.monotonic() + START_WITHIN
    while True:
        try:
            return fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise ServerNotFound(f"waited {START_WITHIN:g} s for {what}") from None
            time.sleep(LOOK_EVERY)


@contextmanager
def _starting(folder: Path) -> Iterator[None]:
    lock = _open_lock(folder / "start.lock")
    try:
        _lock(lock, fcntl.LOCK_EX, "another process that is starting the server")
        yield
    finally:
        os.close(lock)


def _held(path: Path) -> bool:
    lock = _open_lock(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _answers(folder: Path) -> bool:
    """Wait for the answer of the server that a supervisor owns; False if there is no supervisor (any more)."""
    until = time.monotonic() + START_WITHIN
    while _held(folder / "supervisor.lock"):
        try:
            # The supervisor is asked for once more after the answer: a server that has lost it is about to end.
            if _ask(folder, b"PING").startswith(b"+PONG") and _held(folder / "supervisor.lock"):
                return True
        except (OSError, ValueError, KeyError):
            pass  # no socket yet, or its state not written yet
        if time.monotonic() > until:
            raise ServerNotFound(f"the server does not answer after {START_WITHIN:g} s: {_log(folder)}")
        time.sleep(LOOK_EVERY)
    return False


def _ask(folder: Path, command: bytes) -> bytes:
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as connection:
        connection.settimeout(1.0)
        connection.connect(_state(folder)["socket"])
        connection.sendall(command + b"\r\n")
        return connection.recv(100)


def _launch(folder: Path, binary: Path) -> None:
    _end_leftover(folder)
    log = folder / "server.log"
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        log.unlink()
    (folder / "state.json").unlink(missing_ok=True)
    supervisor = Path(__file__).with_name("supervisor.py")
    with log.open("ab") as out:
        os.fchmod(out.fileno(), 0o600)
        subprocess.run(  # noqa: S603
            [sys.executable, "-I", "-S", supervisor, folder, _socket_path(folder), binary, WATCH],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd="/",
            check=False,  # if it failed, nobody holds the supervisor's lock, and the log says why
        )


def _end_leftover(folder: Path) -> None:
    """Wait for a server that has lost its supervisor; ask it to end if it doesn't."""
    since = time.monotonic()
    asked = False
    while _held(folder / "server.lock"):
        waited = time.monotonic() - since
        if waited > LEFTOVER_MAY_TAKE and not asked:
            asked = True
            with suppress(OSError, ValueError, KeyError):
                _ask(folder, b"SHUTDOWN")
        if waited > START_WITHIN:
            raise ServerNotFound(f"a server without a supervisor still uses {folder}: end it")
        time.sleep(LOOK_EVERY)


def _binary(folder: Path) -> Path:
    """Return the program that wrote the folder last, or else the first found: an older one can't read the data."""
    last = folder / "binary"
    if not os.environ.get("STREAMQ_SERVER_BIN") and last.exists():
        with suppress(ServerNotFound):
            return check(Path(last.read_text())).path
    return find_server().path


def _socket_path(folder: Path) -> str:
    """Return a path short enough for a socket's address: in the folder, or in a private one under /tmp."""
    socket = str(folder / "streamq.sock")
    if len(os.fsencode(socket)) <= LONGEST_SOCKET_PATH:
        return socket
    private = Path("/tmp") / f"streamq-{os.getuid()}"  # noqa: S108
    private.mkdir(mode=0o700, exist_ok=True)
    about = private.lstat()
    if not S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o077:
        raise ServerNotFound(f"{private} must be a folder that only its owner can open: remove it")
    return str(private / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}.sock")


def _url(folder: Path) -> str:
    return "unix://" + quote(_state(folder)["socket"])


def _state(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((folder / "state.json").read_text())
    return state


def _log(folder: Path) -> str:
    lines = (folder / "server.log").read_text(errors="replace").splitlines()
    return " | ".join(lines[-5:])

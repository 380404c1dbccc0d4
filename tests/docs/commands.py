"""What stands for a command of a page's shell blocks: run it, start it and leave it running, or look at its arguments.

Shell blocks run in a real shell whose PATH begins with links to this file. `streamq` and `python` are run; those that
serve until a signal are left running until the page ends (`run_page` ends them). What would change the machine, or
needs what is not here, is only looked at: that the extra, the target, the file or the option exists.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import tomllib
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "STREAMQ_DOCS_FOLDER"
"""Names the folder for what commands leave for `run_page`."""
SERVER = "STREAMQ_DOCS_SERVER"
"""Keeps the address of the test's server."""
PATIENCE = 60.0
ENDLESS = {"top", "events"}
"""Commands of `streamq` that look on until Ctrl-C, unless an option ends them."""
ENDS = {"--once", "--count", "--json", "--help"}


class Wrong(Exception):
    """A command that could not do what the page says."""


def note(what: str) -> None:
    """Tell the page's reader of the test what was not run."""
    with (Path(os.environ[FOLDER]) / "looked-at").open("a") as file:
        file.write(what + "\n")


# Commands that are only looked at -------------------------------------------------------------------------------------


def look_at(name: str, arguments: list[str]) -> None:
    """Check the arguments of a command that a test can't run."""
    note(shlex.join([name, *arguments]))
    if name.startswith("pip"):
        _look_at_pip(arguments)
    elif name == "make":
        targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        unknown = {word for word in arguments if "=" not in word} - targets
        if unknown:
            raise Wrong(f"the Makefile has no {', '.join(unknown)}")
    elif name in ("install", "docker", "docker-compose", "kubectl", "systemctl", "promtool"):
        _look_at_files(arguments)
    elif name == "redis-server":
        _look_at_options(arguments)


def _look_at_pip(arguments: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for word in arguments[1:]:
        named = re.match(r"(?:streamq|\.)(?:\[([\w,]+)\])", word)
        unknown = set(named[1].split(",")) - set(project["project"]["optional-dependencies"]) if named else set()
        if unknown:
            raise Wrong(f"streamq has no extra {', '.join(unknown)}")


def _look_at_files(arguments: list[str]) -> None:
    for word in arguments:
        if "/" in word and word.startswith("deploy") and not (ROOT / word).exists():
            raise Wrong(f"{word} does not exist")


def _look_at_options(arguments: list[str]) -> None:
    """Let a server of our own read the options, at no port and in the page's folder."""
    kept = " ".join(arguments)
    kept = re.sub(r"--port \d+", "", kept)
    here = os.environ[FOLDER]
    server = subprocess.Popen(
        ["/usr/bin/env", "redis-server", *shlex.split(kept), "--port", "0", "--unixsocket", f"{here}/looked.sock"],
        cwd=here, stdout=subprocess.PIPE, text=True, env={**os.environ, "PATH": os.environ["STREAMQ_DOCS_PATH"]},
    )  # fmt: skip
    assert server.stdout is not None
    with server.stdout:
        for line in server.stdout:
            if "FATAL" in line or "Error" in line:
                raise Wrong(line)
            if "ready to accept" in line.lower():
                server.terminate()
    server.wait(PATIENCE)


# Commands that run ----------------------------------------------------------------------------------------------------


def run(arguments: list[str]) -> int:
    """Run Python with these arguments: until it ends, or until it serves."""
    if arguments[:1] == ["-m"] and len(arguments) > 1:
        module, rest = arguments[1], arguments[2:]
        if module == "streamq" and rest:
            return streamq(rest)
        if module == "streamq.worker":
            return streamq(["worker", *rest])
        if module == "streamq.embedded":
            return streamq(["server", *rest])
        if module == "streamq.demo":
            return streamq(["demo", *rest])
        if module in ("venv", "pip") or module.startswith("benchmarks"):
            if module.startswith("benchmarks") and not (ROOT / (module.replace(".", "/") + ".py")).exists():
                raise Wrong(f"there is no {module}")
            look_at(module, rest)
            return 0
    return subprocess.run([sys.executable, *arguments], check=False).returncode


def streamq(arguments: list[str]) -> int:
    """Run a command of streamq."""
    command, rest = arguments[0], arguments[1:]
    if "--help" in rest or "-h" in rest:
        return _whole(arguments)
    if command == "demo":
        from streamq.demo.__main__ import main

        note(shlex.join(["streamq", *arguments]))
        try:
            return main([*rest, "--help"])
        except SystemExit as end:
            return int(end.code or 0)
    if command == "worker":
        return _serve([*arguments, *(["--metrics-port", "0"] if "--metrics-port" in rest else [])], "notify")
    if command == "exporter" or (command == "dashboard" and "--hash-password" not in rest):
        return _serve([*arguments, "--port", "0"], "line")
    if command == "server":
        return _server(arguments)
    if (command in ENDLESS or "--follow" in rest) and not ENDS & set(rest):
        check(arguments)
        note(shlex.join(["streamq", *arguments]))
        return 0
    return _whole(arguments)


def _server(arguments: list[str]) -> int:
    """Name the server that the test has started; it stays anyway."""
    if not {"--stay", "--stop"} & set(arguments):
        return _serve(arguments, "line")
    check(arguments)
    note(shlex.join(["streamq", *arguments]))
    if "--stay" in arguments:
        print(os.environ["REDIS_URL"])
    return 0


def check(arguments: list[str]) -> None:
    """Parse a command line of streamq.

    Raises:
        Wrong: It is none.
    """
    if arguments[:1] == ["worker"]:
        from streamq.worker.__main__ import parser

        known = parser()
        rest = arguments[1:]
    else:
        from streamq.cli.command import build

        known, rest = build(), arguments
    try:
        known.parse_args(rest)
    except SystemExit as end:
        if end.code:
            raise Wrong(f"streamq does not take: {shlex.join(arguments)}") from None


def _whole(arguments: list[str]) -> int:
    return subprocess.run([sys.executable, "-m", "streamq", *arguments], check=False).returncode


def _serve(arguments: list[str], sign: str) -> int:
    """Start a command, wait until it serves, and leave it running."""
    check(arguments)
    folder = Path(os.environ[FOLDER])
    number = len(list(folder.glob("*.pid")))
    log = folder / f"{number}.log"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as heard, log.open("wb") as output:
        heard.bind(str(folder / f"{number}.notify"))
        heard.settimeout(0.1)
        env = {**os.environ, "NOTIFY_SOCKET": str(folder / f"{number}.notify"), "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            [sys.executable, "-m", "streamq", *arguments],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, start_new_session=True,
        )  # fmt: skip
        (folder / f"{number}.pid").write_text(str(process.pid))
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and process.poll() is None:
            if _is_up(heard, log, sign):
                sys.stdout.write(log.read_text() if sign == "line" else "")
                return 0
    process.poll() is None and process.send_signal(signal.SIGKILL)
    raise Wrong(f"streamq {shlex.join(arguments)} did not start: {log.read_text()[-2000:]}")


def _is_up(heard: socket.socket, log: Path, sign: str) -> bool:
    if sign == "line" and log.read_text():
        return True
    try:
        return b"READY=1" in heard.recv(1024)
    except TimeoutError:
        return False


def main() -> int:
    """Do what the name says that this was called by."""
    name, arguments = Path(sys.argv[0]).name, sys.argv[1:]
    if "//localhost:6379" in os.environ.get("REDIS_URL", ""):  # what pages say for the reader's server
        os.environ["REDIS_URL"] = os.environ[SERVER]
    try:
        if name in ("python", "python3"):
            return run(arguments)
        if name == "streamq":
            return streamq(arguments)
        look_at(name, arguments)
    except Wrong as error:
        print(error, file=sys.stderr)
        return 1
    return 0

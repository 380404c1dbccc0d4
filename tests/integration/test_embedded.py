"""The embedded server's life, on real processes that come, share it, and are killed."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis

from streamq import embedded
from streamq.embedded import launcher
from streamq.errors import ServerNotFound

WITHIN = 20.0

USER = """
import json, subprocess, sys
from pathlib import Path
from streamq import embedded
sys.stdin.readline()
server = embedded.start(Path(sys.argv[1]))
child = subprocess.Popen(["sleep", "60"]).pid if "child" in sys.argv else None
print(json.dumps([server.url, server.pid, server.supervisor_pid, child]), flush=True)
sys.stdin.readline()
"""


class User:
    """A process that uses the server of a folder from `go` until `leave` or `kill`."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        command = [sys.executable, "-c", USER, str(folder), *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def started(self) -> User:
        assert self.process.stdout is not None
        self.url, self.server, self.supervisor, self.child = json.loads(self.process.stdout.readline())
        return self

    def leave(self) -> None:
        self.process.communicate("\n", timeout=WITHIN)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=WITHIN)


@pytest.fixture(autouse=True)
def found_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REDIS_URL", "REDIS_HOST", "STREAMQ_SERVER_BIN"):
        monkeypatch.delenv(name, raising=False)
    try:
        embedded.find_server()
    except ServerNotFound as error:
        pytest.skip(str(error))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "data"
    yield folder
    embedded.stop_when_unused(folder)
    state = json.loads((folder / "state.json").read_text()) if (folder / "state.json").exists() else {}
    for pid in (state.get("server"), state.get("supervisor")):
        assert pid is None or ended(pid), "the test left a process"


@pytest.fixture
def user(folder: Path) -> Iterator[Callable[..., User]]:
    users = []

    def come(*arguments: str) -> User:
        users.append(User(folder, *arguments))
        users[-1].go()
        return users[-1].started()

    yield come
    for each in users:
        each.kill()


def ended(pid: int, within: float = WITHIN) -> bool:
    """Wait for a process to end that may be nobody's child, and so may stay a zombie for a while."""
    if sys.platform == "linux":
        try:
            end = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        try:
            return bool(select.select([end], [], [], within)[0])
        finally:
            os.close(end)
    return not psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], within)[1]


def runs(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def ask(url: str, *command: str) -> object:
    with redis.Redis.from_url(url, socket_timeout=WITHIN) as client:
        return client.execute_command(*command)


def test_three_processes_that_race_to_start_it_share_one_server(folder: Path) -> None:
    users = [User(folder) for _ in range(3)]
    for each in users:
        each.go()
    for each in users:
        each.started()
    assert len({(each.url, each.server, each.supervisor) for each in users}) == 1
    assert ask(users[0].url, "PING")
    for each in users:
        each.leave()
    assert ended(users[0].server)
    assert ended(users[0].supervisor)


def test_it_outlives_the_kill_of_the_process_that_started_it_and_ends_with_its_last_user(
    user: Callable[..., User],
) -> None:
    starter, other = user(), user()
    starter.kill()
    last = user()
    assert last.server == other.server
    other.leave()
    assert ask(last.url, "PING")
    last.leave()
    assert ended(last.server)
    assert ended(last.supervisor)


def test_the_kill_of_its_only_user_ends_it(user: Callable[..., User]) -> None:
    only = user()
    only.kill()
    assert ended(only.server)
    assert ended(only.supervisor)


def test_a_program_that_a_user_started_is_no_user(user: Callable[..., User]) -> None:
    only = user("child")
    only.process.kill()
    assert ended(only.server)
    assert runs(only.child)
    os.kill(only.child, signal.SIGKILL)


@pytest.mark.parametrize("watch", ["signal", "poll"])
def test_the_kill_of_its_supervisor_ends_it_and_the_next_start_finds_the_data(
    folder: Path, monkeypatch: pytest.MonkeyPatch, watch: str
) -> None:
    if watch == "signal" and sys.platform != "linux":
        pytest.skip("only Linux signals a parent's death")
    monkeypatch.setattr(launcher, "WATCH", watch)
    with embedded.start(folder) as first:
        ask(first.url, "SET", "kept", "yes")
        server, supervisor = first.pid, first.supervisor_pid
        os.kill(supervisor, signal.SIGKILL)
        assert ended(supervisor)
        with embedded.start(folder) as second:
            assert second.url == first.url
            assert second.pid != server
            assert ended(server)
            assert ask(first.url, "GET", "kept") == b"yes"


def test_a_server_that_is_killed_comes_back_at_the_same_address_with_its_data(user: Callable[..., User]) -> None:
    only = user()
    ask(only.url, "CONFIG", "SET", "appendfsync", "always")
    ask(only.url, "SET", "kept", "yes")
    os.kill(only.server, signal.SIGKILL)
    assert ended(only.server)
    retry = redis.retry.Retry(redis.backoff.ConstantBackoff(0.02), int(WITHIN / 0.02))
    with redis.Redis.from_url(only.url, retry=retry) as client:
        assert client.get("kept") == b"yes"


def test_a_kill_in_the_middle_of_the_start_leaves_nothing_in_the_way(folder: Path) -> None:
    starter = User(folder)
    starter.go()
    until = time.monotonic() + WITHIN
    while not (folder / "supervisor.lock").exists():
        assert time.monotonic() < until
    starter.kill()
    with embedded.start(folder) as server:
        assert ask(server.url, "PING")


def test_its_jobs_are_kept_from_one_life_to_the_next(folder: Path) -> None:
    with embedded.start(folder) as first:
        pid = first.pid
        ask(first.url, "SET", "kept", "yes")
    assert ended(pid)
    with embedded.start(folder) as second:
        assert second.pid != pid
        assert ask(second.url, "GET", "kept") == b"yes"


def test_told_to_stay_it_outlives_its_users_until_it_is_let_go(folder: Path, user: Callable[..., User]) -> None:
    with embedded.start(folder, stay=True) as server:
        pid, supervisor = server.pid, server.supervisor_pid
    assert not ended(supervisor, within=1.6)  # it looks for users twice a second
    assert user().server == pid
    embedded.stop_when_unused(folder)
    assert runs(pid)


def test_only_its_owner_can_reach_it_and_it_writes_to_disk(folder: Path) -> None:
    with embedded.start(folder) as server:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "streamq.sock").stat().st_mode) == 0o600
        assert server.url == f"unix://{folder}/streamq.sock"
        with redis.Redis.from_url(server.url, decode_responses=True) as client:
            for name, value in {
                "appendonly": "yes",
                "appendfsync": "everysec",
                "maxmemory-policy": "noeviction",
                "port": "0",
                "save": "",
            }.items():
                assert client.config_get(name) == {name: value}


@pytest.mark.parametrize(
    ("name", "value", "url"),
    [("REDIS_URL", "redis://elsewhere:1/2", "redis://elsewhere:1/2"), ("REDIS_HOST", "there", "redis://there:6379/0")],
)
def test_a_server_that_the_environment_names_is_used_and_none_started(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, url: str
) -> None:
    monkeypatch.setenv(name, value)
    with embedded.start(folder) as server:
        assert (server.url, server.pid, server.supervisor_pid) == (url, None, None)
    assert not folder.exists()


def test_a_folder_whose_path_is_too_long_for_a_socket_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 80) / "with space"
    with embedded.start(deep) as first, embedded.start(deep) as second:
        pid = first.pid
        assert first.url == second.url
        assert first.url.startswith(f"unix:///tmp/streamq-{os.getuid()}/")
        assert ask(first.url, "PING")
    assert ended(pid)


def test_a_folder_that_holds_other_files_is_left_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ServerNotFound, match="holds other files"):
        embedded.start(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["thesis.txt"]
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_server_that_refuses_to_run_is_told_with_its_last_words(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    broken.write_text('#!/bin/sh\n[ "$1" = --version ] && echo v=7.2.0 || { echo the disk is on fire; exit 1; }\n')
    broken.chmod(0o755)
    monkeypatch.setenv("STREAMQ_SERVER_BIN", str(broken))
    with pytest.raises(ServerNotFound, match=r"did not start; .*server\.log ends with: .*the disk is on fire"):
        embedded.start(folder)


def test_the_program_that_wrote_the_data_goes_on_serving_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    mine.write_text(f'#!/bin/sh\nexec {embedded.find_server().path} "$@"\n')
    mine.chmod(0o755)
    monkeypatch.setenv("STREAMQ_SERVER_BIN", str(mine))
    with embedded.start(folder) as first:
        pid = first.pid
    assert ended(pid)
    monkeypatch.delenv("STREAMQ_SERVER_BIN")
    with embedded.start(folder):
        assert json.loads((folder / "state.json").read_text())["binary"] == str(mine)


async def test_the_asynchronous_form_holds_it_for_the_block(folder: Path) -> None:
    async with embedded.server(folder) as server:
        pid = server.pid
        assert ask(server.url, "PING")
    assert await asyncio.to_thread(ended, pid)


async def test_a_start_that_is_cancelled_holds_nothing(folder: Path) -> None:
    async def hold() -> None:
        async with embedded.server(folder):
            await asyncio.Event().wait()

    holding = asyncio.create_task(hold())
    await asyncio.sleep(0)  # one turn of the loop: the start is under way in its thread
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding
    server = await asyncio.to_thread(embedded.start, folder)
    pid = server.pid
    server.close()
    assert await asyncio.to_thread(ended, pid)


def test_in_the_foreground_it_prints_its_address_and_ends_on_sigterm(folder: Path) -> None:
    command = [sys.executable, "-m", "streamq.embedded", "--data-dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as foreground:
        assert foreground.stdout is not None
        url = foreground.stdout.readline().strip()
        assert ask(url, "PING")
        foreground.terminate()
        assert foreground.wait(WITHIN) == 0

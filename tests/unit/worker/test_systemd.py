"""What systemd hears, on a real datagram socket as it makes one."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamq.worker.systemd import notify, watchdog_seconds


@pytest.fixture(params=["a file", pytest.param("an abstract name", marks=pytest.mark.skipif(
    not os.path.exists("/proc/self"), reason="abstract sockets are Linux's own"))])  # fmt: skip
def systemd(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    address = str(tmp_path / "notify") if request.param == "a file" else f"@streamq-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        receiver.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        yield receiver


def test_systemd_hears_each_state_as_one_datagram(systemd: socket.socket) -> None:
    assert notify("READY=1\nSTATUS=running")
    assert notify("WATCHDOG=1")
    assert systemd.recv(1024) == b"READY=1\nSTATUS=running"
    assert systemd.recv(1024) == b"WATCHDOG=1"


def test_nothing_is_sent_where_systemd_did_not_start_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")


def test_a_systemd_that_has_gone_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert not notify("READY=1")


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [
        ("30000000", None, 15.0),
        ("30000000", "own", 15.0),
        ("30000000", "1", None),
        ("", None, None),
        ("soon", None, None),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_it_asks_if_it_means_this_process(
    monkeypatch: pytest.MonkeyPatch, usec: str, pid: str | None, seconds: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    if pid is None:
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
    else:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "own" else pid)
    assert watchdog_seconds() == seconds

"""`streamq dashboard` as users start it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from streamq.dashboard.passwords import password_fits

PATIENCE = 30.0


def command(url: str, *arguments: str, **env: str) -> tuple[list[str], dict[str, Any]]:
    plain = {k: v for k, v in os.environ.items() if not k.startswith("STREAMQ_")}
    return [sys.executable, "-m", "streamq", "dashboard", *arguments], {
        "env": {**plain, "REDIS_URL": url, **env}, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
    }  # fmt: skip


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_is_serves_and_ends_in_good_order_with_a_page_being_watched(
    redis_url: str, stop: signal.Signals
) -> None:
    arguments, options = command(redis_url, "q", "--port", "0", "--json")
    with subprocess.Popen(arguments, **options) as process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            watching = urllib.request.Request(url, headers={"accept": "text/event-stream"})  # noqa: S310
            with urllib.request.urlopen(watching, timeout=PATIENCE) as stream:  # noqa: S310
                assert stream.readline() == b"event: live\n"
                process.send_signal(stop)
                _, said = process.communicate(timeout=PATIENCE)
            assert (process.returncode, "Traceback" in said, "ERROR" in said) == (0, False, False), said
        finally:
            process.kill()


@pytest.mark.parametrize(("arguments", "says"), [
    (("--host", "0.0.0.0"), "say who may come in"),  # noqa: S104
    (("--users", "nowhere"), "No such file"),
    (("--cert", "only.pem"), "both or neither"),
    (("--hash-password", "ann:boss"), "the roles are"),
])  # fmt: skip
def test_what_would_be_unsafe_or_makes_no_sense_is_refused(arguments: tuple[str, ...], says: str) -> None:
    line, options = command("redis://127.0.0.1:1", *arguments)
    done = subprocess.run(line, timeout=PATIENCE, input="", **options)
    assert done.returncode == 2
    assert says in done.stderr


def test_a_line_for_the_file_of_users_can_be_made_and_read(redis_url: str, tmp_path: Path) -> None:
    line, options = command(redis_url, "--hash-password", "ann:operator")
    done = subprocess.run(line, timeout=PATIENCE, input="correct horse\n", **options)
    name, role, kept = done.stdout.strip().split(":")
    assert (name, role) == ("ann", "operator")
    assert password_fits("correct horse", kept)
    assert not password_fits("correct horsf", kept)
    users = tmp_path / "users"
    users.write_text(done.stdout + "vera:viewer:plain\n")
    line, options = command(redis_url, "--users", str(users))
    done = subprocess.run(line, timeout=PATIENCE, input="", **options)
    assert done.returncode == 2
    assert "line 2" in done.stderr
    assert "plain" not in done.stderr

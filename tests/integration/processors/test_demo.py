from __future__ import annotations

import os
import re
import subprocess
import sys

import openpyxl
import pytest

from streamq.embedded import find_server
from streamq.errors import ServerNotFound


@pytest.fixture(autouse=True)
def _server_program():
    try:
        find_server()
    except ServerNotFound as error:
        pytest.skip(str(error))


def demo(folder, **env):
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("REDIS_", "STREAMQ_", "JOB_", "QUEUE_"))
    }
    command = [sys.executable, "-m", "streamq.demo", "--folder", str(folder)]
    return subprocess.run(command, env=clean | env, capture_output=True, text=True, timeout=110, check=False)


def test_the_demo_runs_twice_in_a_row_and_leaves_files_that_can_be_opened(tmp_path):
    for _ in range(2):
        done = demo(tmp_path / "demo")
        assert (done.returncode, done.stderr) == (0, "")
        out = re.sub(r"\s+", " ", done.stdout)
        assert "bank: 1,000 members, 2,000 accounts, 50,000 transactions" in out
        assert "│ 10,012 │ 10,000 │ 0 │ 12 │" in out
        assert "row 835: name is missing" in out
        assert "payment INV-1 went through at attempt 3" in out
        assert "payment INV-2 is dead: ConnectionError: the gateway refused connection 3" in out
        assert "the books balance: 50,000 transactions, 100,000 postings, sum 0.00" in out
        assert "│ demo-imports │ 0 │ 0 │ 0 │ 1 │ 0 │ 1 │" in out
        assert "│ demo-payments │ 0 │ 0 │ 0 │ 1 │ 1 │ 2 │" in out
        files = re.findall(r"^  (/.*?)  \(", done.stdout, re.MULTILINE)
        assert sorted(os.path.splitext(file)[1] for file in files) == [".csv", ".csv", ".csv", ".pdf", ".xlsx", ".xlsx"]
        assert all(os.path.getsize(file) > 0 for file in files)
        balances = next(file for file in files if "member-balances" in file and file.endswith("xlsx"))
        assert openpyxl.load_workbook(balances).active.max_row == 1 + 1_000 + 1


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("chapter one")
    done = demo(tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"streamq.demo: {tmp_path} holds other files; name an empty folder with --folder\n"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ({"REDIS_URL": "redis://127.0.0.1:1"}, "127.0.0.1:1"),
        ({"STREAMQ_LEASE": "soon"}, "STREAMQ_LEASE='soon' in the environment"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path, env, sentence):
    done = demo(tmp_path / "demo", **env)
    assert done.returncode == 1
    assert done.stderr.startswith("streamq.demo: ")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1

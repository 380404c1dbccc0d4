"""`python -m streamq.demo`, short, as a process; and that its reconciliation finds what was planted."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import msgspec
import openpyxl
import pytest

from streamq.demo.folder import DemoFolder
from streamq.demo.reconcile import reconcile
from streamq.embedded import find_server
from streamq.errors import ServerNotFound

pytestmark = pytest.mark.timeout(400)

CHECKS = (
    "the books balance",
    "each row of both files came in once",
    "interest once per account and day",
    "standing orders once per due date",
    "each e-mail sent once",
    "the second ledger is the same",
    "each file is whole",
    "the export holds each line",
    "every job ended once",
)


def demo(folder, *options, **env):
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("REDIS_", "STREAMQ_", "JOB_", "QUEUE_"))
    }
    command = [sys.executable, "-m", "streamq.demo", "--folder", str(folder), *options]
    return subprocess.run(command, env=clean | env, capture_output=True, text=True, timeout=190, check=False)


@pytest.fixture(scope="module")
def _server_program():
    try:
        find_server()
    except ServerNotFound as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def night(tmp_path_factory, _server_program):
    """A night that ran twice in one folder: what the second run printed, and the folder."""
    folder = tmp_path_factory.mktemp("night") / "demo"
    first = demo(folder, "--short")
    assert (first.returncode, first.stderr) == (0, "")
    second = demo(folder, "--short")
    assert (second.returncode, second.stderr) == (0, "")
    return second.stdout, folder


@pytest.fixture
def copy(night, tmp_path):
    """The night's folder, to tamper with."""
    target = tmp_path / "copy"
    shutil.copytree(night[1], target, ignore=shutil.ignore_patterns("server"))
    return target


def test_a_night_with_a_killed_worker_reconciles(night):
    out = re.sub(r" +", " ", night[0])
    assert "bank: 1,000 members, 2,000 accounts, 50,000 transactions" in out
    assert re.search(r"kill -9 \d+: one of the two workers is dead, in the middle of .*import-transactions", out)
    assert re.search(r"the other worker took the jobs of process \d+ over \d+\.\d s after its death", out)
    assert re.search(r"the import of card payments went on behind row \d[\d,]+ of 6,000", out)
    assert "│ 1,012 │ 1,000 │ 0 │ 12 │" in out
    assert "row 85: name is missing" in out
    assert "payment INV-1 went through at attempt 3" in out
    assert "payment INV-2 is dead: ConnectionError: the gateway refused connection 3" in out
    for check in CHECKS:
        assert f"✓ {check} " in out
    assert "✗" not in out
    assert "2,000 accounts x 3 days" in out
    assert "41 e-mails to 41 recipients" in out
    assert "55 accepted: 54 completed, 1 failed" in out


def test_the_files_of_the_night_can_be_opened(night):
    files = re.findall(r"^  (/.*?)  \(", night[0], re.MULTILINE)
    kinds = [".csv", ".csv", ".csv", ".csv", ".pdf", ".xlsx", ".xlsx"]
    assert sorted(os.path.splitext(file)[1] for file in files) == kinds
    balances = next(file for file in files if "member-balances" in file and file.endswith("xlsx"))
    assert openpyxl.load_workbook(balances).active.max_row == 1 + 1_000 + 1


def test_a_night_can_be_reconciled_again(night):
    done = demo(night[1], "--reconcile")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("✓") == len(CHECKS)


def sql(statement):
    def plant(folder: Path):
        with sqlite3.connect(folder / "ledger.db") as db:
            assert db.execute(statement).rowcount > 0
        db.close()

    return plant


def lose_an_email(folder: Path):
    next(iter((folder / "mailbox").glob("*.eml"))).unlink()


def send_an_email_again(folder: Path):
    mail = next(iter((folder / "mailbox").glob("*.eml")))
    (folder / "mailbox" / "again.eml").write_bytes(mail.read_bytes().replace(b"Message-ID: <", b"Message-ID: <again"))


def cut_a_file_short(folder: Path):
    report = next(iter((folder / "files").glob("reports/*.pdf")))
    report.write_bytes(report.read_bytes()[:-100])


def drop_a_line_of_the_export(folder: Path):
    export = next(iter((folder / "files").glob("exports/*.csv")))
    export.write_bytes(b"".join(export.read_bytes().splitlines(keepends=True)[:-1]))


def end_a_job_twice(folder: Path):
    facts = msgspec.json.decode((folder / "night.json").read_bytes())
    facts["jobs"][0]["endings"].append("failed")
    (folder / "night.json").write_bytes(msgspec.json.encode(facts))


def forget_a_job(folder: Path):
    facts = msgspec.json.decode((folder / "night.json").read_bytes())
    facts["jobs"][0]["endings"].clear()
    (folder / "night.json").write_bytes(msgspec.json.encode(facts))


BOOKED_AGAIN = """
INSERT INTO transactions SELECT 'again', kind, booked_on, currency, description, job_id, created_at FROM transactions
WHERE id = (SELECT min(id) FROM transactions WHERE kind = 'recurring')
"""


@pytest.mark.parametrize(
    ("plant", "check", "sentence"),
    [
        (sql("DELETE FROM postings WHERE transaction_id = 'P-0000007' AND line = 1"), 0, "P-0000007 is wrong"),
        (sql("DELETE FROM members WHERE id = 'N-000007'"), 1, "found were 999 members"),
        (sql("DELETE FROM interest_postings WHERE account_id = 'A-000007'"), 2, "A-000007 of 2025-01-01"),
        (sql("UPDATE interest_postings SET amount = amount + 1 WHERE account_id = 'A-000007'"), 2, "booked were"),
        (sql(BOOKED_AGAIN), 3, "transactions are booked"),
        (sql("DELETE FROM recurring_instances"), 3, "0 are recorded"),
        (lose_an_email, 4, "40 lie in the mailbox"),
        (send_an_email_again, 4, "has more than one e-mail"),
        (sql("UPDATE transactions SET description = 'changed' WHERE id = 'P-0000007'"), 5, "its transactions differ"),
        (cut_a_file_short, 6, "is not what its job wrote"),
        (drop_a_line_of_the_export, 7, "lines and sums to"),
        (end_a_job_twice, 8, "['completed', 'failed']"),
        (forget_a_job, 8, "ended as nothing"),
    ],
)  # fmt: skip
async def test_a_planted_fault_is_found_by_the_check_that_it_is_one_of(copy, plant, check, sentence):
    plant(copy)
    folder = DemoFolder(copy)
    found = await reconcile(folder, folder.facts())
    assert [one.title for one in found] == list(CHECKS)
    assert sentence in found[check].wrong


def test_a_deleted_posting_ends_the_demo_with_a_sentence(copy):
    sql("DELETE FROM postings WHERE transaction_id = 'T-0000007' AND line = 1")(copy)
    done = demo(copy, "--reconcile")
    assert done.returncode == 1
    assert "✗ the books balance" in done.stdout
    assert done.stderr.startswith(
        "streamq.demo: the night does not reconcile: not true that the books balance: the sum is "
    )
    assert "T-0000007 is wrong" in done.stderr
    assert done.stderr.count("\n") == 1


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


def test_a_folder_without_a_night_can_not_be_reconciled(tmp_path):
    done = demo(tmp_path, "--reconcile")
    assert done.returncode == 1
    assert done.stderr == f"streamq.demo: no night has run to its end in {tmp_path}: run the demo there first\n"

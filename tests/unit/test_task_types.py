"""Type checkers see through tasks: parameters of `add`, results of jobs, calls of the function itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SAMPLE = Path(__file__).parent / "samples" / "typed_tasks.py"
ROOT = Path(__file__).parents[2]
MARKED = {n for n, line in enumerate(SAMPLE.read_text().splitlines(), 1) if "# error: " in line}


def checked(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, cwd=ROOT)


def test_pyright_reports_each_wrong_use_of_a_task_and_no_right_one() -> None:
    found = checked("basedpyright", "--outputjson", "--level", "error", "--pythonpath", sys.executable, str(SAMPLE))
    report = json.loads(found.stdout)
    assert report["summary"]["filesAnalyzed"] == 1
    lines = {told["range"]["start"]["line"] + 1 for told in report["generalDiagnostics"]}
    assert lines == MARKED


def test_mypy_reports_each_wrong_use_of_a_task_and_no_right_one(tmp_path: Path) -> None:
    found = checked("mypy", "--strict", "--follow-imports=silent", "--cache-dir", str(tmp_path), str(SAMPLE))
    lines = {int(line.split(":")[1]) for line in found.stdout.splitlines() if ": error: " in line}
    assert lines == MARKED, found.stdout + found.stderr

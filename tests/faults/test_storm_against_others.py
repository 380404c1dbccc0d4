"""The storm that other queues go through finds what is lost and repeated, blames nobody for what the faults explain."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil
import pytest

from benchmarks.storm import report
from benchmarks.storm import storm as storm_of_one
from benchmarks.storm.judge import judge
from benchmarks.storm.plan import Plan
from benchmarks.storm.processes import Process, is_running
from benchmarks.storm.roster import ADAPTERS, CONTENDERS, Contender
from benchmarks.storm.storm import Storm
from tests.faults.figures import PAGE
from tests.faults.ledger import ENVIRONMENT, Ledger, Line
from tests.faults.sentinels import wait_until
from tests.faults.workers import ROOT

SHORT = Plan(
    seed=1, jobs=300, seconds=9.0, workers=2, kill_every=(0.8, 1.6), server_every=(3.0, 4.0), freeze_every=(7.0, 7.5)
)


def line(kind: str, at: float, job: str = "", *, pid: int = 1, outcome: str = "", **more: object) -> Line:
    return Line(kind, at, pid, job, outcome=outcome, more=more)


def run(job: str, since: float, until: float, *, pid: int = 1, outcome: str = "returned") -> list[Line]:
    return [line("start", since, job, pid=pid), line("end", until, job, pid=pid, outcome=outcome)]


def started_as(adapter: Path) -> Callable[[str], tuple[Sequence[str], Mapping[str, str]]]:
    path = f"{ADAPTERS}{os.pathsep}{ROOT}"
    return lambda url: ([sys.executable, str(adapter)], {**os.environ, "PYTHONPATH": path, "STORM_URL": url})


def test_the_same_seed_breaks_the_same_things_at_the_same_moments() -> None:
    faults = Plan(seed=3).faults()
    assert faults == Plan(seed=3).faults() != Plan(seed=4).faults()
    assert faults == Plan(seed=3, jobs=500).faults(), "a slow queue with fewer jobs is spared nothing"
    kinds = Counter(fault.kind for fault in faults)
    assert kinds["workers killed"] > 40
    assert kinds["server killed"] >= 4
    assert kinds["workers frozen"] >= 7


def test_a_run_in_which_too_little_happened_is_void() -> None:
    planned = Counter[str](fault.kind for fault in Plan(seed=3).faults())
    assert Plan(seed=3).shortfall(planned) == ""
    few = planned | Counter()
    few["server killed"] = 1
    assert Plan(seed=3).shortfall(few) == f"server killed: 1 of {planned['server killed']}"


def test_what_was_accepted_and_never_came_to_its_end_is_lost() -> None:
    accepted = [line("accepted", 0, job) for job in ("0-0", "0-1", "0-2", "0-3")]
    cancelled = run("0-2", 1, 2, outcome="CancelledError")
    killed = [line("start", 1, "0-3", pid=7), line("killed", 2, pid=7)]
    found = judge([*accepted, *run("0-0", 1, 2), *cancelled, *killed])
    assert found.never_run == {"0-1"}
    assert found.never_ended == {"0-2", "0-3"}
    assert found.lost == 3


def test_an_add_that_raised_is_never_counted_as_lost() -> None:
    refused = [line("note", 0, job, outcome="refused", error="ConnectionError") for job in ("0-0", "0-1")]
    found = judge([*refused, *run("0-1", 1, 2)])
    assert (found.accepted, found.lost, found.refused, found.refused_and_run) == (0, 0, 2, 1)


def test_a_repeat_is_put_down_to_a_killed_or_frozen_worker_and_to_nothing_else() -> None:
    frozen = line("note", 1.5, outcome="frozen", pids=[4], lasts=5.0)
    found = judge(
        [
            line("start", 1, "killed", pid=3), line("killed", 2, pid=3), *run("killed", 7, 8),
            *run("frozen", 1, 9, pid=4), frozen, *run("frozen", 7, 8),
            *run("neither", 1, 2), *run("neither", 7, 8, pid=2),
            line("killed", 9, pid=1),
        ]
    )  # fmt: skip
    assert found.repeated == 2
    assert found.repeated_otherwise == {"neither"}
    assert found.recoveries == [5.0]


def test_what_only_new_workers_brought_to_its_end_was_stuck() -> None:
    restarted = line("note", 5, outcome="all restarted")
    accepted = [line("accepted", 0, job) for job in ("0-0", "0-1")]
    found = judge([*accepted, *run("0-0", 1, 2), restarted, *run("0-1", 6, 7)])
    assert (found.stuck, found.lost) == (1, 0)


def test_the_ledger_reads_what_the_adapters_write_without_any_package(tmp_path: Path) -> None:
    code = (
        "import asyncio, kit\n"
        "asyncio.run(kit.job({'id': '0-1', 'seconds': 0}))\n"
        "kit.blocking_job({'id': '', 'seconds': 0})\n"
        "kit.write('note', '0-2', 'refused', error='OSError')\n"
    )
    environment = {"PYTHONPATH": str(ADAPTERS), ENVIRONMENT: str(tmp_path / "ledger")}
    subprocess.run([sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append({str(ADAPTERS)!r})\n{code}"],
                   env=environment, check=True)  # fmt: skip
    lines = Ledger(tmp_path / "ledger").lines()
    assert [(x.kind, x.job, x.outcome, x.more) for x in lines] == [
        ("start", "0-1", "", {}), ("end", "0-1", "returned", {}), ("note", "0-2", "refused", {"error": "OSError"}),
    ]  # fmt: skip


def test_what_a_worker_has_forked_dies_and_freezes_with_it(tmp_path: Path) -> None:
    code = (
        "import os, sys, time\n"
        "if not os.fork(): os.setpgrp()\n"  # as RQ's worker does
        "open(f'{sys.argv[1]}/{os.getpid()}', 'w').close()\n"
        "time.sleep(3600)\n"
    )
    ledger = Ledger(tmp_path / "ledger")
    folder = tmp_path / "pids"
    folder.mkdir()
    process = Process([sys.executable, "-c", code, str(folder)], os.environ, tmp_path / "log", ledger)
    wait_until(lambda: len(list(folder.iterdir())) == 2 or not process.alive, "it has forked")
    assert process.alive
    pids = {int(path.name) for path in folder.iterdir()}
    assert set(process.signal(signal.SIGSTOP)) == pids
    wait_until(lambda: {psutil.Process(pid).status() for pid in pids} == {psutil.STATUS_STOPPED}, "both are frozen")
    process.kill()
    assert not any(map(is_running, pids))
    assert {line.pid for line in ledger.lines("killed")} == pids
    ledger.close()


def test_a_queue_that_pops_before_it_runs_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storm_of_one, "HUNG_AFTER", 4.0)
    storm = Storm(SHORT, started_as(ROOT / "tests/faults/forgetful.py"), patience=3.0)
    found = storm.run()
    assert storm.happened["workers killed"] > 2, "void: one that has ended by itself can't be killed"
    assert storm.happened["server killed"] > 0, "void"
    assert found.accepted + found.refused + found.hung >= SHORT.jobs * 0.9
    assert found.never_ended, "planted: killed workers take their jobs with them"
    assert found.repeated_otherwise, "planted: every tenth job is added twice"
    assert found.ended_by_themselves > 0, "planted: the worker can't stand that the server is away"
    assert found.refused > 0, "planted: nor can the producer"
    assert found.hung > 0, "planted: one add does not come back"


def test_streamq_loses_nothing_in_it() -> None:
    storm = Storm(SHORT, started_as(ADAPTERS / "with_streamq.py"), patience=20.0)
    found = storm.run()
    assert not SHORT.shortfall(storm.happened)
    assert found.accepted + found.refused == SHORT.jobs
    assert found.accepted > SHORT.jobs / 2, "void: the server was away for longer than an add waits"
    assert found.repeated > 0, "void: the killed workers held nothing"
    assert not found.never_run
    assert not found.never_ended
    assert not found.repeated_otherwise
    assert (found.hung, found.stuck, found.ended_by_themselves) == (0, 0, 0)


def test_the_page_shows_the_figures_that_were_kept_of_every_queue() -> None:
    kept = json.loads(report.KEPT.read_text())
    assert kept.keys() == {contender.name for contender in CONTENDERS}
    assert not [name for name, entry in kept.items() if "error" in entry]
    assert report.shown(PAGE.read_text()) == report.render(kept)


def test_a_void_run_says_so_instead_of_its_figures() -> None:
    assert report.row("x", {"error": "void: too little happened"}) == "| x | void: too little happened |"


@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda contender: contender.name)
def test_every_queue_has_an_adapter_and_says_how_it_is_set_up(contender: Contender) -> None:
    assert (ADAPTERS / contender.peer.adapter).exists()
    assert contender.settings

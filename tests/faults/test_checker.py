"""The judge of the fault tests, judged: losses and duplicates are planted, and it has to find exactly those."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.checker import check
from tests.faults.ledger import Ledger, Line


def line(kind: str, at: float, job: str = "a", *, attempt: int = 1, pid: int = 10, outcome: str = "") -> Line:
    return Line(kind, at, pid, job, attempt, outcome or ("returned" if kind == "end" else ""))


def clean_run(job: str, at: float, **how: Any) -> list[Line]:
    return [line("accepted", at, job), line("start", at + 1, job, **how), line("end", at + 2, job, **how)]


def test_jobs_that_ran_once_leave_nothing_to_complain_about() -> None:
    verdict = check(clean_run("a", 0) + clean_run("b", 0.5))
    assert verdict.accepted == {"a", "b"}
    assert verdict.total_runs == 2
    assert not verdict.lost
    assert not verdict.unknown
    assert not verdict.unfinished
    assert not verdict.repeated
    assert not verdict.duplicates
    assert not verdict.overlapping


def test_an_accepted_job_that_never_started_is_lost() -> None:
    verdict = check([*clean_run("a", 0), line("accepted", 1, "b")])
    assert verdict.lost == {"b"}


def test_a_job_that_nobody_was_told_of_is_unknown_and_not_lost() -> None:
    verdict = check([line("start", 0), line("end", 1)])
    assert verdict.unknown == {"a"}
    assert not verdict.lost


def test_an_id_that_was_handed_out_twice_is_told() -> None:
    assert check([line("accepted", 0), line("accepted", 1)]).accepted_twice == {"a"}


def test_a_job_whose_only_run_was_killed_is_unfinished() -> None:
    verdict = check([line("start", 0), line("killed", 1, "", pid=10)])
    assert verdict.unfinished == {"a"}
    assert verdict.runs["a"][0].end == 1


def test_a_job_that_was_killed_and_then_finished_elsewhere_is_finished_and_a_duplicate() -> None:
    lines = [line("start", 0), line("killed", 1, ""), line("start", 2, pid=11), line("end", 3, pid=11)]
    verdict = check(lines)
    assert not verdict.unfinished
    assert not verdict.overlapping
    assert [(one.pid, two.pid) for one, two in verdict.duplicates] == [(10, 11)]


def test_a_retry_is_a_repeat_but_no_duplicate() -> None:
    verdict = check(clean_run("a", 0) + clean_run("a", 5, attempt=2))
    assert verdict.repeated == {"a": 2}
    assert not verdict.duplicates


def test_a_fault_excuses_only_the_duplicates_that_it_can_have_caused() -> None:
    lines = clean_run("a", 0) + clean_run("a", 10, pid=11)
    verdict = check(lines)
    assert not verdict.duplicates_outside([(5, 6)])
    assert not verdict.duplicates_outside([(0, 1)])
    assert len(verdict.duplicates_outside([(20, 30)])) == 1
    assert len(verdict.duplicates_outside([])) == 1


def test_only_the_death_of_its_own_worker_between_the_two_runs_excuses_a_duplicate() -> None:
    first, second = [line("start", 1), line("end", 2)], [line("start", 5, pid=11), line("end", 6, pid=11)]

    def unexplained(*between: Line) -> int:
        return len(check([*first, *between, *second]).duplicates_without_a_death)

    assert unexplained() == 1
    assert unexplained(line("killed", 3, "", pid=10)) == 0
    assert unexplained(line("killed", 3, "", pid=12)) == 1
    killed_before = [line("killed", 0.5, "", pid=10), *first, *second]
    assert len(check(killed_before).duplicates_without_a_death) == 1
    killed_after = [*first, *second, line("killed", 7, "", pid=10)]
    assert len(check(killed_after).duplicates_without_a_death) == 1


def test_runs_of_different_jobs_of_one_key_overlap_where_the_key_should_keep_them_apart() -> None:
    at_once = [line("start", 0, "k-a"), line("start", 1, "k-b"), line("end", 2, "k-a"), line("end", 3, "k-b")]
    alone = [line("start", 0.5, "other"), line("end", 2, "other")]
    verdict = check([*at_once, *alone])
    assert not verdict.overlapping
    assert [(one.job, two.job) for one, two in verdict.overlapping_by(lambda job: job[0] if "-" in job else None)] == [
        ("k-a", "k-b")
    ]
    in_a_row = check([*clean_run("k-a", 0), *clean_run("k-b", 2)])
    assert not in_a_row.overlapping_by(lambda job: job[0])


def asked(job: str, at: float, accepted: float) -> Line:
    return Line("accepted", accepted, 9, job, more={"asked": at})


def letter(job: str) -> str | None:
    return job[0] if "-" in job else None


def ran(job: str, start: float, end: float, **how: Any) -> list[Line]:
    return [line("start", start, job, **how), line("end", end, job, **how)]


def test_a_job_that_starts_before_an_earlier_one_of_its_key_has_ended_is_out_of_order() -> None:
    first, second, other = asked("k-a", 0, 1), asked("k-b", 2, 3), asked("m-c", 4, 5)
    in_order = [*ran("k-a", 4, 5), *ran("k-b", 6, 7), *ran("m-c", 5, 6)]
    assert check([first, second, other, *in_order]).out_of_order(letter) == []
    overtaken = [*ran("k-b", 4, 5), *ran("k-a", 6, 7), *ran("m-c", 5, 6)]
    assert check([first, second, other, *overtaken]).out_of_order(letter) == [("k-a", "k-b")]
    too_early = [*ran("k-a", 4, 6), *ran("k-b", 5, 7)]
    assert check([first, second, *too_early]).out_of_order(letter) == [("k-a", "k-b")]


def test_a_retry_and_a_repeat_belong_to_their_jobs_turn() -> None:
    order = [asked("k-a", 0, 1), asked("k-b", 2, 3)]
    retried = [*ran("k-a", 4, 5), *ran("k-a", 7, 8, attempt=2)]
    assert check([*order, *retried, *ran("k-b", 9, 10)]).out_of_order(letter) == []
    assert check([*order, *retried, *ran("k-b", 5.5, 6)]).out_of_order(letter) == [("k-a", "k-b")]
    killed = [line("start", 4, "k-a"), line("killed", 5, "", pid=10)]
    again = ran("k-a", 8, 9, pid=11)
    assert check([*order, *killed, *ran("k-b", 6, 7, pid=12), *again]).out_of_order(letter) == [("k-a", "k-b")]
    assert check([*order, *killed, *again, *ran("k-b", 9, 10, pid=12)]).out_of_order(letter) == []


def test_jobs_that_were_asked_for_at_the_same_time_have_no_order() -> None:
    at_once = [asked("k-a", 0, 2), asked("k-b", 1, 3)]
    assert check([*at_once, *ran("k-b", 4, 5), *ran("k-a", 6, 7)]).out_of_order(letter) == []
    unsaid = [line("accepted", 0, "k-a"), asked("k-b", 1, 3)]
    assert check([*unsaid, *ran("k-b", 4, 5), *ran("k-a", 6, 7)]).out_of_order(letter) == []


def test_how_many_runs_of_a_key_were_under_way_at_once_is_counted() -> None:
    lines = [*ran("k-a", 0, 3), *ran("k-b", 1, 4), *ran("k-c", 3, 5), *ran("m-a", 0, 9), *ran("none", 0, 9)]
    assert check(lines).most_at_once(letter) == {"k": 2, "m": 1}
    assert check([*lines, *ran("k-d", 2, 3)]).most_at_once(letter)["k"] == 3
    killed = [line("start", 0, "k-a"), line("killed", 1, "", pid=10), *ran("k-a", 2, 3, pid=11)]
    assert check(killed).most_at_once(letter) == {"k": 1}


def test_a_parent_that_starts_before_all_its_children_have_ended_is_too_soon() -> None:
    def parent_of(job: str) -> str | None:
        return None if job == "parent" else "parent"

    children = [*clean_run("one", 0), *clean_run("two", 3)]
    assert check([*children, *clean_run("parent", 5)]).too_soon(parent_of) == set()
    assert check([*children, *clean_run("parent", 3.5)]).too_soon(parent_of) == {"parent"}
    never_ended = [*clean_run("one", 0), line("start", 1, "two"), *clean_run("parent", 5)]
    assert check(never_ended).too_soon(parent_of) == {"parent"}


def test_a_recovery_is_counted_from_the_death_or_from_the_end_of_an_outage() -> None:
    lines = [line("start", 0), line("killed", 1, ""), line("start", 6, pid=11), line("end", 7, pid=11)]
    assert check([*lines, *clean_run("b", 0, pid=12)]).recoveries() == [5]
    assert check(lines).recoveries([(0.5, 4)]) == [2]
    assert check(lines).recoveries([(0.1, 0.9), (8, 9)]) == [5]
    assert check(lines[:2]).recoveries() == []


def test_the_judge_knows_nothing_of_streamq() -> None:
    code = "import sys, tests.faults.checker; sys.exit('streamq' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_job_that_starts_before_it_is_due_is_early() -> None:
    def accepted(job: str, due: float) -> Line:
        return Line("accepted", 0, 9, job, more={"due": due})

    lines = [accepted("soon", 5), accepted("late", 1), *clean_run("soon", 1), *clean_run("late", 1)]
    assert check(lines).early == {"soon": 3}


def test_two_runs_at_once_overlap_and_two_in_a_row_do_not() -> None:
    at_once = [line("start", 0), line("start", 1, pid=11), line("end", 2), line("end", 3, pid=11)]
    assert [(one.pid, two.pid) for one, two in check(at_once).overlapping] == [(10, 11)]
    in_a_row = [line("start", 0), line("end", 2), line("start", 3, pid=11), line("end", 4, pid=11)]
    assert not check(in_a_row).overlapping


def test_a_run_that_nobody_saw_end_overlaps_all_later_ones() -> None:
    lines = [line("start", 0), line("start", 5, pid=11), line("end", 6, pid=11), line("start", 7, pid=12)]
    assert len(check(lines).overlapping) == 2


def test_a_run_that_ends_without_a_start_is_refused() -> None:
    with pytest.raises(ValueError, match="never started"):
        check([line("end", 0)])


def test_lines_of_several_processes_come_through_whole(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    code = (
        "import sys; from tests.faults.ledger import Ledger\n"
        "ledger = Ledger(sys.argv[1])\n"
        "for i in range(500): ledger.start(f'{sys.argv[2]}-{i}', 1, pad='x' * 200)\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, ledger.path, name]) for name in "abc"]
    assert [writer.wait(30) for writer in writers] == [0, 0, 0]
    lines = ledger.lines("start")
    ledger.close()
    assert {x.job for x in lines} == {f"{name}-{i}" for name in "abc" for i in range(500)}
    assert len(lines) == 1500
    assert {x.pid for x in lines} == {writer.pid for writer in writers}


def test_a_half_written_line_waits_for_its_end(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    ledger.accept(["a"])
    whole = ledger.path.read_bytes()
    with ledger.path.open("ab") as file:
        file.write(whole[:10])
        file.flush()
        assert ledger.count("accepted") == 1
        file.write(whole[10:])
    assert ledger.count("accepted") == 2
    assert ledger.lines("accepted")[1].pid == os.getpid()
    ledger.close()

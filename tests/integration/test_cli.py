"""The commands, each as a process on a real server: what it prints, what it does, how it ends."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from streamq import ActiveJob, FlowJob, JobState, Priority, Processors, Queue, RateLimit, Schedule, Unrecoverable
from streamq.testing import drain
from tests.integration.cli import Cli, CliWorker, eventually


@pytest.fixture
def cli(redis_url: str, tmp_path: Path) -> Cli:
    """The command, with an empty database."""
    return Cli(redis_url, tmp_path)


@pytest.fixture
def worker(cli: Cli) -> Iterator[CliWorker]:
    """A worker of queue `q` as a process, started by the command."""
    with CliWorker(cli) as worker:
        yield worker
        assert worker.stop() == 0


def failed_job(cli: Cli, data: str = "boom") -> str:
    """Add a job that fails and return its id."""
    done = cli("add", "q", "fails", json.dumps(data), "--wait", "--json", code=1)
    assert done.record["state"] == "failed"
    job_id: str = done.record["id"]
    return job_id


# Adding ---------------------------------------------------------------------------------------------------------------


def test_a_unique_key_is_held_replaced_and_shown(cli: Cli) -> None:
    assert cli("add", "q", "work", "1", "--unique", "k").out == "added job 1 (work) to q\n"
    assert cli("add", "q", "work", "2", "--unique", "k").out == "job 1 is known already in q; nothing was added\n"
    replaced = cli("add", "q", "work", "3", "--unique", "k", "--on-conflict", "replace")
    assert replaced.out == "job 1 in q has the new data; no other was added\n"
    refused = cli("add", "q", "work", "4", "--unique", "k", "--on-conflict", "raise", code=1)
    assert "job 1 holds the unique key 'k'" in refused.err
    shown = cli("job", "q", "1", "--json").record
    assert (shown["data"], shown["unique_key"]) == (3, "k")
    assert re.search(r"^unique key +k$", cli("job", "q", "1").out, re.MULTILINE)


async def test_an_added_job_has_the_data_and_options_that_were_given(cli: Cli, queue: Queue) -> None:
    done = cli(
        *("add", "q", "work", '{"n": 12345678901234567890123, "t": "ü"}', "--priority", "high", "--attempts", "7"),
        *("--delay", "1h30m", "--id", "mine", "--tag", "a", "--tag", "b", "--header", "trace=1=2"),
    )
    assert done.out == "added job mine (work) to q\n"
    job = await queue.get_job("mine")
    assert job is not None
    assert (job.name, job.data) == ("work", {"n": 12345678901234567890123, "t": "ü"})
    assert (job.priority, job.tags, job.headers) == (Priority.HIGH, ("a", "b"), {"trace": "1=2"})
    assert job.run_at is not None
    assert job.created_at is not None
    assert timedelta(minutes=89) < job.run_at - job.created_at <= timedelta(minutes=90)
    again = cli("add", "q", "work", "--id", "mine")
    assert again.out == "job mine is known already in q; nothing was added\n"
    assert cli("add", "q", "work", "--id", "mine", "--json").record == {
        "queue": "q", "id": "mine", "name": "work", "is_new": False,
    }  # fmt: skip


async def test_data_comes_from_a_file_or_from_standard_input(cli: Cli, queue: Queue) -> None:
    (cli.folder / "data.json").write_text('["from a file"]')
    from_file = cli("add", "q", "work", "@data.json", "--json").record["id"]
    piped = cli("add", "q", "work", "-", "--json", stdin='"piped"').record["id"]
    nothing = cli("add", "q", "work", "--json").record["id"]
    found = [job and job.data for job in [await queue.get_job(i) for i in (from_file, piped, nothing)]]
    assert found == [["from a file"], "piped", None]


async def test_each_line_is_a_job_and_a_bad_line_adds_none(cli: Cli, queue: Queue) -> None:
    refused = cli("add", "q", "work", "-", "--lines", code=2, stdin='1\n{"a"\n3\n')
    assert "line 2 is no JSON" in refused.err
    assert (await queue.stats()).total == 0
    added = cli("add", "q", "work", "-", "--lines", "--json", stdin='1\n\n{"a": 2}\n3\n').records
    assert [(await queue.get_job(record["id"])).data for record in added] == [1, {"a": 2}, 3]  # type: ignore[union-attr]


@pytest.mark.usefixtures("worker")
def test_waiting_for_a_job_prints_its_result_or_why_it_failed(cli: Cli) -> None:
    done = cli("add", "q", "echo", '{"a": 1}', "--wait")
    assert json.loads(done.out) == {"a": 1}
    failed = cli("add", "q", "fails", '"no luck"', "--wait", code=1)
    assert failed.out == ""
    assert "Unrecoverable: no luck" in failed.err


def test_a_wait_that_is_over_before_its_job_says_so(cli: Cli) -> None:
    done = cli("add", "q", "work", "--wait", "200ms", code=1)
    assert "has not ended within 200 ms; it goes on" in done.err
    assert cli("stats", "q", "--json").record["waiting"] == 1


# Looking --------------------------------------------------------------------------------------------------------------


def test_stats_count_the_queues_that_are_named_or_the_default_ones(cli: Cli) -> None:
    cli("add", "q", "work")
    table = cli("stats", "q", "other").out.splitlines()
    heading = "QUEUE WAITING ACTIVE DELAYED PARENTS COMPLETED FAILED CANCELLED DEAD OLDEST WORKERS STATE"
    assert " ".join(table[0].split()) == heading
    assert table[1].split()[:3] == ["q", "1", "0"]
    assert table[1].endswith("no worker")
    record = cli("stats", "q", "--json").record
    assert (record["queue"], record["waiting"], record["total"], record["paused"]) == ("q", 1, 1, False)
    seven = [record["queue"] for record in cli("stats", "--json").records]
    assert seven == ["reports", "emails", "imports", "exports", "notifications", "calculations", "integrations"]
    own = Cli(cli.url, cli.folder, {"STREAMQ_QUEUES": "q, other"})
    assert [record["queue"] for record in own("stats", "--json").records] == ["q", "other"]


async def test_jobs_are_listed_page_by_page_by_state_and_by_name(cli: Cli, queue: Queue) -> None:
    await queue.add_many([("even" if n % 2 == 0 else "odd", n) for n in range(7)])
    await queue.add("later", delay=60)
    first = cli("jobs", "q", "--count", "3", "--json")
    assert [job["data"] for job in first.records] == [0, 1, 2]
    cursor = first.err.strip().rpartition(" ")[2].strip("'")
    assert [job["data"] for job in cli("jobs", "q", "--count", "3", "--start", cursor, "--json").records] == [3, 4, 5]
    assert [job["data"] for job in cli("jobs", "q", "--start", "5", "--json").records] == [5, 6]
    assert [job["data"] for job in cli("jobs", "q", "-n", "2", "--all", "--json").records] == list(range(7))
    assert [job["data"] for job in cli("jobs", "q", "--newest", "-n", "2", "--json").records] == [6, 5]
    assert [job["data"] for job in cli("jobs", "q", "--name", "even", "--json").records] == [0, 2, 4, 6]
    (delayed,) = cli("jobs", "q", "--state", "delayed", "--json").records
    assert (delayed["name"], delayed["priority"], delayed["state"]) == ("later", "normal", "delayed")
    assert datetime.fromisoformat(delayed["run_at"]).utcoffset() == timedelta(0)
    table = cli("jobs", "q", "-n", "2").out.splitlines()
    assert table[0].split() == ["ID", "NAME", "PRIORITY", "ATTEMPTS", "CREATED", "DATA"]
    assert [line.split()[:2] for line in table[1:]] == [["1", "even"], ["2", "odd"]]
    assert cli("jobs", "q", "--state", "failed").out == "no failed jobs in q (but 7 waiting, 1 delayed)\n"


@pytest.mark.usefixtures("worker")
def test_a_job_is_told_with_its_error_its_timeline_and_its_log(cli: Cli) -> None:
    job_id = failed_job(cli, "no \x1b[31mred")
    shown = cli("job", "q", job_id).out
    assert "state       failed" in shown
    assert "Unrecoverable: no \\x1b[31mred" in shown
    assert "\x1b" not in shown
    assert [line.split()[-1] for line in shown.partition("TIMELINE")[2].splitlines()[1:5]] == [
        "added", "active", "failed", "dead",
    ]  # fmt: skip
    assert "log:\n  about to fail\n" in shown
    record = cli("job", "q", job_id, "--json").record
    assert (record["id"], record["data"], record["attempts_made"]) == (job_id, "no \x1b[31mred", 1)
    assert record["error"]["type"] == "Unrecoverable"
    assert record["error"]["traceback"].startswith("Traceback")
    assert [event["kind"] for event in record["history"]] == ["added", "active", "failed", "dead"]
    assert record["log"] == ["about to fail"]


async def test_a_flow_is_shown_as_a_tree_cancelled_and_retried(cli: Cli, queue: Queue) -> None:
    low = FlowJob("echo", 1, job_id="low")
    top = FlowJob(
        "echo", job_id="top", children=[FlowJob("echo", job_id="mid", children=[low]), FlowJob("b", job_id="b")]
    )
    await queue.add_flow(top)
    lines = [line.split() for line in cli("flow", "q", "top").out.splitlines()[1:]]
    assert lines == [
        ["top", "echo", "q", "waiting_children", "2", "2"],
        ["├─", "mid", "echo", "q", "waiting_children", "1", "1"],
        ["│", "└─", "low", "echo", "q", "waiting"],
        ["└─", "b", "b", "q", "waiting"],
    ]
    assert cli("flow", "q", "top", "--width", "1", "--depth", "1").out.splitlines()[-1].strip() == "└─ … 1 more"
    tree = cli("flow", "q", "top", "--json").record
    assert [node["id"] for node in tree["nodes"]] == ["mid", "b"]
    rows = cli("jobs", "q", "--state", "waiting_children", "--json").records
    assert {(row["id"], row["children"], row["open_children"]) for row in rows} == {("top", 2, 2), ("mid", 1, 1)}
    assert "children  2, of which 2 have not ended" in cli("job", "q", "top").out
    assert "parents   top" in cli("job", "q", "mid").out
    assert cli("flow", "q", "top", "--cancel", "wrong month").out == "4 jobs cancelled, or asked to end\n"
    assert cli("flow", "q", "top", "--retry").out == "4 jobs retried\n"
    assert (await queue.stats()).waiting_children == 2


def test_what_is_unknown_is_said_and_ends_with_1(cli: Cli) -> None:
    for command in (
        ("job", "q", "77"), ("logs", "q", "77"), ("retry", "q", "77"), ("remove", "q", "77", "--yes"),
        ("promote", "q", "77"), ("reschedule", "q", "77", "--delay", "5m"),
        ("change-priority", "q", "77", "--to", "low"), ("update-data", "q", "77", "1"),
    ):  # fmt: skip
        assert "job 77 is unknown" in cli(*command, code=1).err
    for action in ("get", "pause", "resume", "trigger", "remove"):
        consent = ["--yes"] if action == "remove" else []
        assert "schedule x is unknown" in cli("schedules", action, "q", "x", *consent, code=1).err
    assert "dead letter 1-1 is unknown" in cli("redrive", "q", "1-1", code=1).err
    assert "dead letter 1-1 is unknown" in cli("purge", "q", "1-1", "--yes", code=1).err


@pytest.mark.usefixtures("worker")
def test_workers_and_top_show_what_runs_now(cli: Cli) -> None:
    gate = cli.folder / "gate"
    os.mkfifo(gate)
    cli("add", "q", "holds", json.dumps(str(gate)), "--id", "held", "--priority", "critical")
    with gate.open("w"):  # opens when the job has opened it too
        worker = cli("workers", "q", "--json").record
        assert (worker["queue"], worker["alive"], worker["running"]) == ("q", True, 1)
        assert worker["held"] == {"critical": 1, "high": 0, "normal": 0, "low": 0}
        assert [(job["id"], job["name"]) for job in worker["jobs"]] == [("held", "holds")]
        assert 0 < worker["lease_left"] <= 15
        table = cli("workers", "q").out
        assert table.splitlines()[0].split() == ["QUEUE", "WORKER", "LEASE", "LEFT", "HOLDS", "RUNS", "NOW"]
        assert "1 critical  held holds (" in table
        top = cli("top", "q", "--once").out
        assert "ADDED/S  DONE/S  FAIL/S" in top
        assert "held holds (" in top
        record = cli("top", "q", "--once", "--interval", "60s", "--json").record
        assert (record["active"], record["rates_complete"]) == (1, True)
        assert record["rates"] == {"added": 0.017, "started": 0.017, "completed": 0.0, "failed": 0.0}
        assert [job["id"] for job in record["workers"][0]["jobs"]] == ["held"]
    assert cli("workers", "other").out == "no workers on other\n"


def test_top_goes_on_until_it_is_interrupted(cli: Cli) -> None:
    process = cli.start("top", "q", "--json", "--interval", "100ms")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["waiting"] == 0
    cli("add", "q", "work")
    while json.loads(process.stdout.readline())["waiting"] != 1:
        pass
    process.send_signal(2)
    assert process.wait(20) == 0
    process.communicate()


@pytest.mark.usefixtures("worker")
def test_events_are_followed_from_where_one_says(cli: Cli) -> None:
    job_id = failed_job(cli)
    told = cli("events", "q", "--after", "0-0", "--count", "3", "--json").records
    assert [(event["kind"], event["job_id"]) for event in told] == [(k, job_id) for k in ("added", "active", "failed")]
    after = cli("events", "q", "--after", told[0]["id"], "--count", "1").out
    assert after.split()[-2:] == ["active", job_id]
    dead = cli("events", "q", "--after", "0-0", "--kind", "dead", "--job", job_id, "--count", "1", "--json").record
    assert dead["kind"] == "dead"
    follower = cli.start("events", "q", "--after", told[-1]["id"], "--kind", "completed", "--count", "1")
    cli("add", "q", "echo", "--wait")
    assert follower.wait(20) == 0
    assert "completed" in follower.communicate()[0]


@pytest.mark.usefixtures("worker")
def test_a_log_is_printed_or_followed_until_the_job_has_ended(cli: Cli) -> None:
    job_id = failed_job(cli)
    assert cli("logs", "q", job_id).out == "about to fail\n"
    assert cli("logs", "q", job_id, "--start", "1").out == ""
    assert cli("logs", "q", job_id, "--follow", "--json").record == {"line": "about to fail"}


# Operating ------------------------------------------------------------------------------------------------------------


async def test_queues_are_paused_and_resumed(cli: Cli, queue: Queue) -> None:
    assert cli("pause", "q", "other").out == "q: paused\nother: paused\n"
    assert (await queue.stats()).paused
    assert cli("resume", "q", "--json").record == {"queue": "q", "paused": False}
    assert not (await queue.stats()).paused


async def test_limits_are_set_one_by_one_and_shown(cli: Cli, queue: Queue) -> None:
    cli("limits", "q", "--rate", "100/1m", "--concurrency", "5", "--max-size", "1000")
    shown = cli("limits", "q", "--concurrency", "none").out
    assert shown.splitlines() == [
        "rate         100 starts in any 1m 0s", "concurrency  none", "max size     1,000 jobs", "paused       no",
    ]  # fmt: skip
    assert (await queue.limits()).rate == RateLimit(100, 60)
    record = cli("limits", "q", "--rate", "none", "--json").record
    assert (record["rate"], record["max_size"]) == (None, 1_000)
    cli("limits", "q", "--max-size", "1")
    cli("add", "q", "work")
    assert "its limit is 1" in cli("add", "q", "work", code=1).err


async def test_keys_are_listed_limited_paused_and_resumed(cli: Cli, queue: Queue) -> None:
    assert cli("add", "q", "work", "--key", "tenant-1").out == "added job 1 (work) to q\n"
    cli("add", "q", "work", "--key", "tenant-1")
    assert cli("job", "q", "1", "--json").record["key"] == "tenant-1"
    shown = cli("key", "q", "tenant-1", "--rate", "10/1m", "--concurrency", "1", "--weight", "3", "--pause").out
    assert re.findall(r"^(\w+) +(.*?) *$", shown, re.MULTILINE) == [
        *(("jobs", "2"), ("parked", "1"), ("rate", "10 starts in any 1m 0s"), ("concurrency", "1"), ("weight", "3")),
        ("paused", "yes"),
    ]
    assert (await queue.get_key("tenant-1")).paused
    cli("key", "q", "tenant-1", "--resume", "--rate", "none")
    found = await queue.get_key("tenant-1")
    assert (found.paused, found.limits.rate, found.limits.concurrency) == (False, None, 1)
    assert cli("key", "q", "--all", "--concurrency", "5", "--json").record["concurrency"] == 5
    listed = cli("keys", "q").out
    assert re.search(r"^tenant-1 +2 +1 +- +1 +3", listed, re.MULTILINE)
    assert "for all keys: rate none, concurrency 5, weight none" in listed
    assert cli("keys", "q", "--json").record["jobs"] == 2
    assert "say which key" in cli("key", "q", code=2).err
    assert "--all can't go with --pause" in cli("key", "q", "--all", "--pause", code=2).err


@pytest.mark.usefixtures("worker")
async def test_failed_jobs_are_retried_by_id_or_as_they_match(cli: Cli, queue: Queue) -> None:
    first, second = failed_job(cli), failed_job(cli)
    cli("pause", "q")
    assert cli("retry", "q", first).out == f"retried job {first}\n"
    again = cli("retry", "q", first, code=1)
    assert f"cannot retry job {first}: it is waiting" in again.err
    assert cli("retry", "q", "--error", "ValueError").out == "retried 0 jobs\n"
    assert cli("retry", "q", "--error", "Unrecoverable", "--name", "fails", "--json").record == {
        "id": second, "retried": True,
    }  # fmt: skip
    assert (await queue.stats()).waiting == 2
    which = "say which jobs: give their ids, or --all, --state, --name or --error"
    for wrong in ((), (first, "--all"), (first, "--count", "1")):
        assert which in cli("retry", "q", *wrong, code=2).err


async def test_priority_and_data_are_changed(cli: Cli, queue: Queue) -> None:
    job, other = await queue.add("work", 1), await queue.add("work", 2, delay=60)
    done = cli("change-priority", "q", job.id, other.id, "--to", "high")
    assert done.out == f"reprioritized job {job.id}\nreprioritized job {other.id}\n"
    assert cli("update-data", "q", job.id, '{"n": 3}').out == f"updated job {job.id}\n"
    assert cli("update-data", "q", other.id, "4", "--json").record == {"id": other.id, "updated": True}
    found = [await queue.get_job(each.id) for each in (job, other)]
    assert [(each.priority, each.data) for each in found if each] == [(Priority.HIGH, {"n": 3}), (Priority.HIGH, 4)]
    assert "the data is no JSON" in cli("update-data", "q", job.id, "x", code=2).err


async def test_a_schedule_is_made_and_changed(cli: Cli, queue: Queue) -> None:
    words = ("schedules", "upsert", "q", "nightly", "report", '{"kind": 1}', "--cron", "30 2 * * *")
    made = cli(*words, "--tz", "Europe/Berlin", "--overlap", "skip", "--priority", "low", "--attempts", "2")
    assert made.out.startswith("schedule nightly: next at ")
    found = await queue.get_schedule("nightly")
    assert found is not None
    schedule = found.schedule
    assert (schedule.name, schedule.data, schedule.cron, schedule.tz) == (
        "report", {"kind": 1}, "30 2 * * *", "Europe/Berlin",
    )  # fmt: skip
    assert (schedule.overlap, schedule.options.lane, schedule.options.attempts) == ("skip", Priority.LOW, 2)
    await queue.pause_schedule("nightly")
    assert cli("schedules", "upsert", "q", "nightly", "report", "--every", "10m").out.endswith("(paused)\n")
    assert "--cron" in cli("schedules", "upsert", "q", "nightly", "report", code=2).err


async def test_the_last_page_of_a_name_does_not_promise_another_one(cli: Cli, queue: Queue) -> None:
    for n in range(6):
        await queue.add("a" if n < 3 else "b", n, delay=60)
    page = cli("jobs", "q", "-s", "delayed", "--name", "a", "-n", "2")
    assert "there may be more: --start" in page.err
    rest = cli("jobs", "q", "-s", "delayed", "--name", "a", "-n", "3")
    assert (rest.err, rest.out.count(" a ")) == ("", 3)


async def test_delayed_jobs_are_promoted_and_rescheduled(cli: Cli, queue: Queue) -> None:
    job = await queue.add("work", delay=3600)
    assert cli("reschedule", "q", job.id, "--at", "2100-01-01T00:00:00+00:00").out == f"rescheduled job {job.id}\n"
    snapshot = await job.snapshot()
    assert snapshot is not None
    assert snapshot.run_at == datetime.fromisoformat("2100-01-01T00:00:00+00:00")
    assert cli("promote", "q", job.id, "--json").record == {"id": job.id, "promoted": True}
    wrong = cli("promote", "q", job.id, "--json", code=1)
    assert wrong.record["promoted"] is False
    assert f"cannot promote job {job.id}: it is waiting" in wrong.err
    assert "one of the arguments --delay --at is required" in cli("reschedule", "q", job.id, code=2).err


DESTRUCTIVE = (
    ("remove", "q", "1"), ("clean", "q", "--state", "waiting"), ("drain", "q"), ("obliterate", "q"),
    ("purge", "q", "--all"), ("schedules", "remove", "q", "nightly"),
)  # fmt: skip


@pytest.mark.parametrize("command", DESTRUCTIVE, ids=lambda command: command[0])
async def test_what_destroys_is_refused_without_yes_where_nobody_can_be_asked(
    cli: Cli, queue: Queue, command: tuple[str, ...]
) -> None:
    await queue.add("work")
    await queue.upsert_schedule("nightly", Schedule(cron="0 2 * * *", name="work"))
    refused = cli(*command, code=2)
    assert "needs --yes" in refused.err
    assert refused.out == ""
    assert (await queue.stats()).waiting == 1
    assert await queue.get_schedule("nightly") is not None
    cli(*command, "--yes")
    remains = (await queue.stats()).waiting, await queue.get_schedule("nightly") is not None
    expected = {"obliterate": (0, False), "purge": (1, True), "schedules": (1, False)}.get(command[0], (0, True))
    assert remains == expected


async def test_on_a_terminal_one_is_asked_first(cli: Cli, queue: Queue) -> None:
    await queue.add_many([("work", None)] * 3)
    no = cli.on_terminal("drain", "q", until="[y/N]", answer="n\n")
    assert "Remove 3 waiting jobs of q?" in no.out
    assert "nothing was changed" in no.out
    assert no.code == 1
    assert (await queue.stats()).waiting == 3
    yes = cli.on_terminal("drain", "q", until="[y/N]", answer="y\n")
    assert "3 jobs removed" in yes.out
    assert yes.code == 0
    assert (await queue.stats()).waiting == 0


async def test_old_jobs_are_cleaned_and_younger_ones_stay(cli: Cli, queue: Queue) -> None:
    await queue.add_many([("work", None)] * 3)
    assert cli("clean", "q", "--state", "waiting", "--grace", "1h", "--yes").out == "removed 0 jobs\n"
    assert len(cli("clean", "q", "--state", "waiting", "--limit", "2", "--yes", "--json").records) == 2
    assert cli("clean", "q", "--state", "waiting", "--limit", "none", "--yes").out == "removed 1 job\n"
    assert "'active' is none of" in cli("clean", "q", "--state", "active", "--yes", code=2).err


@pytest.mark.usefixtures("worker")
async def test_dead_letters_are_listed_redriven_and_purged(cli: Cli, queue: Queue) -> None:
    jobs = [failed_job(cli, text) for text in ("a", "b", "c")]
    letters = cli("dead", "q", "--json").records
    assert [(letter["job_id"], letter["data"], letter["is_kept"]) for letter in letters] == [
        (job, data, True) for job, data in zip(jobs, "abc", strict=True)
    ]
    page = cli("dead", "q", "--count", "1", "--newest")
    assert "Unrecoverable: c" in page.out
    assert page.err == f"streamq: there may be more: --start {letters[2]['id']}\n"
    assert [letter["data"] for letter in cli("dead", "q", "-n", "1", "--all", "--json").records] == ["a", "b", "c"]
    cli("pause", "q")
    assert cli("redrive", "q", letters[0]["id"]).out == "1 job made to wait again\n"
    other = cli("redrive", "q", "--name", "fails", "--error", "Unrecoverable", "--to", "other", "--json").record
    assert (len(other["job_ids"]), other["stayed"]) == (2, 0)
    assert cli("stats", "other", "--json").record["waiting"] == 2
    assert cli("dead", "q").out == "no dead letters in q\n"
    assert cli("purge", "q", "--all", "--yes", "--json").record == {"queue": "q", "purged": 0}
    for wrong in ((), ("1-1", "--all"), ("--all", "--name", "x")):
        assert "say which dead letters" in cli("redrive", "q", *wrong, code=2).err


async def test_schedules_are_listed_and_operated(cli: Cli, queue: Queue) -> None:
    assert cli("schedules", "list", "q").out == "no schedules in q\n"
    await queue.upsert_schedule("nightly", cron="0 2 * * *", tz="Europe/Berlin", name="report", data={"a": 1})
    await queue.upsert_schedule("often", every=90, name="sync")
    table = cli("schedules", "list", "q").out.splitlines()
    assert sorted(line.split()[0] for line in table[1:]) == ["nightly", "often"]
    assert any("0 2 * * * (Europe/Berlin)" in line for line in table)
    assert any("every 1m 30s" in line for line in table)
    assert {record["id"] for record in cli("schedules", "list", "q", "--json").records} == {"nightly", "often"}
    assert cli("schedules", "pause", "q", "nightly").out == "schedule nightly: paused\n"
    record = cli("schedules", "get", "q", "nightly", "--json").record
    assert (record["paused"], record["next_at"], record["schedule"]["data"]) == (True, None, {"a": 1})
    shown = cli("schedules", "get", "q", "nightly").out
    assert "state         paused" in shown
    cli("schedules", "resume", "q", "nightly")
    job_id = cli("schedules", "trigger", "q", "nightly", "--json").record["job_id"]
    job = await queue.get_job(job_id)
    assert job is not None
    assert (job.name, job.data) == ("report", {"a": 1})
    assert cli("schedules", "remove", "q", "nightly", "--yes").out == "schedule nightly: removed\n"
    assert await queue.get_schedule("nightly") is None


def test_a_worker_is_told_as_gone_once_it_has_stopped(cli: Cli) -> None:
    with CliWorker(cli) as worker:
        assert len(eventually(lambda: cli("workers", "q", "--json").records)) == 1
        assert worker.stop() == 0
    assert eventually(lambda: cli("workers", "q", "--json").records == [])


async def test_jobs_are_cancelled_by_id_or_by_state_with_a_reason(cli: Cli, queue: Queue) -> None:
    jobs = await queue.add_many([("work", 1), ("work", 2), ("other", 3)])
    later = await queue.add("work", delay=3600)
    assert cli("cancel", "q", jobs[0].id, "--reason", "wrong month").out == f"cancelled job {jobs[0].id}\n"
    snapshot = await jobs[0].snapshot()
    assert snapshot is not None
    assert (snapshot.state, snapshot.cancel_reason) == ("cancelled", "wrong month")
    again = cli("cancel", "q", jobs[0].id, "nobody", later.id, "--json", code=1)
    assert [record["cancelled"] for record in again.records] == [False, False, True]
    assert f"cannot cancel job {jobs[0].id}: it is cancelled" in again.err
    assert "job nobody is unknown" in again.err
    assert "needs --yes" in cli("cancel", "q", "--state", "waiting", code=2).err
    picked = cli("cancel", "q", "--state", "waiting", "--name", "work", "--yes")
    assert picked.out == "cancelled 1 job\n"
    assert (await queue.stats()).waiting == 1
    which = "say which jobs: give their ids, or --state, and --name or --count to pick from those"
    for wrong in ((), (jobs[0].id, "--state", "waiting"), (jobs[0].id, "--name", "a"), ("--name", "a")):
        assert which in cli("cancel", "q", *wrong, code=2).err
    listed = cli("jobs", "q", "-s", "cancelled").out
    assert "REASON" in listed
    assert "wrong month" in listed
    assert "wrong month" in cli("job", "q", jobs[0].id).out
    stats = cli("stats", "q", "--json").record
    assert (stats["cancelled"], stats["total"]) == (3, 4)
    assert cli("retry", "q", jobs[0].id).out == f"retried job {jobs[0].id}\n"
    assert cli("clean", "q", "--state", "cancelled", "--yes").out == "removed 2 jobs\n"


# Webhooks -------------------------------------------------------------------------------------------------------------


async def test_failed_deliveries_of_webhooks_are_listed_and_delivered_again(cli: Cli, queue: Queue) -> None:
    url = "https://example.com/hook"
    added = [cli("add", "q", "work", str(n), "--webhook", url, "--json").record["id"] for n in range(2)]
    cli("schedules", "upsert", "q", "hourly", "work", "--every", "1h", "--webhook", url)
    schedule = await queue.get_schedule("hourly")
    assert schedule is not None
    assert schedule.schedule.options is not None
    assert schedule.schedule.options.webhook == url
    assert cli("webhooks", "q").out == "no failed deliveries in q\n"

    processors = Processors()
    processors.register("work")(lambda job: job.data)
    heard: list[str] = []
    answers = ["no", "no"]

    def deliver(job: ActiveJob[Any]) -> None:
        if answers:
            raise Unrecoverable(answers.pop())
        heard.append(job.data["url"])

    processors.register("streamq-webhook")(deliver)
    await drain(queue, processors)
    found = cli("webhooks", "q", "--json").records
    assert [(one["job_id"], one["ended"], one["url"]) for one in found] == [(job, "completed", url) for job in added]
    assert found[0]["error"]["message"] == "no"
    table = cli("webhooks", "q", "--newest", "--count", "1")
    assert re.search(rf"{re.escape(found[1]['id'])} +{added[1]} +completed +{url} +1 .* Unrecoverable: no", table.out)
    assert "there may be more: --start" in table.err

    assert cli("webhooks", "q", "--retry", found[0]["id"]).out == "1 delivery made to wait again\n"
    await queue.remove(found[1]["id"])  # its dead letter goes with it
    refused = cli("webhooks", "q", "--retry", added[0], found[1]["id"], "--json", code=1)
    assert refused.record == {"queue": "q", "job_ids": [], "stayed": 2}
    assert [one["id"] for one in cli("webhooks", "q", "--state", "waiting", "--json").records] == [found[0]["id"]]
    await drain(queue, processors)
    assert heard == [url]
    assert [one["state"] for one in cli("webhooks", "q", "--state", "completed", "--json").records] == ["completed"]


async def test_all_failed_deliveries_are_delivered_again_and_other_failed_jobs_are_not(cli: Cli, queue: Queue) -> None:
    processors = Processors()
    answers = ["no"] * 3

    def fail(job: ActiveJob[Any]) -> None:
        if job.name == "work" or answers:
            raise Unrecoverable(answers.pop() if job.name != "work" else "bad")

    processors.register("work")(fail)
    processors.register("streamq-webhook")(fail)
    for n in range(3):
        await queue.add("work", n, webhook="https://example.com/hook")
    await drain(queue, processors)
    await queue.clean(0, 4, JobState.FAILED)  # the jobs, and one delivery, of which only the dead letter is left
    other = await queue.add("work", 3)
    await drain(queue, processors)
    assert (await queue.stats()).dead == 7
    left = [job for job in await queue.jobs(JobState.FAILED) if job.name == "streamq-webhook"]
    assert len(left) == 2
    done = cli("webhooks", "q", "--retry", "--json").record
    assert len(done["job_ids"]) == 3
    assert {job.id for job in left} <= set(done["job_ids"])
    await drain(queue, processors)
    delivered = await queue.jobs(JobState.COMPLETED)
    assert [job.name for job in delivered] == ["streamq-webhook"] * 3
    assert {job.id for job in delivered} == set(done["job_ids"])
    assert cli("webhooks", "q", "--retry").out == "0 deliveries made to wait again\n"
    assert [job.id for job in await queue.jobs(JobState.FAILED)] == [other.id]
    assert [letter.name for letter in await queue.dead_letters()] == ["work"] * 4


def test_what_is_no_webhook_is_refused(cli: Cli) -> None:
    assert "webhook must be an http(s) URL" in cli("add", "q", "work", "--webhook", "ftp://x", code=2).err

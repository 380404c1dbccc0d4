"""What operators do on the pages, what they are asked before, and what is written down of it."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from typing import Any
from urllib.parse import quote

import pytest

from streamq import FlowJob, JobState, Queue, RateLimit, Unrecoverable
from streamq.dashboard import Access, Role
from streamq.fairness import KeyLimits
from tests.integration.conftest import PATIENCE, Bench
from tests.integration.dashboard.conftest import Answer, Browser


async def run(job: Any) -> None:
    if job.name == "fails":
        raise Unrecoverable("no")


async def failed(queue: Queue, bench: Bench, count: int) -> list[str]:
    """Let so many jobs fail; returns their ids."""
    jobs = await queue.add_many([("fails", None)] * count)
    async with bench.worker(run):
        for job in jobs:
            await bench.happened("dead", job.id)
    return [job.id for job in jobs]


async def confirmed(browser: Browser, path: str, form: Any = ()) -> Answer:
    """Send a form that asks back, and say yes."""
    pairs = list(form.items() if isinstance(form, dict) else form)
    asked = await browser.post(path, pairs)
    assert asked.path.startswith("/do/")
    assert "Back" in asked.words
    return await browser.post(path, [*pairs, ("confirmed", "yes")])


async def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(r.getMessage()) for r in caplog.records if r.name == "streamq.audit"]


@pytest.fixture(autouse=True)
def audited(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "streamq.audit")


async def test_a_queue_is_paused_and_resumed(browser: Browser, queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    await browser.get("/queue?q=q")
    done = await browser.post("/do/pause?q=q", {"back": "/queue?q=q"})
    assert (done.status, done.path) == (200, "/queue?q=q")
    assert "q is paused" in done.text
    assert (await queue.stats()).paused
    done = await browser.post("/do/resume?q=q", {"back": "/queue?q=q"})
    assert "q goes on" in done.text
    assert not (await queue.stats()).paused
    assert "q goes on" not in (await browser.get("/queue?q=q")).text
    told = [(line["who"], line["action"], line["queue"]) for line in await lines(caplog)]
    assert told == [("local", "pause", "q"), ("local", "resume", "q")]


async def test_one_failed_job_is_retried_at_once_and_many_are_asked_for(
    browser: Browser, queue: Queue, bench: Bench
) -> None:
    one, *more = await failed(queue, bench, 4)
    await browser.get("/")
    done = await browser.post(f"/do/retry?q=q&id={one}", {"back": "/jobs?q=q&state=failed"})
    assert "1 job retried" in done.text
    ids = [("id", job_id) for job_id in more]
    asked = await browser.post("/do/retry?q=q", ids)
    assert "Retry these jobs?" in asked.words
    assert (await queue.stats()).failed == 3
    done = await browser.post("/do/retry?q=q", [*ids, ("confirmed", "yes")])
    assert "3 jobs retried" in done.text
    assert (await queue.stats()).waiting == 4


async def test_what_can_t_be_done_to_a_job_is_told_with_the_reason(browser: Browser, queue: Queue) -> None:
    job = await queue.add("waits")
    await browser.get("/")
    done = await browser.post(f"/do/retry?q=q&id={job.id}")
    assert "0 jobs retried; 1 not: cannot retry job" in done.words + done.text
    done = await browser.post("/do/promote?q=q&id=nobody")
    assert "job nobody is unknown" in done.text
    done = await browser.post("/do/retry?q=q")
    assert "Nothing was picked." in done.text


async def test_removing_a_job_is_always_asked_for(browser: Browser, queue: Queue) -> None:
    job_id = "../<b>&?#\"'"
    await queue.add("waits", job_id=job_id)
    address = f"/job?q=q&id={quote(job_id, safe='')}"
    await browser.get(address)
    done = await confirmed(browser, f"/do/remove?q=q&id={quote(job_id, safe='')}", {"back": address})
    assert done.path == "/queue?q=q"
    assert "1 job removed" in done.text
    assert await queue.get_job(job_id) is None


async def test_delayed_jobs_are_promoted(browser: Browser, queue: Queue) -> None:
    ids = [(await queue.add("later", delay=600)).id for _ in range(3)]
    await browser.get("/")
    assert "1 job promoted" in (await browser.post(f"/do/promote?q=q&id={ids[0]}")).text
    done = await confirmed(browser, "/do/promote?q=q", [("id", ids[1]), ("id", ids[2]), ("id", "nobody")])
    assert "2 jobs promoted; 1 not" in done.text
    assert (await queue.stats()).waiting == 3


async def test_all_failed_jobs_of_a_name_are_retried(browser: Browser, queue: Queue, bench: Bench) -> None:
    await failed(queue, bench, 3)
    await browser.get("/")
    done = await confirmed(browser, "/do/retry-all?q=q", {"name": "other", "error": ""})
    assert "0 failed jobs retried" in done.text
    done = await confirmed(browser, "/do/retry-all?q=q", {"name": "fails", "error": "Unrecoverable"})
    assert "3 failed jobs retried" in done.text


async def test_old_jobs_are_cleaned(browser: Browser, queue: Queue, bench: Bench) -> None:
    await failed(queue, bench, 3)
    await queue.add("later", delay=60)
    await browser.get("/")
    form = {"state": "failed", "hours": "1"}
    assert "0 failed jobs removed" in (await confirmed(browser, "/do/clean?q=q", form)).text
    assert "3 failed jobs removed" in (await confirmed(browser, "/do/clean?q=q", {**form, "hours": "0"})).text
    refused = await confirmed(browser, "/do/clean?q=q", {"state": "active", "hours": "0"})
    assert "can't clean" in refused.text.replace("&#39;", "'")
    assert (await queue.stats()).delayed == 1


async def test_dead_letters_are_redriven_and_deleted(browser: Browser, queue: Queue, bench: Bench) -> None:
    await failed(queue, bench, 6)
    letters = [letter.id for letter in await queue.dead_letters()]
    await browser.get("/dead?q=q")
    back = {"back": "/dead?q=q"}
    assert "1 dead letter became a job again" in (await browser.post(f"/do/redrive?q=q&id={letters[0]}", back)).text
    picked = [("id", letters[1]), ("id", letters[2])]
    assert "2 dead letters became jobs again" in (await confirmed(browser, "/do/redrive?q=q", picked)).text
    assert "1 dead letter deleted" in (await confirmed(browser, f"/do/purge?q=q&id={letters[3]}")).text
    assert (
        "1 dead letter became a job"
        in (await confirmed(browser, "/do/redrive?q=q", [("id", letters[4]), ("id", letters[0])])).text
    )
    assert "1 dead letter deleted" in (await confirmed(browser, "/do/purge-all?q=q")).text
    await failed(queue, bench, 2)
    assert "dead letters became jobs again" in (await confirmed(browser, "/do/redrive-all?q=q")).text
    assert await queue.dead_letters() == []


async def test_schedules_are_triggered_paused_resumed_and_removed(browser: Browser, queue: Queue) -> None:
    await queue.upsert_schedule("nightly", cron="0 2 * * *", name="close")
    await browser.get("/schedules")
    back = {"back": "/schedules"}
    assert "1 schedule triggered" in (await browser.post("/do/trigger?q=q&id=nightly", back)).text
    assert [job.name for job in await queue.jobs(JobState.WAITING)] == ["close"]
    assert "1 schedule paused" in (await browser.post("/do/pause-schedule?q=q&id=nightly", back)).text
    assert "1 schedule resumed" in (await browser.post("/do/resume-schedule?q=q&id=nightly", back)).text
    assert "1 schedule removed" in (await confirmed(browser, "/do/remove-schedule?q=q&id=nightly", back)).text
    assert await queue.schedules() == []
    assert "0 schedules triggered; 1 not" in (await browser.post("/do/trigger?q=q&id=nightly", back)).text


@pytest.mark.parametrize("back", ["//evil.example/", "https://evil.example/", "/\\evil.example", "javascript:alert(1)"])
async def test_a_form_can_t_send_anybody_elsewhere(browser: Browser, back: str) -> None:
    await browser.get("/")
    done = await browser.post("/do/pause?q=q", {"back": back}, allow_redirects=False)
    assert done.headers["location"] == "/queue?q=q"


async def test_a_form_without_this_session_s_token_does_nothing(
    browser: Browser, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    await browser.get("/")
    for csrf in ("", "x", browser.csrf + "x"):
        browser.csrf = csrf
        assert (await browser.post("/do/pause?q=q")).status == 403
        await browser.get("/")
    assert not (await queue.stats()).paused
    assert [line["outcome"][:7] for line in await lines(caplog)] == ["refused"] * 3


@pytest.mark.parametrize("header", [{"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"},
                                    {"origin": "https://evil.example"}, {"origin": "null"}])  # fmt: skip
async def test_what_another_site_sends_is_refused(browser: Browser, queue: Queue, header: dict[str, str]) -> None:
    await browser.get("/")
    assert (await browser.post("/do/pause?q=q", headers=header)).status == 403
    assert not (await queue.stats()).paused


async def test_whoever_may_only_look_finds_no_button_and_gets_nothing_done(
    dashboard: Any, queue: Queue, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    browser = await dashboard(Access(read_only=True))
    await failed(queue, bench, 1)
    await queue.upsert_schedule("s", every=60, name="n")
    for path in ("/", "/queue?q=q", "/jobs?q=q&state=failed", "/dead?q=q", "/schedules"):
        found = await browser.get(path)
        assert "/do/" not in found.text
        assert "read-only" in found.text
        async with browser.watch(path) as following:
            assert "/do/" not in (await following())[1]
    token = (await browser.session.get(browser.url + "/")).cookies
    assert token is not None
    done = await browser.post("/do/pause?q=q")
    assert done.status == 403
    assert not (await queue.stats()).paused
    assert (await lines(caplog))[-1]["outcome"].startswith("refused")


async def test_an_audit_line_is_one_line_whatever_the_id(browser: Browser, caplog: pytest.LogCaptureFixture) -> None:
    await browser.get("/")
    forged = 'x\n{"who": "admin", "action": "pause"}\r\u2028'
    await browser.post(f"/do/retry?q=q&id={quote(forged, safe='')}")
    [record] = [r for r in caplog.records if r.name == "streamq.audit"]
    assert len(record.getMessage().splitlines()) == 1
    line = json.loads(record.getMessage())
    assert (line["who"], line["action"], line["ids"]) == ("local", "retry", [forged])


async def test_too_much_is_refused(browser: Browser) -> None:
    await browser.get("/")
    assert (await browser.post("/do/retry?q=q", [("id", "x" * 300_000)])).status == 413
    assert (await browser.post("/do/retry?q=q", [("id", str(n)) for n in range(2_000)])).status == 413

    async def endless() -> Any:
        yield b"csrf="

    async with browser.session.post(browser.url + "/do/pause?q=q", data=endless()) as found:
        assert found.status == 411


async def test_unknown_actions_and_queues_are_said_to_be_so(browser: Browser) -> None:
    await browser.get("/")
    assert (await browser.post("/do/obliterate?q=q")).status == 404
    assert (await browser.post("/do/pause?q=nobody")).status == 404
    assert (await browser.get("/do/pause?q=q")).status == 405


async def test_jobs_are_cancelled_after_being_asked_with_a_reason(
    browser: Browser, queue: Queue, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    started, interrupted = asyncio.Event(), asyncio.Event()

    async def forever(job: Any) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            interrupted.set()
            raise

    async with bench.worker(forever, concurrency=1):
        running = await queue.add("works")
        await started.wait()
        waiting = await queue.add("works")
        page = await browser.get("/jobs?q=q&state=active")
        assert f"Cancel… {running.id}" in page.text
        asked = await browser.post("/do/cancel?q=q", [("id", running.id), ("id", waiting.id)])
        assert "interrupt those that run?" in asked.words
        assert "Reason" in asked.words
        assert (await queue.stats()).cancelled == 0
        both = [("id", running.id), ("id", waiting.id), ("id", "nobody"), ("reason", "by <hand>"), ("confirmed", "yes")]
        done = await browser.post("/do/cancel?q=q", both)
        assert "2 jobs cancelled; 1 not: job nobody has ended, or is unknown" in done.text
        await asyncio.wait_for(interrupted.wait(), PATIENCE)
        await bench.happened("cancelled", running.id)
    page = await browser.get("/jobs?q=q&state=cancelled")
    assert "by &lt;hand&gt;" in page.text
    assert "by <hand>" in (await browser.get(f"/job?q=q&id={running.id}")).words
    told = [line for line in await lines(caplog) if line["action"] == "cancel"]
    assert (told[-1]["count"], told[-1]["filter"]) == (3, "reason=by <hand>")
    await browser.post(f"/do/retry?q=q&id={waiting.id}")
    assert (await queue.stats()).waiting == 1


async def test_all_jobs_of_a_state_and_name_are_cancelled(browser: Browser, queue: Queue) -> None:
    await queue.add_many([("a", None), ("a", None), ("b", None)])
    await browser.get("/queue?q=q")
    done = await confirmed(browser, "/do/cancel-all?q=q", {"state": "waiting", "name": "a"})
    assert "2 waiting jobs cancelled" in done.text
    assert (await queue.stats()).waiting == 1
    wrong = await confirmed(browser, "/do/cancel-all?q=q", {"state": "failed"})
    assert "say which state: active, delayed, waiting" in wrong.text


async def test_keys_are_paused_and_resumed_one_or_those_that_are_picked(browser: Browser, queue: Queue) -> None:
    for key in ("a&b", "tenant 2"):
        await queue.add("work", key=key)
    await browser.get("/keys?q=q")
    assert "1 key paused" in (await browser.post("/do/pause-key?q=q&id=a%26b", {"back": "/keys?q=q"})).text
    assert [(found.key, found.paused) for found in await queue.keys()] == [("tenant 2", False), ("a&b", True)]
    both = [("id", "a&b"), ("id", "tenant 2"), ("back", "/keys?q=q")]
    assert "2 keys paused" in (await browser.post("/do/pause-key?q=q", both)).text
    assert all(found.paused for found in await queue.keys())
    assert "2 keys resumed" in (await browser.post("/do/resume-key?q=q", both)).text
    assert not any(found.paused for found in await queue.keys())


async def test_a_key_s_limits_are_set_and_lifted_and_what_is_not_sent_stays(
    browser: Browser, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    await browser.get("/key?q=q&key=a")
    form = {"rate": "10/1m", "concurrency": "1", "weight": "3", "back": "/key?q=q&key=a"}
    done = await browser.post("/do/limit-key?q=q&id=a", form)
    assert done.path == "/key?q=q&key=a"
    assert "the limits of 1 key are set" in done.text
    assert (await queue.get_key("a")).limits == KeyLimits(rate=RateLimit(10, per=60), concurrency=1, weight=3)
    assert 'name="rate" value="10/60s"' in done.text
    await browser.post("/do/limit-key?q=q&id=a", {"concurrency": ""})
    assert (await queue.get_key("a")).limits == KeyLimits(rate=RateLimit(10, per=60), concurrency=None, weight=3)
    told = [line.get("filter") for line in await lines(caplog)]
    assert told == ["rate=10/1m, concurrency=1, weight=3", None]


async def test_the_limits_of_all_keys_are_set_after_being_asked(browser: Browser, queue: Queue) -> None:
    await queue.limit_key(concurrency=9, weight=2)
    await browser.get("/keys?q=q")
    done = await confirmed(browser, "/do/limit-keys?q=q", {"rate": "0.5/s", "concurrency": "", "weight": "2"})
    assert "is no rate" in done.words + done.text
    assert (await queue.keys()).limits.concurrency == 9
    asked = await browser.post("/do/limit-keys?q=q", {"rate": "5/2s", "concurrency": "", "weight": "2"})
    hidden = dict(re.findall(r'type="hidden" name="(rate|concurrency|weight)" value="([^"]*)"', asked.text))
    assert hidden == {"rate": "5/2s", "concurrency": "", "weight": "2"}
    assert (await queue.keys()).limits.rate is None
    done = await browser.post("/do/limit-keys?q=q", {**hidden, "confirmed": "yes", "back": "/keys?q=q"})
    assert "the limits of all keys are set" in done.text
    assert (await queue.keys()).limits == KeyLimits(rate=RateLimit(5, per=2), concurrency=None, weight=2)


@pytest.mark.parametrize(
    ("form", "why"),
    [
        ({"rate": "fast"}, "is no rate"),
        ({"concurrency": "0"}, "is no whole number"),
        ({"weight": "5000"}, "weight must"),
    ],
)
async def test_limits_that_make_no_sense_change_nothing_and_are_told(
    browser: Browser, queue: Queue, form: dict[str, str], why: str
) -> None:
    await browser.get("/key?q=q&key=a")
    assert why in (await browser.post("/do/limit-key?q=q&id=a", {**form, "back": "/key?q=q&key=a"})).text
    assert (await queue.keys()).total == 0


async def test_whoever_may_only_look_or_has_no_token_of_the_form_sets_no_limit(dashboard: Any, queue: Queue) -> None:
    await queue.add("work", key="a")
    viewer = await dashboard(Access(tokens={"v" * 20: Role.VIEWER}))
    headers = {"authorization": f"Bearer {'v' * 20}"}
    for path in ("/keys?q=q", "/key?q=q&key=a"):
        seen = await viewer.get(path, headers=headers)
        assert seen.status == 200
        assert "/do/" not in seen.text
    local = await dashboard()
    for action in ("pause-key?q=q&id=a", "limit-key?q=q&id=a", "limit-keys?q=q"):
        assert (await viewer.post(f"/do/{action}", {"concurrency": "1"}, headers=headers)).status == 403
        local.csrf = "of another session"
        assert (await local.post(f"/do/{action}", {"concurrency": "1", "confirmed": "yes"})).status == 403
    found = await queue.get_key("a")
    assert (found.paused, found.limits.concurrency) == (False, None)
    assert (await queue.keys()).limits.concurrency is None


async def test_a_flow_is_cancelled_and_retried_after_being_asked(browser: Browser, queue: Queue) -> None:
    low = [FlowJob("low", job_id=f"low-{n}") for n in range(2)]
    await queue.add_flow(FlowJob("top", job_id="top", children=low))
    await browser.get("/flow?q=q&id=top")
    back = "/flow?q=q&id=top"
    done = await confirmed(browser, "/do/cancel-flow?q=q&id=top", {"back": back, "reason": "wrong month"})
    assert done.path == back
    assert "3 jobs of the flow cancelled, or asked to end" in done.text
    top = await queue.get_job("top")
    assert top is not None
    assert (top.state, top.cancel_reason) == (JobState.CANCELLED, "wrong month")
    done = await confirmed(browser, "/do/retry-flow?q=q&id=top", {"back": back})
    assert "3 jobs of the flow retried" in done.text
    assert (await queue.stats()).waiting_children == 1
    gone = await confirmed(browser, "/do/retry-flow?q=q&id=nobody", {"back": back})
    assert "job nobody is unknown" in gone.text

"""Webhooks on a job's end: a real HTTP server that is told once, whatever ends the job and whatever it answers."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from streamq import ActiveJob, Backoff, InvalidInput, JobOptions, JobState, Processors, Queue, Retention, Settings
from streamq.payload import Compression
from streamq.processors.integrations_signature import BadSignature, verify
from streamq.testing import drain, time_travel
from streamq.webhooks import Webhooks

SECRET = "a secret of the tests"  # noqa: S105


class Receiver:
    """An HTTP server that answers as it is told and keeps what it hears."""

    def __init__(self) -> None:
        self.answers: list[web.Response] = []
        self.heard: list[tuple[dict[str, str], bytes]] = []

    async def take(self, request: web.Request) -> web.Response:
        self.heard.append((dict(request.headers), await request.read()))
        return self.answers.pop(0) if self.answers else web.Response(status=204)

    @property
    def told(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.heard]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/{path}", receiver.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    receiver.host, receiver.url = f"{host}:{port}", f"http://{host}:{port}/hook"  # type: ignore[attr-defined]
    receiver.runner = runner  # type: ignore[attr-defined]
    yield receiver
    await runner.cleanup()


@pytest.fixture
def processors(receiver: Any, settings: Settings) -> Processors:
    """One processor that does as its data say, and the webhooks'."""
    found = Processors()

    @found.register("work", attempts=1)
    async def work(job: ActiveJob[Any]) -> Any:
        if job.data == "bad":
            raise ValueError("no luck")
        return job.data

    hooks = Webhooks(
        SECRET, hosts=[receiver.host], insecure=True, settings=settings, attempts=4, backoff=Backoff.fixed(60)
    )
    found.update(hooks.processors)
    return found


async def test_the_end_of_a_job_is_told_signed_and_with_its_result(
    queue: Queue, receiver: Any, processors: Processors
) -> None:
    job = await queue.add("work", {"n": 2**70}, webhook=receiver.url)
    assert (await drain(queue, processors)).done == 2
    [(headers, body)] = receiver.heard
    told = json.loads(body)
    assert told["job"].pop("finished_at").endswith("+00:00")
    assert told == {
        "type": "job.completed", "queue": "q",
        "job": {"id": job.id, "state": "completed", "name": "work", "attempts": 1, "result": {"n": 2**70}},
    }  # fmt: skip
    assert headers["Content-Type"] == "application/json"
    assert verify(SECRET, headers, body, now=time.time()).endswith(f":completed:{job.id}")
    with pytest.raises(BadSignature):
        verify(SECRET, headers, body + b" ", now=time.time())


async def test_a_failure_and_a_cancellation_are_told_and_a_removal_is_not(
    queue: Queue, receiver: Any, processors: Processors
) -> None:
    failing = await queue.add("work", "bad", webhook=receiver.url)
    await drain(queue, processors)
    cancelled = await queue.add("work", 1, webhook=receiver.url, delay=60)
    assert await cancelled.cancel("changed my mind")
    removed = await queue.add("work", 1, webhook=receiver.url)
    await queue.remove(removed.id)
    await queue.add("work", 1)
    await drain(queue, processors)
    first, second = receiver.told
    assert (first["type"], first["job"]["id"]) == ("job.failed", failing.id)
    assert first["job"]["error"] == {"type": "ValueError", "message": "no luck"}
    assert (second["type"], second["job"]["id"]) == ("job.cancelled", cancelled.id)


async def test_a_receiver_that_fails_is_told_again_until_it_takes_it(
    queue: Queue, receiver: Any, processors: Processors
) -> None:
    receiver.answers = [
        web.Response(status=500), web.Response(status=302, headers={"location": receiver.url}),
        web.Response(status=503, headers={"retry-after": "7"}),
    ]  # fmt: skip
    job = await queue.add("work", 1, webhook=receiver.url)
    with time_travel() as clock:
        assert (await drain(queue, processors)).retried == 1
        clock.advance(60)
        assert (await drain(queue, processors)).retried == 1
        clock.advance(60)
        assert (await drain(queue, processors)).retried == 1
        clock.advance(7)
        assert (await drain(queue, processors)).done == 1
    assert [told["job"]["id"] for told in receiver.told] == [job.id] * 4
    assert len({headers["webhook-id"] for headers, _ in receiver.heard}) == 1  # by this a receiver knows it again


async def test_a_receiver_that_is_gone_or_keeps_failing_is_given_up(
    queue: Queue, receiver: Any, processors: Processors
) -> None:
    receiver.answers = [web.Response(status=410), *(web.Response(status=500) for _ in range(4))]
    await queue.add("work", 1, webhook=receiver.url)
    assert (await drain(queue, processors)).failed == 1
    await queue.add("work", 2, webhook=receiver.url)
    with time_travel() as clock:
        for _ in range(4):
            await drain(queue, processors)
            clock.advance(60)
    assert len(receiver.heard) == 5
    letters = await queue.dead_letters()
    assert [letter.name for letter in letters] == ["streamq-webhook"] * 2
    assert sorted(str(letter.error) for letter in letters) == [
        "NotTaken: 127.0.0.1 answered 500",
        "Unrecoverable: 127.0.0.1 wants no more: it answered 410",
    ]
    assert (await queue.stats()).completed == 2  # the jobs themselves have completed all the same


async def test_a_receiver_that_does_not_answer_is_told_again(
    queue: Queue, receiver: Any, processors: Processors
) -> None:
    await receiver.runner.cleanup()
    await queue.add("work", 1, webhook=receiver.url)
    assert (await drain(queue, processors)).retried == 1
    [job] = await queue.jobs(JobState.DELAYED)
    assert str(job.error) == "NotTaken: 127.0.0.1 did not answer: ConnectError"


async def test_a_job_that_only_looks_like_a_telling_fails(queue: Queue, receiver: Any, processors: Processors) -> None:
    await queue.add("streamq-webhook", {"url": receiver.url}, job_id="mine")
    assert (await drain(queue, processors)).failed == 1
    [letter] = await queue.dead_letters()
    assert str(letter.error) == "Unrecoverable: job mine tells of no job's end"
    assert receiver.heard == []


async def test_a_sealed_result_is_told_by_who_has_the_codec(receiver: Any, settings: Settings) -> None:
    codec = Compression(least=0)
    async with Queue("q", settings=settings, codec=codec) as queue:
        for known, result in ((codec, "x" * 200), (None, None)):
            found = Processors(codec=codec)
            found.register("work")(lambda job: "x" * 200)
            hooks = Webhooks(SECRET, hosts=[receiver.host], insecure=True, settings=settings, codec=known)
            found.update(hooks.processors)
            await queue.add("work", webhook=receiver.url)
            await drain(queue, found)
            assert receiver.told[-1]["job"]["result"] == result


async def test_a_job_of_which_nothing_is_kept_is_told_too(queue: Queue, receiver: Any, processors: Processors) -> None:
    job = await queue.add("work", 1, webhook=receiver.url, keep_completed=Retention(count=0))
    await drain(queue, processors)
    [told] = receiver.told
    assert told["job"] == {"id": job.id, "state": "completed"}


async def test_a_job_that_expires_is_told_of_too(queue: Queue, receiver: Any, processors: Processors) -> None:
    await queue.add("work", 1, webhook=receiver.url, expires_in=5)
    with time_travel() as clock:
        clock.advance(10)
        await drain(queue, processors)
    assert receiver.told[0]["job"]["error"]["type"] == "JobExpired"


async def test_each_ending_of_a_job_is_told(queue: Queue, receiver: Any, processors: Processors) -> None:
    job = await queue.add("work", "bad", webhook=receiver.url)
    await drain(queue, processors)
    await queue.update_data(job.id, 5)
    await queue.retry(job.id)
    await drain(queue, processors)
    assert [told["type"] for told in receiver.told] == ["job.failed", "job.completed"]


async def test_jobs_of_a_queue_may_have_one_by_default(
    receiver: Any, processors: Processors, settings: Settings
) -> None:
    async with Queue("q", settings=settings, defaults=JobOptions(webhook=receiver.url)) as queue:
        await queue.add_many([("work", n) for n in range(3)])
        await drain(queue, processors)
    assert [told["type"] for told in receiver.told] == ["job.completed"] * 3


async def test_a_host_that_is_not_listed_is_never_asked(queue: Queue, receiver: Any, settings: Settings) -> None:
    found = Processors()
    found.register("work")(lambda job: None)
    found.update(Webhooks(SECRET, hosts=["example.com"], insecure=True, settings=settings).processors)
    await queue.add("work", webhook=receiver.url)
    assert (await drain(queue, found)).failed == 1
    [letter] = await queue.dead_letters()
    assert "the webhook's host is not in the list: 127.0.0.1" in str(letter.error)
    assert receiver.heard == []
    [job] = await queue.jobs(JobState.COMPLETED)
    assert job.name == "work"


@pytest.mark.parametrize(
    ("url", "may"),
    [
        ("https://example.com/hook", True),
        ("https://EXAMPLE.com.:443/hook", True),
        ("https://example.com:8443/hook", False),
        ("https://other.org:8443/", True),
        ("https://other.org/", False),
        ("https://a.b.example.net/", True),
        ("https://example.net/", False),
        ("https://badexample.net/", False),
        ("http://example.com/hook", False),
        ("https://example.com.evil.org/", False),
        ("https://evil.org/?example.com", False),
        ("https://169.254.169.254/latest", False),
        ("https://localhost/", False),
        ("https://[::1]/", False),
        ("file:///etc/passwd", False),
        ("https://example.com:bad/", False),
    ],
)
def test_what_is_listed_may_be_told(url: str, may: bool) -> None:
    assert Webhooks(SECRET, hosts=["Example.com", "*.example.net", "other.org:8443"]).may_tell(url) is may


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("ftp://example.com", "webhook must be an http"),
        ("https://", "webhook must be an http"),
        ("https://user:secret@example.com/", r"not 'example\.com/'"),
        ("https://example.com/\nx", "webhook must be an http"),
        (5, "webhook must be a URL of up to 2,000 characters, not 5"),
        ("https://example.com/" + "x" * 2_000, "webhook must be a URL of up to 2,000 characters"),
    ],
)
async def test_what_is_no_webhook_is_refused_when_it_is_added(queue: Queue, url: Any, text: str) -> None:
    with pytest.raises(InvalidInput, match=text) as told:
        await queue.add("work", webhook=url)
    assert "secret" not in str(told.value)
    with pytest.raises(InvalidInput, match="with a webhook, job_id may take 200 bytes, not 201"):
        await queue.add("work", webhook="https://example.com", job_id="x" * 201)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(InvalidInput, match="a webhook secret must not be empty"):
        Webhooks("", hosts=["example.com"])
    with pytest.raises(InvalidInput, match="hosts must be names such as"):
        Webhooks(SECRET, hosts=["https://example.com/"])
    with pytest.raises(InvalidInput, match="hosts must be names such as"):
        Webhooks(SECRET, hosts=["*"])

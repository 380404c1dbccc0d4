"""`send-notification` against a real HTTP server: what is retried and when, what is not, and under which key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, ClassVar

import pytest
from aiohttp import web

from streamq import Backoff, Queue, QueueName, RetryAfter, Unrecoverable, Worker
from streamq.processors.integrations_http import ServiceUnavailable
from streamq.processors.notifications import processors
from streamq.processors.notifications_provider import Notice, Receipt

PUSH = {"channel": "push", "recipient": "device-1", "title": "Payment", "body": "EUR 5.00", "data": {"tx": "T-1"}}
SMS = {"channel": "sms", "recipient": "+4915112345678", "body": "Your code is 123456"}


class Carrier:
    """The provider's server: keeps what it gets and answers what it is told to."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], Any]] = []
        self.answers: list[Callable[[web.Request], Awaitable[web.StreamResponse]]] = []

    def answer(self, status: int, body: str = "", **headers: str) -> None:
        async def respond(request: web.Request) -> web.StreamResponse:
            return web.Response(status=status, text=body, headers=headers)

        self.answers.append(respond)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.got.append((dict(request.headers), await request.json()))
        if self.answers:
            return await self.answers.pop(0)(request)
        return web.json_response({"id": f"msg-{len(self.got)}"})


@pytest.fixture
async def carrier(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Carrier]:
    carrier = Carrier()
    app = web.Application()
    app.router.add_post("/send", carrier.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0]
    for channel in ("PUSH", "SMS"):
        monkeypatch.setenv(f"STREAMQ_{channel}_URL", f"http://{host}:{port}/send?app=bank")
        monkeypatch.setenv(f"STREAMQ_{channel}_TOKEN", f"{channel}-token")
    yield carrier
    await runner.cleanup()


async def test_a_push_message_is_carried_with_its_key_and_token(carrier, run_job):
    result = await run_job(processors, "send-notification", PUSH)
    assert result.message_id == "msg-1"
    ((headers, body),) = carrier.got
    assert headers["Authorization"] == "Bearer PUSH-token"
    assert headers["Idempotency-Key"] == result.idempotency_key
    assert body == PUSH


async def test_an_sms_is_carried_without_the_fields_it_lacks(carrier, run_job):
    await run_job(processors, "send-notification", SMS)
    ((headers, body),) = carrier.got
    assert headers["Authorization"] == "Bearer SMS-token"
    assert body == SMS


async def test_every_attempt_goes_under_the_same_key_and_another_job_under_another(carrier, run_job):
    carrier.answer(500, "oops")
    with pytest.raises(ServiceUnavailable, match="answered 500: oops"):
        await run_job(processors, "send-notification", PUSH, job_id="1", attempt=1)
    await run_job(processors, "send-notification", PUSH, job_id="1", attempt=2)
    await run_job(processors, "send-notification", PUSH, job_id="2")
    keys = [headers["Idempotency-Key"] for headers, _ in carrier.got]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize("status", [429, 503, 500])
async def test_retry_after_is_honoured(carrier, run_job, status):
    carrier.answer(status, **{"Retry-After": "17"})
    with pytest.raises(RetryAfter) as caught:
        await run_job(processors, "send-notification", PUSH)
    assert caught.value.seconds == 17
    assert f"answered {status}" in str(caught.value)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_a_passing_trouble_is_retried(carrier, run_job, status):
    carrier.answer(status)
    with pytest.raises(ServiceUnavailable, match=f"/send answered {status}"):
        await run_job(processors, "send-notification", PUSH)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 422])
async def test_a_refusal_is_permanent_even_with_a_retry_after(carrier, run_job, status):
    carrier.answer(status, "no such device", **{"Retry-After": "5"})
    with pytest.raises(Unrecoverable, match=f"answered {status}: no such device"):
        await run_job(processors, "send-notification", PUSH)


async def test_a_redirect_is_not_followed(carrier, run_job):
    carrier.answer(302, Location="/elsewhere")
    with pytest.raises(Unrecoverable, match="answered 302"):
        await run_job(processors, "send-notification", PUSH)
    assert len(carrier.got) == 1


async def test_a_server_that_does_not_answer_in_time_is_retried(carrier, run_job, monkeypatch):
    release = asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse:
        await release.wait()
        return web.Response()

    carrier.answers.append(hang)
    monkeypatch.setenv("STREAMQ_PUSH_TIMEOUT", "0.2")
    with pytest.raises(ServiceUnavailable, match=r"did not answer within 0\.2 s"):
        await run_job(processors, "send-notification", PUSH)
    release.set()


async def test_a_cut_connection_is_retried(carrier, run_job):
    async def cut(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    carrier.answers.append(cut)
    with pytest.raises(ServiceUnavailable, match="ServerDisconnectedError"):
        await run_job(processors, "send-notification", PUSH)


async def test_a_server_that_is_down_is_retried_and_the_text_holds_no_query(run_job, monkeypatch):
    monkeypatch.setenv("STREAMQ_SMS_URL", "http://user:s3cret@127.0.0.1:1/send?key=s3cret")
    with pytest.raises(ServiceUnavailable, match=r"127\.0\.0\.1:1/send: ClientConnectorError") as caught:
        await run_job(processors, "send-notification", SMS)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("body", ["thanks", '{"id": 7}', "[]", ""])
async def test_an_answer_that_can_not_be_read_still_counts_as_taken(carrier, run_job, body):
    carrier.answer(202, body)
    assert (await run_job(processors, "send-notification", PUSH)).message_id is None


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({**SMS, "recipient": "015112345678"}, "E.164"),
        ({**SMS, "recipient": "+4915112345678\n"}, "E.164"),
        ({**SMS, "title": "x"}, "no title"),
        ({**SMS, "body": "x" * 1_601}, "1,601 characters"),
        ({**SMS, "body": "  "}, "no text"),
        ({**PUSH, "recipient": ""}, "device token"),
        ({**PUSH, "body": "x" * 4_096}, "may take 4,096"),
    ],
)
async def test_what_can_never_be_carried_fails_before_it_is_sent(carrier, run_job, data, text):
    with pytest.raises(Unrecoverable, match=text):
        await run_job(processors, "send-notification", data)
    assert carrier.got == []


async def test_without_a_provider_the_job_fails_and_names_the_variable(run_job, monkeypatch):
    monkeypatch.delenv("STREAMQ_PUSH_URL", raising=False)
    with pytest.raises(Unrecoverable, match="STREAMQ_PUSH_URL or STREAMQ_PUSH_PROVIDER"):
        await run_job(processors, "send-notification", PUSH)


@pytest.mark.parametrize("url", ["not a url", "ftp://host/x", "http://"])
async def test_an_address_that_is_none_fails_at_once(run_job, monkeypatch, url):
    monkeypatch.setenv("STREAMQ_PUSH_URL", url)
    with pytest.raises(Unrecoverable, match="not a URL"):
        await run_job(processors, "send-notification", PUSH)


class OwnProvider:
    carried: ClassVar[list[tuple[Notice, str]]] = []

    async def send(self, notice: Notice, key: str) -> Receipt:
        self.carried.append((notice, key))
        return Receipt(message_id="own-1")


async def test_a_provider_of_ones_own_takes_the_http_ones_place(run_job, monkeypatch):
    monkeypatch.setenv("STREAMQ_PUSH_PROVIDER", f"{__name__}:OwnProvider")
    result = await run_job(processors, "send-notification", PUSH)
    assert result.message_id == "own-1"
    assert [(notice.body, key) for notice, key in OwnProvider.carried] == [("EUR 5.00", result.idempotency_key)]


@pytest.mark.parametrize("target", ["nowhere:Provider", "json:Provider", "json", ":x"])
async def test_a_provider_that_can_not_be_loaded_fails_at_once(run_job, monkeypatch, target):
    monkeypatch.setenv("STREAMQ_PUSH_PROVIDER", target)
    with pytest.raises(Unrecoverable, match="STREAMQ_PUSH_PROVIDER="):
        await run_job(processors, "send-notification", PUSH)


async def test_on_a_worker_the_retry_waits_as_long_as_the_provider_asks(carrier, redis_url):
    carrier.answer(429, **{"Retry-After": "1"})
    loop = asyncio.get_running_loop()
    async with Queue(QueueName.NOTIFICATIONS, redis_url) as queue:
        async with Worker(QueueName.NOTIFICATIONS, processors, redis=redis_url):
            start = loop.time()
            job = await queue.add("send-notification", PUSH, attempts=2, backoff=Backoff.fixed(60))
            result = await job.result(timeout=30)
            assert loop.time() - start >= 1
        assert (await job.snapshot()).attempts_made == 2
    assert result["messageId"] == "msg-2"
    assert len({headers["Idempotency-Key"] for headers, _ in carrier.got}) == 1

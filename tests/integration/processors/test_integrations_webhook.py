"""`deliver-webhook`, and `sync-data` to a webhook: signatures, ids, Retry-After, and going on after a refusal."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest
from aiohttp import web
from sqlalchemy import insert

from streamq.errors import RetryAfter, Unrecoverable
from streamq.processors.integrations import processors
from streamq.processors.integrations_http import ServiceUnavailable
from streamq.processors.integrations_signature import BadSignature, verify
from streamq.processors.ledger import Ledger, tables

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - a test's


class Receiver:
    """Takes events whose signature is right, or answers what it is told to."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.answers: dict[int, web.Response] = {}  # by the number of the call, from 1

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        try:
            self.ids.append(verify(SECRET, request.headers, body, now=time.time()))
        except BadSignature as error:
            return web.Response(status=401, text=str(error))
        if len(self.ids) in self.answers:
            return self.answers[len(self.ids)]
        self.events.append(msgspec.json.decode(body))
        return web.Response(status=204)


@pytest.fixture
async def receiver(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application(client_max_size=2**24)
    app.router.add_post("/hook", receiver.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    monkeypatch.setenv("STREAMQ_SYNC_CRM_URL", f"http://{host}:{port}/hook")
    monkeypatch.setenv("STREAMQ_SYNC_CRM_SECRET", SECRET)
    yield receiver
    await runner.cleanup()


EVENT = {"to": "crm", "type": "member.joined", "data": {"id": "M-1", "amounts": ["1.10"], "none": None}}


async def test_an_event_arrives_signed_and_as_it_was(receiver, run_job):
    result = await run_job(processors, "deliver-webhook", EVENT)
    assert result.status == 204
    assert receiver.events == [{"id": result.id, "type": "member.joined", "data": EVENT["data"]}]
    assert receiver.ids == [result.id]


async def test_every_attempt_has_the_same_id(receiver, run_job):
    receiver.answers = {1: web.Response(status=503, headers={"Retry-After": "7"}), 2: web.Response(status=500)}
    with pytest.raises(RetryAfter) as caught:
        await run_job(processors, "deliver-webhook", EVENT, attempt=1)
    assert caught.value.seconds == 7
    with pytest.raises(ServiceUnavailable, match="answered 500"):
        await run_job(processors, "deliver-webhook", EVENT, attempt=2)
    result = await run_job(processors, "deliver-webhook", EVENT, attempt=3)
    assert receiver.ids == [result.id] * 3


async def test_a_wrong_secret_is_refused_for_good_and_not_told(receiver, run_job, monkeypatch):
    monkeypatch.setenv("STREAMQ_SYNC_CRM_SECRET", "an0ther")
    with pytest.raises(Unrecoverable, match="answered 401: the signature does not fit") as caught:
        await run_job(processors, "deliver-webhook", EVENT)
    assert "an0ther" not in str(caught.value)


@pytest.mark.parametrize(
    ("to", "text"), [("ledger", "is a ledger, not a webhook"), ("unknown", "STREAMQ_SYNC_UNKNOWN_URL")]
)
async def test_an_event_goes_only_where_the_operators_let_it(run_job, to, text):
    with pytest.raises(Unrecoverable, match=text):
        await run_job(processors, "deliver-webhook", {**EVENT, "to": to})


async def joined(ledger: Ledger, numbers: range, age: int = 60) -> None:
    moment = datetime.now(UTC) - timedelta(seconds=age)
    rows = [
        {"id": f"M-{n}", "name": "Ada", "joined_on": date(2025, 1, 1), "created_at": moment, "updated_at": moment}
        for n in numbers
    ]
    async with ledger.begin() as conn:
        await conn.execute(insert(tables.members), rows)


async def test_changes_are_carried_in_batches_and_each_once(ledger, ledger_url, receiver, run_job, monkeypatch):
    monkeypatch.setenv("STREAMQ_LEDGER_URL", ledger_url)
    await joined(ledger, range(10, 35), age=90)
    data = {"destination": "crm", "entities": ["members"], "batchSize": 10}
    report = await run_job(processors, "sync-data", data)
    (carried,) = report.entities
    assert (carried.read, carried.written, carried.batches, report.ok) == (25, 25, 3, True)
    assert [event["data"]["count"] for event in receiver.events] == [10, 10, 5]
    assert {event["type"] for event in receiver.events} == {"members.changed"}
    assert [record["id"] for event in receiver.events for record in event["data"]["records"]] == [
        f"M-{n}" for n in range(10, 35)
    ]
    assert len({event["data"]["checksum"] for event in receiver.events}) == 3
    await joined(ledger, range(40, 42))
    await joined(ledger, range(50, 52), age=0)  # too young: an older one might still commit
    await run_job(processors, "sync-data", data)
    assert [record["id"] for record in receiver.events[-1]["data"]["records"]] == ["M-40", "M-41"]
    assert len(receiver.events) == 4


async def test_a_retry_goes_on_at_the_batch_that_was_refused(ledger, ledger_url, receiver, run_job, monkeypatch):
    monkeypatch.setenv("STREAMQ_LEDGER_URL", ledger_url)
    await joined(ledger, range(10, 30))
    data = {"destination": "crm", "entities": ["members"], "batchSize": 5}
    receiver.answers = {3: web.Response(status=429, headers={"Retry-After": "3"})}
    with pytest.raises(RetryAfter) as caught:
        await run_job(processors, "sync-data", data, attempt=1)
    assert caught.value.seconds == 3
    report = await run_job(processors, "sync-data", data, attempt=2)
    assert report.entities[0].batches == 2
    assert [record["id"] for event in receiver.events for record in event["data"]["records"]] == [
        f"M-{n}" for n in range(10, 30)
    ]
    assert receiver.ids[2] == receiver.ids[3]  # the refused batch came again under its id

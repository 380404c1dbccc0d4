"""Integrations: the plugin of the queue `integrations`. `sync-data` and `deliver-webhook`."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from streamq.errors import InvalidInput, Unrecoverable
from streamq.job import QueueName
from streamq.processor import ActiveJob, Processors
from streamq.processors.integrations_entities import ENTITIES, EntityName
from streamq.processors.integrations_once import work_key
from streamq.processors.integrations_places import LedgerPlace, WebhookPlace, place, webhook
from streamq.processors.integrations_sync import Carried, EntitySync, Route, SyncRequest, Verify
from streamq.processors.integrations_webhook import Event, deliver
from streamq.processors.ledger import open_ledger
from streamq.processors.ledger.database import ledger_url

processors = Processors()


class SyncReport(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What a synchronisation did: by entity what was read, written and found different. `ok`: nothing was."""

    source: str
    destination: str
    ok: bool
    entities: list[Carried]


@processors.register("sync-data", queue=QueueName.INTEGRATIONS, data=SyncRequest)
async def sync_data(job: ActiveJob[SyncRequest]) -> SyncReport:
    """Carry what changed from one place to another, and verify it.

    Differences don't fail the job: they are in the report and in the job's log.

    Raises:
        Unrecoverable: The request or the configuration makes no sense, or the webhook refused for good.
        RetryAfter: The webhook said when to come again; the next attempt goes on at the batch that it refused.
        ServiceUnavailable: The webhook may work later; as above.
    """
    done = []
    async with _route(job.data) as route:
        for name in (one for one in EntityName if one in job.data.entities):
            sync = EntitySync(route, ENTITIES[name])
            async for carried in sync.batches():
                records = carried.verified.records
                await job.progress({"entity": name.value, "carried": carried.read, "verified": records})
            done.append(sync.carried)
            for difference in sync.carried.verified.differences:
                await job.log(f"{name} {difference.id}: {difference.kind} {', '.join(difference.fields)}".rstrip())
    return SyncReport(
        source=job.data.source,
        destination=job.data.destination,
        ok=all(carried.verified.ok for carried in done),
        entities=done,
    )


@asynccontextmanager
async def _route(request: SyncRequest) -> AsyncIterator[Route]:
    try:
        source, destination = place(request.source), place(request.destination)
        if not isinstance(source, LedgerPlace):
            raise InvalidInput(f"{request.source!r} is a webhook: data can't be read from there")
        if isinstance(destination, LedgerPlace) and ledger_url(source.url) == ledger_url(destination.url):
            raise InvalidInput(f"{request.source!r} and {request.destination!r} are the same ledger")
        if isinstance(destination, WebhookPlace) and request.verify is Verify.ALL:
            raise InvalidInput("a webhook can't be read back: verify must be none or changed")
        if not 1 <= request.batch_size <= 10_000 or not 0 <= (request.overlap_seconds or 0) <= 86_400:
            raise InvalidInput("batchSize must be 1 to 10,000 and overlapSeconds 0 to 86,400")
    except InvalidInput as error:
        raise Unrecoverable(str(error)) from error
    async with open_ledger(source.url) as opened:
        if isinstance(destination, WebhookPlace):
            yield Route(request, opened, destination)
        else:
            async with open_ledger(destination.url) as other:
                yield Route(request, opened, other)


class WebhookRequest(msgspec.Struct, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """The data of a `deliver-webhook` job: a named place, the event's type and its data.

    Events of one idempotency key have one id; the job itself is the key if None.
    """

    to: str
    type: str
    data: Any = None
    idempotency_key: str | None = None


class WebhookResult(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The receiver's answer, and the event's id, which the receiver can drop repeats by."""

    id: str
    status: int


@processors.register("deliver-webhook", queue=QueueName.INTEGRATIONS, data=WebhookRequest)
async def deliver_webhook(job: ActiveJob[WebhookRequest]) -> WebhookResult:
    """Post one signed event.

    Raises:
        Unrecoverable: There is no such webhook, or it refused for good.
        RetryAfter: It said when to come again.
        ServiceUnavailable: It may work later.
    """
    try:
        to = webhook(job.data.to)
        key = hashlib.sha256(work_key(job, job.data.idempotency_key).encode()).hexdigest()
        event = Event(id=f"evt_{key[:40]}", type=job.data.type, data=job.data.data)
        answer = await deliver(to, event)
    except InvalidInput as error:
        raise Unrecoverable(str(error)) from error
    return WebhookResult(id=event.id, status=answer.status)

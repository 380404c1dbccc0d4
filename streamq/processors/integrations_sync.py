"""Carry records that changed from a ledger to another one or to a webhook, in batches, from where the last run ended.

The cursor is committed with each batch: in the destination ledger in the batch's own transaction, for a webhook in
the source after the receiver's 2xx. A run that dies goes on at its last batch; what it may send twice is written twice
to the same effect.

A transaction that commits late has an older moment than others that are visible already. A ledger is therefore read
again from `overlap` before the cursor, and a webhook gets records only once they are `overlap` old.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from streamq.processors.integrations_entities import Cursor, Entity, EntityName, Record, checksum
from streamq.processors.integrations_places import WebhookPlace
from streamq.processors.integrations_upsert import upsert_rows
from streamq.processors.integrations_verify import Verification, Verified
from streamq.processors.integrations_webhook import Event, deliver
from streamq.processors.ledger import Ledger
from streamq.processors.ledger.money import now
from streamq.processors.ledger.tables import sync_cursors

LEDGER_OVERLAP, WEBHOOK_OVERLAP = 300, 10


class Verify(enum.StrEnum):
    """What is compared afterwards: nothing, each batch that was written, or all records of both sides."""

    NONE = "none"
    CHANGED = "changed"
    ALL = "all"


class SyncRequest(msgspec.Struct, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """The data of a `sync-data` job.

    Attributes:
        source, destination: Names of places; the source is a ledger.
        entities: What to carry; always in the order members, accounts, transactions, as they depend on each other.
        full: Carry everything, not only what changed since the last run.
        verify: What to compare afterwards. A webhook can't be read back, so there it must not be `all`.
        batch_size: Records per batch.
        overlap_seconds: See the module; 300 for a ledger and 10 for a webhook if None.
    """

    destination: str
    source: str = "ledger"
    entities: list[EntityName] = msgspec.field(default_factory=lambda: list(EntityName))
    full: bool = False
    verify: Verify = Verify.CHANGED
    batch_size: int = 1_000
    overlap_seconds: int | None = None


class Carried(msgspec.Struct, rename="camel", kw_only=True):
    """What a run did with one entity so far."""

    entity: EntityName
    read: int = 0
    written: int = 0
    batches: int = 0
    verified: Verified = msgspec.field(default_factory=Verified)


class Route(msgspec.Struct, frozen=True):
    """From where to where: the names that the cursor is kept under, and the open ends."""

    request: SyncRequest
    source: Ledger
    destination: Ledger | WebhookPlace


class EntitySync:
    """One entity's way along a route: `async for carried in sync.batches()`."""

    def __init__(self, route: Route, entity: Entity) -> None:
        self._route, self._entity = route, entity
        self.carried = Carried(entity=entity.name)

    async def batches(self) -> AsyncIterator[Carried]:
        """Carry what changed until now, then verify.

        Raises:
            Unrecoverable, RetryAfter, ServiceUnavailable: The webhook's answer; earlier batches are done.
        """
        request, size = self._route.request, self._route.request.batch_size
        to_ledger = isinstance(self._route.destination, Ledger)
        default = LEDGER_OVERLAP if to_ledger else WEBHOOK_OVERLAP
        overlap = timedelta(seconds=default if request.overlap_seconds is None else request.overlap_seconds)
        until = now() if to_ledger else now() - overlap
        cursor = None if request.full else await self._stored()
        if cursor is not None and to_ledger and overlap:
            cursor = Cursor(cursor.at - overlap)
        more = True
        while more:
            async with self._route.source.read() as conn:
                records = await self._entity.changed_after(conn, cursor, until, size)
            more = len(records) == size
            if records:
                cursor = Cursor(records[-1].changed_at, records[-1].id)
                await self._carry(records, cursor)
                yield self.carried
        if request.verify is Verify.ALL and isinstance(self._route.destination, Ledger):
            check = Verification(self._entity, self._route.source, self._route.destination)
            async for self.carried.verified in check.everything(size):
                yield self.carried

    async def _carry(self, records: list[Record], cursor: Cursor) -> None:
        destination = self._route.destination
        if isinstance(destination, Ledger):
            async with destination.begin() as conn:
                self.carried.written += await self._entity.write(conn, records)
                await self._store(conn, cursor, records)
            if self._route.request.verify is Verify.CHANGED:
                check = Verification(self._entity, self._route.source, destination)
                check.found = self.carried.verified
                await check.batch(records)
        else:
            await self._send(destination, records)
            self.carried.written += len(records)
            async with self._route.source.begin() as conn:
                await self._store(conn, cursor, records)
        self.carried.read += len(records)
        self.carried.batches += 1

    async def _send(self, to: WebhookPlace, records: list[Record]) -> None:
        digest = checksum(records)
        name = f"{self._entity.name}/{to.name}/{records[0].id}/{digest}"
        event = Event(
            id=f"sync_{hashlib.sha256(name.encode()).hexdigest()[:40]}",
            type=f"{self._entity.name}.changed",
            data={"count": len(records), "checksum": digest, "records": [record.values for record in records]},
        )
        await deliver(to, event)

    async def _stored(self) -> Cursor | None:
        where = self._route.destination if isinstance(self._route.destination, Ledger) else self._route.source
        query = select(sync_cursors.c.cursor).where(
            sync_cursors.c.source == self._route.request.source,
            sync_cursors.c.destination == self._route.request.destination,
            sync_cursors.c.entity == self._entity.name.value,
        )
        async with where.read() as conn:
            text = (await conn.execute(query)).scalar_one_or_none()
        return None if text is None else msgspec.json.decode(text, type=Cursor)

    async def _store(self, conn: AsyncConnection, cursor: Cursor, records: list[Record]) -> None:
        row = {
            "source": self._route.request.source,
            "destination": self._route.request.destination,
            "entity": self._entity.name.value,
            "cursor": msgspec.json.encode(cursor).decode(),
            "checksum": checksum(records),
            "records": len(records),
            "updated_at": now(),
        }
        await upsert_rows(conn, sync_cursors, [row])

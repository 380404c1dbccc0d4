"""Remember which recipient of which e-mail the mail server accepted, so that a retry writes to the others only.

One row of the ledger's `deliveries` per e-mail and recipient. It is committed right after the server's answer; a
worker that dies between the two sends again, under the same Message-ID.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable, Mapping

import msgspec
from sqlalchemy import select

from streamq.processors.emails_message import Envelope
from streamq.processors.integrations_upsert import upsert
from streamq.processors.ledger import Ledger
from streamq.processors.ledger.money import now
from streamq.processors.ledger.tables import deliveries


class DeliveryStatus(enum.StrEnum):
    """What the mail server said of a recipient last."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    DEFERRED = "deferred"


class Standing(msgspec.Struct, frozen=True):
    """One recipient's status and the server's words."""

    status: DeliveryStatus
    text: str = ""


def delivery_key(key: str, recipient: str) -> str:
    """Return the primary key of one e-mail's delivery to one recipient."""
    return "email:" + hashlib.sha256(f"{key}\n{recipient}".encode()).hexdigest()


async def accepted(ledger: Ledger, key: str, recipients: Iterable[str]) -> set[str]:
    """Return which of `recipients` the mail server has accepted the e-mail `key` for."""
    by_key = {delivery_key(key, recipient): recipient for recipient in recipients}
    query = select(deliveries.c.key).where(
        deliveries.c.key.in_(by_key), deliveries.c.status == DeliveryStatus.ACCEPTED.value
    )
    async with ledger.read() as conn:
        return {by_key[found] for found in (await conn.execute(query)).scalars()}


async def record(
    ledger: Ledger, key: str, envelope: Envelope, standings: Mapping[str, Standing], *, template: str, job_id: str
) -> None:
    """Store one attempt's standings. An acceptance is never taken back by a later standing."""
    moment = now()
    rows = [
        {
            "key": delivery_key(key, recipient),
            "channel": "email",
            "recipient": recipient[:254],
            "template": template[:64],
            "subject": str(envelope.message["Subject"])[:500],
            "status": standing.status.value,
            "message_id": envelope.message_id[:200],
            "attempts": 1,
            "error": "" if standing.status is DeliveryStatus.ACCEPTED else standing.text,
            "provider_ref": standing.text[:200] if standing.status is DeliveryStatus.ACCEPTED else None,
            "job_id": job_id[:200],
            "created_at": moment,
            "sent_at": moment if standing.status is DeliveryStatus.ACCEPTED else None,
        }
        for recipient, standing in standings.items()
    ]
    async with ledger.begin() as conn:
        statement = upsert(conn.dialect.name, deliveries).values(rows)
        new = statement.excluded
        await conn.execute(
            statement.on_conflict_do_update(
                index_elements=["key"],
                set_={
                    "status": new.status,
                    "error": new.error,
                    "provider_ref": new.provider_ref,
                    "sent_at": new.sent_at,
                    "attempts": deliveries.c.attempts + 1,
                },
                where=deliveries.c.status != DeliveryStatus.ACCEPTED.value,
            )
        )

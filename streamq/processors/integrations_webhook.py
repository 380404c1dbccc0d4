"""Deliver a signed event to a webhook: one attempt, judged by the answer."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from streamq.processors.integrations_http import Answer, post
from streamq.processors.integrations_places import WebhookPlace
from streamq.processors.integrations_signature import sign


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What a webhook gets as JSON. Its id is the same whenever the event is, so that a repeat can be recognised."""

    id: str
    type: str
    data: Any


async def deliver(to: WebhookPlace, event: Event) -> Answer:
    """Post `event` to `to`, signed; the id is also in `webhook-id`, for receivers to drop repeats by.

    Raises:
        Unrecoverable: The receiver refused for good.
        RetryAfter: It said when to come again.
        ServiceUnavailable: It may work later. Whether the receiver acted is unknown.
    """
    body = msgspec.json.encode(event)
    headers = {"Content-Type": "application/json", **sign(to.secret, event.id, int(time.time()), body)}
    return await post(to.url, body, headers, timeout=to.timeout)

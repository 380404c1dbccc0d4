"""Push and SMS notifications: the plugin of the queue `notifications`.

A job is one notification to one recipient. The provider gets a key that is the same at every attempt, so a retry after
a lost answer does not reach the phone twice.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from streamq.errors import InvalidInput, Unrecoverable
from streamq.job import QueueName
from streamq.processor import ActiveJob, Processors
from streamq.processors.integrations_once import work_key
from streamq.processors.notifications_provider import Notice, provider_from_env

processors = Processors()

_PHONE = re.compile(r"\+[1-9][0-9]{6,14}\Z")
_SMS_LIMIT = 1_600
_PUSH_LIMIT = 4_096


class NotificationRequest(msgspec.Struct, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """The data of a `send-notification` job.

    Attributes:
        channel: push or sms.
        recipient: A device token, or a phone number in E.164 form (+4915112345678).
        body: The text; up to 1,600 characters by SMS.
        title, data: Of a push message, which may take 4,096 bytes in all.
        idempotency_key: Notifications of one key are carried once; the job itself is the key if None.
    """

    channel: Literal["push", "sms"]
    recipient: str
    body: str
    title: str | None = None
    data: dict[str, str] = {}
    idempotency_key: str | None = None


class NotificationResult(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What became of it: the provider's own id, if it gave one, and the key that it was sent under."""

    channel: str
    message_id: str | None
    idempotency_key: str


@processors.register("send-notification", queue=QueueName.NOTIFICATIONS, data=NotificationRequest)
async def send_notification(job: ActiveJob[NotificationRequest]) -> NotificationResult:
    """Hand one notification to the channel's provider.

    Raises:
        Unrecoverable: The request or the configuration is wrong, or the provider refused for good.
        RetryAfter: The provider said when to come again.
        ServiceUnavailable: It may work later.
    """
    request = job.data
    check(request)
    try:
        provider = provider_from_env(request.channel)
    except InvalidInput as error:
        raise Unrecoverable(str(error)) from error
    key = work_key(job, request.idempotency_key)
    notice = Notice(
        channel=request.channel,
        recipient=request.recipient,
        body=request.body,
        title=request.title,
        data=request.data,
    )
    receipt = await provider.send(notice, key)
    return NotificationResult(channel=request.channel, message_id=receipt.message_id, idempotency_key=key)


def check(request: NotificationRequest) -> None:
    """Raise Unrecoverable if no provider could carry `request`."""
    if not request.body.strip():
        raise Unrecoverable("the notification has no text")
    if request.channel == "sms":
        if not _PHONE.match(request.recipient):
            raise Unrecoverable("an SMS needs a phone number in E.164 form, like +4915112345678")
        if request.title is not None or request.data:
            raise Unrecoverable("an SMS has no title and no data")
        if len(request.body) > _SMS_LIMIT:
            raise Unrecoverable(f"the text takes {len(request.body):,} characters, an SMS may take {_SMS_LIMIT:,}")
    elif not request.recipient.strip():
        raise Unrecoverable("a push message needs a device token")
    elif (size := len(msgspec.json.encode((request.title, request.body, request.data)))) > _PUSH_LIMIT:
        raise Unrecoverable(f"the push message takes {size:,} bytes, it may take {_PUSH_LIMIT:,}")

"""E-mail: the plugin of the queue `emails`.

A `send-email` job's life: 1. render the template and check every header; 2. ask the ledger who has it already; 3. hand
the message to the SMTP server for the others; 4. record the server's word per recipient; 5. retry if one of them was
put off (4xx), fail if all were refused (5xx), and otherwise return who was accepted and who was not.
"""

from __future__ import annotations

import asyncio

import msgspec

from streamq.errors import InvalidInput, Unrecoverable
from streamq.job import QueueName
from streamq.processor import ActiveJob, Processors
from streamq.processors import emails_deliveries as deliveries
from streamq.processors.emails_deliveries import DeliveryStatus, Standing
from streamq.processors.emails_message import Attachment, EmailRequest, Envelope, build
from streamq.processors.emails_smtp import DeliveryDeferred, Outcome, SmtpSettings, send
from streamq.processors.emails_templates import BadEmail, render
from streamq.processors.integrations_once import work_key
from streamq.processors.ledger import Ledger, open_ledger
from streamq.processors.storage import open_storage

processors = Processors()


class EmailResult(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What became of an e-mail.

    Attributes:
        message_id: Its Message-ID, the same at every attempt.
        accepted: Whom the mail server took it for, at this attempt or an earlier one.
        refused: Whom it refused for good, with its words.
    """

    message_id: str
    accepted: list[str]
    refused: dict[str, str]


@processors.register("send-email", queue=QueueName.EMAILS, data=EmailRequest)
async def send_email(job: ActiveJob[EmailRequest]) -> EmailResult:
    """Send one e-mail to each of its recipients once, however often the job runs.

    Raises:
        Unrecoverable: The request, the settings or the server's answer make it impossible.
        DeliveryDeferred: Somebody was put off; who was accepted is recorded.
    """
    request = job.data
    try:
        settings = SmtpSettings.from_env()
    except InvalidInput as error:
        raise Unrecoverable(str(error)) from error
    key = work_key(job, request.idempotency_key)
    rendered = render(request.template, {"bank_name": settings.bank_name, **request.context}, settings.templates)
    files = [(attachment, await _content(attachment, settings.max_bytes)) for attachment in request.attachments]
    envelope = build(request, rendered, files, sender=settings.sender, key=key)
    if (size := len(envelope.message.as_bytes())) > settings.max_bytes:
        raise BadEmail(f"the message takes {size:,} bytes, over the limit of {settings.max_bytes:,}")
    async with open_ledger() as ledger:
        done = await deliveries.accepted(ledger, key, envelope.recipients)
        standings = {recipient: Standing(DeliveryStatus.ACCEPTED) for recipient in done}
        left = [recipient for recipient in envelope.recipients if recipient not in done]
        if left:
            standings |= await _deliver(ledger, settings, envelope, left, key, job)
    return _result(envelope, standings)


async def _deliver(
    ledger: Ledger, settings: SmtpSettings, envelope: Envelope, left: list[str], key: str, job: ActiveJob[EmailRequest]
) -> dict[str, Standing]:
    """Send to those who are left and record each one's standing, also when the whole attempt fails."""
    failed: Exception | None = None
    try:
        standings = _standings(await send(settings, envelope.message, envelope.sender, left))
    except (DeliveryDeferred, Unrecoverable) as error:
        failed = error
        status = DeliveryStatus.DEFERRED if isinstance(error, DeliveryDeferred) else DeliveryStatus.REFUSED
        standings = {recipient: Standing(status, str(error)) for recipient in left}
    await deliveries.record(ledger, key, envelope, standings, template=job.data.template, job_id=job.id)
    if failed is not None:
        raise failed
    return standings


def _standings(outcome: Outcome) -> dict[str, Standing]:
    found = {recipient: Standing(DeliveryStatus.ACCEPTED, outcome.response) for recipient in outcome.accepted}
    for recipient, (code, text) in outcome.refused.items():
        status = DeliveryStatus.REFUSED if code >= 500 else DeliveryStatus.DEFERRED
        found[recipient] = Standing(status, f"{code} {text}")
    return found


def _result(envelope: Envelope, standings: dict[str, Standing]) -> EmailResult:
    by_status: dict[DeliveryStatus, list[str]] = {status: [] for status in DeliveryStatus}
    for recipient in envelope.recipients:
        by_status[standings[recipient].status].append(recipient)
    if late := by_status[DeliveryStatus.DEFERRED]:
        raise DeliveryDeferred(
            f"{len(late)} of {len(standings)} recipients put off: {late[0]}: {standings[late[0]].text}"
        )
    refused = {recipient: standings[recipient].text for recipient in by_status[DeliveryStatus.REFUSED]}
    if not by_status[DeliveryStatus.ACCEPTED]:
        first, text = next(iter(refused.items()))
        raise Unrecoverable(f"all {len(refused)} recipients refused: {first}: {text}")
    return EmailResult(message_id=envelope.message_id, accepted=by_status[DeliveryStatus.ACCEPTED], refused=refused)


async def _content(attachment: Attachment, limit: int) -> bytes:
    """Return the attachment's bytes, at most `limit` + 1 of them: a file from the storage may be of any size."""
    if (attachment.content is None) == (attachment.storage_key is None):
        raise BadEmail(f"attachment {attachment.filename!r} needs either content or a storageKey")
    if attachment.storage_key is None:
        return attachment.content or b""
    name = attachment.storage_key
    try:
        return await asyncio.to_thread(_read, name, limit + 1)
    except (InvalidInput, FileNotFoundError) as error:
        raise BadEmail(f"attachment {attachment.filename!r}: no file {name[:100]!r} in the storage: {error}") from error


def _read(name: str, size: int) -> bytes:
    with open_storage().read(name) as file:
        return file.read(size)

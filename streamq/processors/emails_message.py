"""Build the message of an e-mail and the envelope that it travels in.

Every header and address is checked before anything is sent: control characters (so also CR and LF, with which a value
could smuggle in headers of its own) are refused. Bcc recipients are in the envelope and in no header.
"""

from __future__ import annotations

import hashlib
import mimetypes
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Any, NamedTuple

import msgspec

from streamq.processors.emails_templates import BadEmail, Rendered

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_HEADER_NAME = re.compile(r"[A-Za-z0-9-]+\Z")
_OWN_HEADERS = frozenset(
    """from sender to cc bcc reply-to subject date message-id mime-version return-path received content-type
    content-transfer-encoding content-disposition dkim-signature auto-submitted""".split()  # noqa: SIM905
)


class Attachment(msgspec.Struct, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """One file to attach: its bytes, or the key under which the storage holds them."""

    filename: str
    content: bytes | None = None
    storage_key: str | None = None
    content_type: str | None = None


class EmailRequest(msgspec.Struct, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """The data of a `send-email` job.

    Attributes:
        template: welcome, transaction-notification, payment-reminder, account-alert, system-notification, or one of
            the bank's own.
        to, cc, bcc: Addresses, `a@b.example` or `Name <a@b.example>`.
        context: The values that the template needs.
        subject: In place of the template's.
        sender: In place of `STREAMQ_SMTP_FROM`.
        headers: Further headers (`List-Unsubscribe` …).
        idempotency_key: E-mails of one key are sent once, whatever job asks; the job itself is the key if None.
    """

    template: str
    to: str | list[str]
    context: dict[str, Any] = {}
    cc: list[str] = []
    bcc: list[str] = []
    subject: str | None = None
    sender: str | None = None
    reply_to: str | None = None
    attachments: list[Attachment] = []
    headers: dict[str, str] = {}
    idempotency_key: str | None = None


class Envelope(NamedTuple):
    """A message, and between whom it travels."""

    message: EmailMessage
    sender: str
    recipients: list[str]
    message_id: str


def build(
    request: EmailRequest, rendered: Rendered, files: Sequence[tuple[Attachment, bytes]], *, sender: str, key: str
) -> Envelope:
    """Return the message of `request`. Its Message-ID is the same whenever `key` is, so that receivers see a repeat.

    Raises:
        BadEmail: An address, a header or a file name is not acceptable; nobody is written to.
    """
    author = parse_address("sender", request.sender or sender)
    to = [request.to] if isinstance(request.to, str) else request.to
    named = {"To": _addresses("to", to), "Cc": _addresses("cc", request.cc), "Bcc": _addresses("bcc", request.bcc)}
    recipients = list(dict.fromkeys(a.addr_spec for group in named.values() for a in group))
    if not recipients:
        raise BadEmail("the e-mail has no recipient")

    message = EmailMessage(policy=SMTP)
    message["From"] = author
    for header in ("To", "Cc"):
        if named[header]:
            message[header] = named[header]
    if request.reply_to is not None:
        message["Reply-To"] = parse_address("replyTo", request.reply_to)
    message["Subject"] = _checked("subject", rendered.subject if request.subject is None else request.subject)
    message["Date"] = format_datetime(datetime.now(UTC))
    message_id = f"<{hashlib.sha256(key.encode()).hexdigest()[:40]}@{author.domain}>"
    message["Message-ID"] = message_id
    message["Auto-Submitted"] = "auto-generated"
    for name, value in request.headers.items():
        if not _HEADER_NAME.match(name) or name.lower() in _OWN_HEADERS:
            raise BadEmail(f"a request may not set the header {name[:60]!r}")
        message[name] = _checked(f"header {name}", value)
    message.set_content(rendered.text)
    message.add_alternative(rendered.html, subtype="html")
    for attachment, content in files:
        _attach(message, attachment, content)
    return Envelope(message, author.addr_spec, recipients, message_id)


def parse_address(what: str, text: str) -> Address:
    """Return the one address that `text` is; a domain outside ASCII becomes its IDNA form.

    Raises:
        BadEmail: It is none, it is several, or it holds control characters; the message names `what`.
    """
    try:
        header: Any = SMTP.header_factory("to", _checked(what, text))
    except (IndexError, HeaderParseError):  # the library's parser trips over "ada@"
        raise BadEmail(f"{what}: not an e-mail address: {text[:100]!r}") from None
    if len(header.addresses) != 1 or header.defects or header.groups[0].display_name is not None:
        raise BadEmail(f"{what}: not an e-mail address: {text[:100]!r}")
    found = header.addresses[0]
    try:
        domain = found.domain.encode("idna").decode()
        if not domain or not found.username or not found.username.isascii():
            raise ValueError
        return Address(found.display_name, found.username, domain)
    except ValueError:
        raise BadEmail(f"{what}: not an address that mail can be sent to: {text[:100]!r}") from None


def _addresses(what: str, texts: Sequence[str]) -> list[Address]:
    return [parse_address(what, text) for text in texts]


def _checked(what: str, text: str) -> str:
    if _CONTROL.search(text):
        raise BadEmail(f"{what} must not contain control characters: {text[:100]!r}")
    return text


def _attach(message: EmailMessage, attachment: Attachment, content: bytes) -> None:
    name = _checked("attachment", attachment.filename)
    if not name or "/" in name or "\\" in name:
        raise BadEmail(f"not an attachment's file name: {name[:100]!r}")
    kind = attachment.content_type or mimetypes.guess_type(name)[0] or "application/octet-stream"
    main, _, sub = _checked("contentType", kind).partition("/")
    if not re.fullmatch(r"[A-Za-z0-9.+-]+/[A-Za-z0-9.+-]+", kind) or main in ("multipart", "message"):
        raise BadEmail(f"not a content type: {kind[:100]!r}")
    message.add_attachment(content, maintype=main, subtype=sub, filename=name)

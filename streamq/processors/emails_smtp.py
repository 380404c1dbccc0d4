"""Hand a message to an SMTP server, and say what became of each recipient.

An error is permanent (5xx, or a setting that can't work) or temporary (4xx, the connection): the first is raised as
Unrecoverable, the second as DeliveryDeferred, which the queue retries.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from typing import Any, Literal, NamedTuple

import aiosmtplib
import msgspec

from streamq.errors import InvalidInput, StreamqError, Unrecoverable

_PORTS = {"none": 25, "starttls": 587, "tls": 465}


class DeliveryDeferred(StreamqError):
    """The server could not take the message now. Recipients that it did take are recorded; the rest is tried again."""


class SmtpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where mail goes. From the environment: `STREAMQ_SMTP_<FIELD>`.

    Attributes:
        host, port: The server; the port defaults to 587 (starttls), 465 (tls) or 25 (none).
        security: starttls (required, never a silent fallback to plain text), tls, or none.
        username, password: For login, if given.
        sender: `STREAMQ_SMTP_FROM`, the address that mail comes from.
        ca_file: Certificates to trust in place of the system's.
        timeout: Seconds that each answer of the server may take.
        max_bytes: The largest message.
        templates: `STREAMQ_EMAIL_TEMPLATES`, a directory of the bank's own templates.
        bank_name: `STREAMQ_EMAIL_BANK_NAME`, what templates call the bank.
    """

    host: str = "localhost"
    port: int | None = None
    security: Literal["starttls", "tls", "none"] = "starttls"
    username: str | None = None
    password: str | None = None
    sender: str
    ca_file: str | None = None
    timeout: float = 30.0
    max_bytes: int = 26_214_400
    templates: str | None = None
    bank_name: str = "Your bank"

    def __repr__(self) -> str:
        return f"<SmtpSettings {self.host}:{self.port} {self.security}>"

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> SmtpSettings:
        """Read the settings from `env` (the process's environment by default).

        Raises:
            InvalidInput: A variable is missing or does not fit; the message never holds the password.
        """
        env = os.environ if env is None else env
        names = {"sender": "STREAMQ_SMTP_FROM", "templates": "STREAMQ_EMAIL_TEMPLATES"}
        names["bank_name"] = "STREAMQ_EMAIL_BANK_NAME"
        found: dict[str, Any] = {}
        for field in msgspec.structs.fields(cls):
            name = names.get(field.name, f"STREAMQ_SMTP_{field.name.upper()}")
            if env.get(name):
                try:
                    found[field.name] = msgspec.convert(env[name], field.type, strict=False)
                except msgspec.ValidationError as error:
                    raise InvalidInput(f"{name} does not fit: {error}") from None
        if "sender" not in found:
            raise InvalidInput("STREAMQ_SMTP_FROM must name the address that mail comes from")
        return cls(**found)


class Outcome(NamedTuple):
    """What the server said: who was accepted, who was refused (code and text), and its answer to the message."""

    accepted: list[str]
    refused: dict[str, tuple[int, str]]
    response: str


async def send(settings: SmtpSettings, message: EmailMessage, sender: str, recipients: Sequence[str]) -> Outcome:
    """Send `message` to `recipients`. Refused recipients are part of the outcome, also when all are.

    Raises:
        Unrecoverable: The server refused for good, or lacks what the settings demand. Nobody was written to.
        DeliveryDeferred: It may work later. Nobody was written to, unless the connection broke after the whole
            message was sent and before the server's answer: then the server may have taken it.
    """
    client = _client(settings)
    try:
        await client.connect()
        if settings.username is not None:
            await client.login(settings.username, settings.password or "")
        refused, response = await client.send_message(message, sender=sender, recipients=list(recipients))
    except aiosmtplib.SMTPRecipientsRefused as error:
        return Outcome([], {one.recipient: (one.code, one.message) for one in error.recipients}, "")
    except aiosmtplib.SMTPResponseException as error:
        text = f"the mail server answered {error.code} {error.message}"
        raise (Unrecoverable if error.code >= 500 else DeliveryDeferred)(text) from error
    except OSError as error:  # the library's connection and timeout errors are of this kind, too
        raise DeliveryDeferred(f"mail server {settings.host}: {type(error).__name__}: {error}") from error
    except aiosmtplib.SMTPException as error:  # what is left: the server lacks an extension that we need
        raise Unrecoverable(f"the mail server can't do what is asked: {error}") from error
    except ValueError as error:
        raise Unrecoverable(f"the message can't be sent: {error}") from error
    finally:
        await _leave(client)
    return Outcome(
        [one for one in recipients if one not in refused],
        {address: (answer.code, answer.message) for address, answer in refused.items()},
        response,
    )


async def _leave(client: aiosmtplib.SMTP) -> None:
    """Say goodbye. An error here must not hide that the message was accepted: it would be sent again."""
    try:
        if client.is_connected:
            await client.quit(timeout=5)
    except (aiosmtplib.SMTPException, OSError):
        pass
    finally:
        client.close()


def _client(settings: SmtpSettings) -> aiosmtplib.SMTP:
    context = None
    if settings.security != "none":
        context = ssl.create_default_context(cafile=settings.ca_file)
    return aiosmtplib.SMTP(
        hostname=settings.host,
        port=settings.port or _PORTS[settings.security],
        use_tls=settings.security == "tls",
        start_tls=settings.security == "starttls",
        tls_context=context,
        timeout=settings.timeout,
    )

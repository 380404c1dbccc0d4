"""A real mail server that sends nothing on: what it takes lies in a folder, one file per message and recipient.

It takes its time as servers do, puts some recipients off at first (451, as greylisting does), and drops a message that
it has already, by its Message-ID, as mail systems do.
"""

from __future__ import annotations

import asyncio
import email
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session

LATENCY = 0.03
"""Seconds that a message takes, as if the server were far away."""


class MailSink:
    """The server's handler.

    Attributes:
        put_off: Recipients that are put off once.
        port: Where the server listens on 127.0.0.1.
        repeats: How many messages came a second time and were dropped.
    """

    def __init__(self, folder: Path, put_off: set[str]) -> None:
        self._folder, self.put_off = folder, put_off
        self.port = 0
        self.repeats = 0

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take a recipient, or put it off once."""
        if address in self.put_off:
            self.put_off.discard(address)
            return "451 4.7.1 greylisted, come again"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Store a message for each of its recipients."""
        await asyncio.sleep(LATENCY)
        content = envelope.content or b""
        data = content if isinstance(content, bytes) else content.encode()
        message_id = email.message_from_bytes(data)["Message-ID"]
        for recipient in envelope.rcpt_tos:
            name = hashlib.sha256(f"{message_id}\n{recipient}".encode()).hexdigest()[:24]
            path = self._folder / f"{name}.eml"
            try:
                await asyncio.to_thread(_write_new, path, b"Delivered-To: " + recipient.encode() + b"\r\n" + data)
            except FileExistsError:
                self.repeats += 1
        return "250 OK: stored"


def _write_new(path: Path, content: bytes) -> None:
    with open(path, "xb") as file:
        file.write(content)


@asynccontextmanager
async def serving(folder: Path, put_off: set[str]) -> AsyncIterator[MailSink]:
    """Run the server on this loop while the block runs."""
    loop, sink = asyncio.get_running_loop(), MailSink(folder, put_off)
    connections: list[SMTP] = []

    def connection() -> SMTP:
        connections.append(SMTP(sink, loop=loop, hostname="mail.demo.example"))
        return connections[-1]

    server = await loop.create_server(connection, "127.0.0.1", 0)
    sink.port = server.sockets[0].getsockname()[1]
    try:
        yield sink
    finally:
        server.close()
        for one in connections:
            if one.transport is not None:
                one.transport.close()
        await server.wait_closed()


def delivered(folder: Path) -> dict[str, list[str]]:
    """Return the Message-IDs that lie in the mailbox, by recipient."""
    found: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*.eml")):
        message = email.message_from_bytes(path.read_bytes())
        found.setdefault(message["Delivered-To"], []).append(message["Message-ID"])
    return found

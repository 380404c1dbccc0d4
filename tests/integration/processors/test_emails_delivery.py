"""`send-email` against a real SMTP server: TLS, login, temporary and permanent refusals, cut connections, retries."""

from __future__ import annotations

import asyncio
import email
import email.policy
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from sqlalchemy import select

from streamq import Backoff, JobFailed, Queue, QueueName, Unrecoverable, Worker
from streamq.processors.emails import processors
from streamq.processors.emails_smtp import DeliveryDeferred
from streamq.processors.ledger import open_ledger, tables
from streamq.processors.storage import open_storage

WELCOME = {
    "template": "welcome",
    "to": "Ada <ada@member.example>",
    "context": {"member_name": "Ada", "member_number": "M-1"},
}


class PostOffice:
    """The server's handler: takes mail, or answers as a test tells it to.

    `rcpt` and `data` hold the answers to come, per recipient and in order; when they run out, everything is taken.
    """

    def __init__(self) -> None:
        self.taken: list[Envelope] = []
        self.sessions: list[Session] = []
        self.rcpt: dict[str, list[str]] = {}
        self.data: list[str] = []
        self.cut_after_data = 0

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.rcpt.get(address):
            return self.rcpt[address].pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.data:
            return self.data.pop(0)
        self.taken.append(envelope)
        self.sessions.append(session)
        if self.cut_after_data:
            self.cut_after_data -= 1
            assert server.transport is not None
            server.transport.abort()
        return "250 OK: queued as 4711"

    def messages(self) -> list[EmailMessage]:
        found = []
        for envelope in self.taken:
            assert isinstance(envelope.content, bytes)
            message = email.message_from_bytes(envelope.content, policy=email.policy.default)
            assert isinstance(message, EmailMessage)
            found.append(message)
        return found


@asynccontextmanager
async def serving(handler: PostOffice, *, tls: ssl.SSLContext | None = None, **more: Any) -> AsyncIterator[int]:
    """Run the server on this loop; give its port."""
    connections: list[SMTP] = []

    def connection() -> SMTP:
        connections.append(SMTP(handler, loop=asyncio.get_running_loop(), hostname="mail.test", **more))
        return connections[-1]

    server = await asyncio.get_running_loop().create_server(connection, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()
        for one in connections:
            if one.transport is not None:
                one.transport.abort()
        await asyncio.sleep(0)


@pytest.fixture
def office() -> PostOffice:
    return PostOffice()


@pytest.fixture
def smtp(monkeypatch: pytest.MonkeyPatch, ledger_url: str) -> Callable[..., None]:
    """Set the environment of the e-mail processor."""
    monkeypatch.setenv("STREAMQ_LEDGER_URL", ledger_url)

    def configure(port: int, **more: str) -> None:
        given = {"host": "127.0.0.1", "port": str(port), "security": "none", "timeout": "5", **more}
        for name, value in {**given, "from": "River Bank <post@bank.example>"}.items():
            monkeypatch.setenv(f"STREAMQ_SMTP_{name.upper()}", value)
        monkeypatch.setenv("STREAMQ_EMAIL_BANK_NAME", "River Bank")

    return configure


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate for 127.0.0.1, and the server's side of it."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return cert, context


async def stored(ledger_url: str) -> dict[str, Any]:
    async with open_ledger(ledger_url) as ledger, ledger.read() as conn:
        return {row.recipient: row for row in await conn.execute(select(tables.deliveries))}


async def test_a_mail_reaches_all_recipients_and_its_delivery_is_recorded(office, smtp, run_job, ledger_url):
    async with serving(office) as port:
        smtp(port)
        data = {**WELCOME, "cc": ["cy@member.example"], "bcc": ["bo@member.example"]}
        data["attachments"] = [{"filename": "terms.pdf", "content": b"%PDF-1.7 \x00\r\n.\r\n\xff"}]
        result = await run_job(processors, "send-email", data)
    assert result.accepted == ["ada@member.example", "cy@member.example", "bo@member.example"]
    assert result.refused == {}
    (message,) = office.messages()
    assert office.taken[0].rcpt_tos == result.accepted
    assert office.taken[0].mail_from == "post@bank.example"
    assert message["Message-ID"] == result.message_id
    assert message["Subject"] == "Welcome to River Bank, Ada"
    assert message["Bcc"] is None
    assert b"bo@member.example" not in office.taken[0].content
    (attachment,) = message.iter_attachments()
    assert attachment.get_content() == b"%PDF-1.7 \x00\r\n.\r\n\xff"
    rows = await stored(ledger_url)
    assert {name: row.status for name, row in rows.items()} == dict.fromkeys(result.accepted, "accepted")
    assert {row.message_id for row in rows.values()} == {result.message_id}
    assert all(row.sent_at and row.attempts == 1 and "4711" in row.provider_ref for row in rows.values())


async def test_a_retry_after_acceptance_sends_nothing(office, smtp, run_job):
    async with serving(office) as port:
        smtp(port)
        first = await run_job(processors, "send-email", WELCOME, job_id="7", attempt=1)
        again = await run_job(processors, "send-email", WELCOME, job_id="7", attempt=2)
    assert again == first
    assert len(office.taken) == 1


async def test_the_same_job_id_with_another_content_is_another_mail(office, smtp, run_job):
    """Generated ids start again at 1 when Redis is emptied."""
    async with serving(office) as port:
        smtp(port)
        await run_job(processors, "send-email", WELCOME, job_id="7")
        await run_job(processors, "send-email", {**WELCOME, "to": "bo@member.example"}, job_id="7")
        await run_job(processors, "send-email", {**WELCOME, "subject": "Hello again"}, job_id="7")
    assert len(office.taken) == 3


async def test_two_jobs_of_one_idempotency_key_send_one_mail(office, smtp, run_job):
    async with serving(office) as port:
        smtp(port)
        data = {**WELCOME, "idempotencyKey": "welcome:M-1"}
        first = await run_job(processors, "send-email", data, job_id="1")
        second = await run_job(processors, "send-email", data, job_id="2")
    assert first.message_id == second.message_id
    assert len(office.taken) == 1


async def test_starttls_and_login_with_a_certificate_that_is_trusted(office, smtp, run_job, certificate):
    cert, context = certificate
    seen: list[LoginPassword] = []

    def authenticate(server: SMTP, session: Session, envelope: Envelope, mechanism: str, login: Any) -> AuthResult:
        seen.append(login)
        return AuthResult(success=login == LoginPassword(b"bank", b"s3cret"), handled=False)

    options = {"tls_context": context, "require_starttls": True, "auth_required": True, "authenticator": authenticate}
    async with serving(office, **options) as port:
        login = {"username": "bank", "password": "s3cret"}
        smtp(port, security="starttls", ca_file=str(cert), **login)
        await run_job(processors, "send-email", WELCOME)
        assert office.sessions[0].ssl is not None
        assert office.sessions[0].authenticated

        smtp(port, security="starttls", ca_file=str(cert), **{**login, "password": "wr0ng"})
        with pytest.raises(Unrecoverable, match="535") as caught:
            await run_job(processors, "send-email", WELCOME, job_id="2")
        assert "wr0ng" not in str(caught.value)
    assert {login.password for login in seen} == {b"s3cret", b"wr0ng"}
    assert len(office.taken) == 1


async def test_implicit_tls(office, smtp, run_job, certificate):
    cert, context = certificate
    async with serving(office, tls=context) as port:
        smtp(port, security="tls", ca_file=str(cert))
        await run_job(processors, "send-email", WELCOME)
    assert len(office.taken) == 1


@pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")
async def test_a_certificate_that_is_not_trusted_gets_no_mail(office, smtp, run_job, certificate):
    async with serving(office, tls_context=certificate[1]) as port:
        smtp(port, security="starttls")
        with pytest.raises(DeliveryDeferred, match="certificate verify failed"):
            await run_job(processors, "send-email", WELCOME)
    assert office.taken == []


async def test_a_server_without_starttls_gets_no_mail_in_plain_text(office, smtp, run_job):
    async with serving(office) as port:
        smtp(port, security="starttls")
        with pytest.raises(Unrecoverable, match="can't do what is asked"):
            await run_job(processors, "send-email", WELCOME)
    assert office.taken == []


async def test_a_temporary_refusal_is_retried_and_then_sent_once(office, smtp, run_job, ledger_url):
    office.data = ["451 try later"]
    async with serving(office) as port:
        smtp(port)
        with pytest.raises(DeliveryDeferred, match="451 try later"):
            await run_job(processors, "send-email", WELCOME, attempt=1)
        assert (await stored(ledger_url))["ada@member.example"].status == "deferred"
        result = await run_job(processors, "send-email", WELCOME, attempt=2)
    assert result.accepted == ["ada@member.example"]
    assert len(office.taken) == 1
    row = (await stored(ledger_url))["ada@member.example"]
    assert (row.status, row.attempts, row.error) == ("accepted", 2, "")


async def test_a_permanent_refusal_fails_at_once(office, smtp, run_job, ledger_url):
    office.data = ["554 no thanks"]
    async with serving(office) as port:
        smtp(port)
        with pytest.raises(Unrecoverable, match="554 no thanks"):
            await run_job(processors, "send-email", WELCOME)
    row = (await stored(ledger_url))["ada@member.example"]
    assert (row.status, row.sent_at) == ("refused", None)
    assert "554 no thanks" in row.error


async def test_a_retry_writes_only_to_those_who_were_put_off(office, smtp, run_job, ledger_url):
    data = {**WELCOME, "to": ["ada@member.example", "gone@member.example", "busy@member.example"]}
    office.rcpt = {
        "gone@member.example": ["550 unknown", "550 unknown"],
        "busy@member.example": ["450 mailbox busy"],
    }
    async with serving(office) as port:
        smtp(port)
        with pytest.raises(DeliveryDeferred, match=r"1 of 3 recipients put off: busy@\S+: 450 mailbox busy"):
            await run_job(processors, "send-email", data, attempt=1)
        result = await run_job(processors, "send-email", data, attempt=2)
    assert result.accepted == ["ada@member.example", "busy@member.example"]
    assert result.refused == {"gone@member.example": "550 unknown"}
    assert [envelope.rcpt_tos for envelope in office.taken] == [["ada@member.example"], ["busy@member.example"]]
    assert {message["Message-ID"] for message in office.messages()} == {result.message_id}
    rows = await stored(ledger_url)
    assert {name: row.status for name, row in rows.items()} == {
        "ada@member.example": "accepted",
        "busy@member.example": "accepted",
        "gone@member.example": "refused",
    }
    assert rows["ada@member.example"].attempts == 1


async def test_when_all_recipients_are_refused_the_job_fails_at_once(office, smtp, run_job):
    office.rcpt = {"ada@member.example": ["550 unknown"]}
    async with serving(office) as port:
        smtp(port)
        with pytest.raises(Unrecoverable, match=r"all 1 recipients refused: ada@member\.example: 550 unknown"):
            await run_job(processors, "send-email", WELCOME)


async def test_a_connection_cut_before_the_answer_is_retried_under_the_same_message_id(office, smtp, run_job):
    office.cut_after_data = 1
    async with serving(office) as port:
        smtp(port)
        with pytest.raises(DeliveryDeferred, match=r"mail server 127\.0\.0\.1"):
            await run_job(processors, "send-email", WELCOME, attempt=1)
        result = await run_job(processors, "send-email", WELCOME, attempt=2)
    one, two = office.messages()
    assert one["Message-ID"] == two["Message-ID"] == result.message_id


async def test_a_server_that_is_down_is_retried(smtp, run_job):
    async with serving(PostOffice()) as port:
        pass
    smtp(port)
    with pytest.raises(DeliveryDeferred, match="SMTPConnectError"):
        await run_job(processors, "send-email", WELCOME)


@pytest.mark.parametrize(
    ("greeting", "error"), [(b"421 too busy\r\n", DeliveryDeferred), (b"554 no\r\n", Unrecoverable)]
)
async def test_a_refusal_in_the_greeting_counts_by_its_code(smtp, run_job, greeting, error):
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        await writer.drain()
        await reader.read()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        smtp(server.sockets[0].getsockname()[1])
        with pytest.raises(error, match=greeting[:3].decode()):
            await run_job(processors, "send-email", WELCOME)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"context": {"member_name": "Ada"}}, "'member_number' is undefined"),
        ({"template": "nothing"}, "no template"),
        ({"to": "ada"}, "to: not an"),
        ({"context": {"member_name": "A\r\nBcc: x@evil.example", "member_number": "1"}}, "subject must not contain"),
        ({"attachments": [{"filename": "a.pdf"}]}, "needs either content or a storageKey"),
    ],
)
async def test_a_request_that_can_never_be_sent_fails_at_once(office, smtp, run_job, change, text):
    async with serving(office) as port:
        smtp(port)
        with pytest.raises(Unrecoverable, match=text):
            await run_job(processors, "send-email", {**WELCOME, **change})
    assert office.taken == []


async def test_an_attachment_comes_out_of_the_storage(office, smtp, run_job, tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMQ_STORAGE_URL", str(tmp_path / "files"))
    with open_storage().create("statements/2025-01.pdf") as draft:
        draft.file.write(b"%PDF-1.7 statement")
    async with serving(office) as port:
        smtp(port)
        stored_file = [{"filename": "statement.pdf", "storageKey": "statements/2025-01.pdf"}]
        await run_job(processors, "send-email", {**WELCOME, "attachments": stored_file})
        (attachment,) = office.messages()[0].iter_attachments()
        assert (attachment.get_filename(), attachment.get_content()) == ("statement.pdf", b"%PDF-1.7 statement")
        for name in ("statements/2025-02.pdf", "../outside.pdf"):
            missing = [{"filename": "statement.pdf", "storageKey": name}]
            with pytest.raises(Unrecoverable, match=r"'statement\.pdf': no file"):
                await run_job(processors, "send-email", {**WELCOME, "attachments": missing})
    assert len(office.taken) == 1


async def test_a_message_over_the_limit_is_refused_before_anything_is_sent(office, smtp, run_job):
    async with serving(office) as port:
        smtp(port, max_bytes="100000")
        big = [{"filename": "a.bin", "content": b"x" * 100_000}]
        with pytest.raises(Unrecoverable, match="over the limit of 100,000"):
            await run_job(processors, "send-email", {**WELCOME, "attachments": big})
    assert office.taken == []


async def test_without_a_sender_the_job_fails_and_names_the_variable(monkeypatch, run_job):
    monkeypatch.delenv("STREAMQ_SMTP_FROM", raising=False)
    with pytest.raises(Unrecoverable, match="STREAMQ_SMTP_FROM"):
        await run_job(processors, "send-email", WELCOME)


async def test_on_a_worker_a_deferred_mail_is_retried_and_a_refused_one_fails_at_once(office, smtp, redis_url):
    office.data = ["451 try later", "451 try later"]
    async with serving(office) as port, Queue(QueueName.EMAILS, redis_url) as queue:
        smtp(port)
        async with Worker(QueueName.EMAILS, processors, redis=redis_url):
            job = await queue.add("send-email", WELCOME, attempts=3, backoff=Backoff.fixed(0.05))
            result = await job.result(timeout=30)
            assert result["accepted"] == ["ada@member.example"]
            assert (await job.snapshot()).attempts_made == 3
            office.data = ["550 no thanks"]
            refused = await queue.add("send-email", {**WELCOME, "to": "bo@member.example"}, attempts=3)
            with pytest.raises(JobFailed, match="550 no thanks"):
                await refused.result(timeout=30)
            assert (await refused.snapshot()).attempts_made == 1
            wrong = await queue.add("send-email", {"template": "welcome"}, attempts=3)
            with pytest.raises(JobFailed, match="missing required field `to`"):
                await wrong.result(timeout=30)
    assert len(office.taken) == 1

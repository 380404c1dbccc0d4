"""Messages: who is in which header, what is attached, and that no value can smuggle in a header."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage
from typing import Any

import msgspec
import pytest

from streamq.errors import Unrecoverable
from streamq.processors.emails_message import Attachment, EmailRequest, Envelope, build
from streamq.processors.emails_templates import BadEmail, Rendered

RENDERED = Rendered("Subject of the template", "Text body\n", "<p>HTML body</p>")


def built(files: list[tuple[Attachment, bytes]] | None = None, **more: Any) -> Envelope:
    request = EmailRequest(**{"template": "welcome", "to": "ada@member.example", **more})
    return build(request, RENDERED, files or [], sender="River Bank <post@bank.example>", key="emails/1")


def parsed(envelope: Envelope) -> EmailMessage:
    message = email.message_from_bytes(envelope.message.as_bytes(), policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def test_the_message_holds_text_and_html_and_says_who_it_is_from() -> None:
    message = parsed(built())
    assert message["From"] == "River Bank <post@bank.example>"
    assert message["To"] == "ada@member.example"
    assert message["Subject"] == "Subject of the template"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message.get_content_type() == "multipart/alternative"
    text, html = message.iter_parts()
    assert (text.get_content_type(), text.get_content().strip()) == ("text/plain", "Text body")
    assert (html.get_content_type(), html.get_content().strip()) == ("text/html", "<p>HTML body</p>")


def test_bcc_recipients_are_in_the_envelope_and_nowhere_in_the_message() -> None:
    envelope = built(to=["Ada <ada@member.example>"], cc=["cy@member.example"], bcc=["secret@member.example"])
    assert envelope.recipients == ["ada@member.example", "cy@member.example", "secret@member.example"]
    assert b"secret" not in envelope.message.as_bytes()
    assert parsed(envelope)["Bcc"] is None
    assert parsed(envelope)["Cc"] == "cy@member.example"


def test_an_address_named_twice_gets_one_copy() -> None:
    assert built(to=["a@b.example", "A <a@b.example>"], cc=["a@b.example"]).recipients == ["a@b.example"]


def test_the_message_id_depends_on_the_key_alone() -> None:
    assert built(subject="one").message_id == built(subject="two").message_id
    other = build(EmailRequest(template="t", to="a@b.example"), RENDERED, [], sender="p@bank.example", key="emails/2")
    assert other.message_id != built().message_id
    assert built().message_id.endswith("@bank.example>")


INJECTIONS = ["x\r\nBcc: thief@evil.example", "x\nBcc: thief@evil.example", "x\rBcc: y", "x\x00", "x\u2028y", "\x1b[2J"]


@pytest.mark.parametrize("bad", INJECTIONS)
@pytest.mark.parametrize("field", ["subject", "sender", "reply_to", "to", "cc", "bcc", "headers", "filename", "type"])
def test_a_control_character_is_refused_in_every_header_and_address(field: str, bad: str) -> None:
    files: list[tuple[Attachment, bytes]] = []
    more: dict[str, Any]
    if field in ("cc", "bcc"):
        more = {field: [f"{bad}@b.example"]}
    elif field in ("to", "sender", "reply_to"):
        more = {field: f"{bad} <a@b.example>"}
    elif field == "headers":
        more = {"headers": {"X-Note": bad}}
    elif field in ("filename", "type"):
        kind = {"filename": bad} if field == "filename" else {"filename": "a.pdf", "content_type": bad}
        more, files = {}, [(Attachment(**kind), b"")]
    else:
        more = {field: bad}
    with pytest.raises(BadEmail, match="must not contain control characters"):
        built(files, **more)


def test_a_subject_rendered_from_a_poisoned_value_is_refused() -> None:
    rendered = Rendered("Welcome, Bob\r\nBcc: thief@evil.example", "", "")
    with pytest.raises(BadEmail, match="subject must not contain control characters"):
        build(EmailRequest(template="t", to="a@b.example"), rendered, [], sender="p@bank.example", key="k")


@pytest.mark.parametrize(
    "address",
    ["", "ada", "ada@", "@member.example", "a@b.example, c@d.example", "<a@b.example", "a b@c.example",
     "group: a@b.example;", "a@b..example", "ä@member.example", "a@" + "x" * 64 + ".example"],
)  # fmt: skip
def test_what_is_not_exactly_one_address_is_refused(address: str) -> None:
    with pytest.raises(BadEmail, match="to: not an"):
        built(to=address)


def test_a_domain_outside_ascii_travels_in_its_idna_form() -> None:
    assert built(to="ada@bücher.example").recipients == ["ada@xn--bcher-kva.example"]


def test_an_email_without_recipients_is_refused() -> None:
    with pytest.raises(BadEmail, match="no recipient"):
        built(to=[])


@pytest.mark.parametrize("name", ["Bcc", "FROM", "Content-Type", "Message-ID", "X Y", "X:Y", "", "X\r\nBcc"])
def test_a_request_may_not_set_a_header_that_is_ours_or_no_name(name: str) -> None:
    with pytest.raises(BadEmail, match="may not set the header"):
        built(headers={name: "value"})


def test_further_headers_pass() -> None:
    header = {"List-Unsubscribe": "<https://bank.example/u?x=1>"}
    assert parsed(built(headers=header))["List-Unsubscribe"] == "<https://bank.example/u?x=1>"


def test_attachments_keep_their_bytes_names_and_types() -> None:
    files = [
        (Attachment(filename="Auszug März.pdf"), b"%PDF-\x00\xff"),
        (Attachment(filename="raw", content_type="application/x-own"), b"\r\n.\r\n"),
    ]
    one, two = parsed(built(files)).iter_attachments()
    assert (one.get_filename(), one.get_content_type()) == ("Auszug März.pdf", "application/pdf")
    assert one.get_content() == b"%PDF-\x00\xff"
    assert (two.get_filename(), two.get_content_type()) == ("raw", "application/x-own")
    assert two.get_content() == b"\r\n.\r\n"


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "a\\b.exe"])
def test_an_attachments_name_is_a_name_not_a_path(name: str) -> None:
    with pytest.raises(BadEmail, match="not an attachment's file name"):
        built([(Attachment(filename=name), b"")])


@pytest.mark.parametrize("kind", ["pdf", "multipart/mixed", "message/rfc822", "a/b; name=x", "text/"])
def test_an_attachments_type_must_be_one_that_can_be_attached(kind: str) -> None:
    with pytest.raises(BadEmail, match="not a content type"):
        built([(Attachment(filename="a.pdf", content_type=kind), b"")])


def test_a_bad_request_is_not_worth_a_retry() -> None:
    assert issubclass(BadEmail, Unrecoverable)


def test_the_request_reads_camel_case_and_refuses_unknown_fields() -> None:
    request = msgspec.convert({"template": "t", "to": "a@b.example", "replyTo": "c@d.example"}, EmailRequest)
    assert request.reply_to == "c@d.example"
    with pytest.raises(msgspec.ValidationError, match="unknown field `subjekt`"):
        msgspec.convert({"template": "t", "to": "a@b.example", "subjekt": "x"}, EmailRequest)

"""Webhook signatures: the scheme's published example, and everything that must not pass."""

from __future__ import annotations

import pytest

from streamq.errors import InvalidInput
from streamq.processors.integrations_signature import BadSignature, sign, verify

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - the published example's
BODY = b'{"test": 2432232314}'
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
AT = 1_614_265_330
NEVER: dict[str, str] = {}


def test_the_signature_is_that_of_the_published_example() -> None:
    """The values are the test vector of the Standard Webhooks reference libraries."""
    assert sign(SECRET, ID, AT, BODY) == {
        "webhook-id": ID,
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@pytest.mark.parametrize("secret", [SECRET, "a plain secret"])
def test_what_was_signed_verifies_whatever_the_case_of_the_headers(secret: str) -> None:
    headers = {name.title(): value for name, value in sign(secret, ID, AT, BODY).items()}
    assert verify(secret, headers, BODY, now=AT + 300) == ID


def test_one_of_several_signatures_is_enough() -> None:
    headers = sign(SECRET, ID, AT, BODY)
    headers["webhook-signature"] = "v1,AAAA v2,zzz " + headers["webhook-signature"]
    assert verify(SECRET, headers, BODY, now=AT) == ID


@pytest.mark.parametrize(
    ("change", "body", "now", "text"),
    [
        (NEVER, BODY + b" ", AT, "does not fit"),
        ({"webhook-id": "msg_other"}, BODY, AT, "does not fit"),
        ({"webhook-timestamp": str(AT + 1)}, BODY, AT, "does not fit"),
        ({"webhook-signature": "v1,"}, BODY, AT, "does not fit"),
        ({"webhook-signature": "v1,é"}, BODY, AT, "does not fit"),
        ({"webhook-timestamp": "now"}, BODY, AT, "lacks a webhook header"),
        (NEVER, BODY, AT + 301, "too far from now"),
        (NEVER, BODY, AT - 301, "too far from now"),
    ],
)
def test_what_was_changed_or_is_old_does_not_pass(change: dict[str, str], body: bytes, now: float, text: str) -> None:
    with pytest.raises(BadSignature, match=text):
        verify(SECRET, {**sign(SECRET, ID, AT, BODY), **change}, body, now=now)


def test_a_missing_header_does_not_pass() -> None:
    with pytest.raises(BadSignature, match="lacks a webhook header"):
        verify(SECRET, {}, BODY, now=AT)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_not base64"])
def test_a_secret_that_protects_nothing_is_refused(secret: str) -> None:
    with pytest.raises(InvalidInput, match="webhook secret"):
        sign(secret, ID, AT, BODY)

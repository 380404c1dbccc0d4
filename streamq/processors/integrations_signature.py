"""Sign a webhook's body, and check such a signature: the Standard Webhooks scheme (standardwebhooks.com), v1.

The signature is HMAC-SHA256 over `id.timestamp.body`, so that neither the body nor its age nor its id can be changed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping

from streamq.errors import InvalidInput, StreamqError

TOLERANCE = 300.0
"""Seconds that a timestamp may lie from now."""


class BadSignature(StreamqError):
    """The request was not signed with this secret, or not lately. Don't act on it."""


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers that sign `body`; `timestamp` is in seconds since 1970.

    Raises:
        InvalidInput: The secret is empty or not proper base64.
    """
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": _signature(_key(secret), message_id, str(timestamp), body),
    }


def verify(secret: str, headers: Mapping[str, str], body: bytes, *, now: float, tolerance: float = TOLERANCE) -> str:
    """Return the message id of a request that was signed with `secret` within `tolerance` seconds of `now`.

    Raises:
        BadSignature: It was not.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    try:
        message_id, timestamp = lower["webhook-id"], lower["webhook-timestamp"]
        given = lower["webhook-signature"].split()
        age = abs(now - int(timestamp))
    except (KeyError, ValueError):
        raise BadSignature("the request lacks a webhook header") from None
    if age > tolerance:
        raise BadSignature("the request's timestamp is too far from now")
    expected = _signature(_key(secret), message_id, timestamp, body).encode()
    # Several may be given while a secret is being replaced.
    if not any(hmac.compare_digest(one.encode(), expected) for one in given):
        raise BadSignature("the signature does not fit the body")
    return message_id


def _signature(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def _key(secret: str) -> bytes:
    if not secret.startswith("whsec_"):
        key = secret.encode()
    else:
        try:
            key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except binascii.Error:
            raise InvalidInput("a webhook secret that starts with whsec_ must go on in base64") from None
    if not key:
        raise InvalidInput("a webhook secret must not be empty")
    return key

"""Post to an outside service over HTTP, and turn its answer into what the job does next.

2xx is success. 408, 425, 429, 5xx, timeouts and broken connections are worth a retry, at the time that `Retry-After`
names if it does. Anything else is permanent, redirects too: a signed body goes to the address it was meant for.
Nothing is retried here; that is the queue's work.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import aiohttp

from streamq.errors import RetryAfter, StreamqError, Unrecoverable

LONGEST_WAIT = 86_400.0
"""Seconds that a server's Retry-After may hold a job back; a longer one is cut to this."""

_ANSWER_LIMIT = 65_536
_WORTH_A_RETRY = frozenset({408, 425, 429})


class ServiceUnavailable(StreamqError):
    """The outside service could not be reached or could not answer now. Whether it acted is unknown: try again."""


class Answer(NamedTuple):
    """A success: status, body (its first 64 KiB)."""

    status: int
    body: bytes


async def post(url: str, body: bytes, headers: Mapping[str, str], *, timeout: float = 10.0) -> Answer:
    """Post `body` to `url` once, all within `timeout` seconds.

    Raises:
        Unrecoverable: The service refused for good.
        RetryAfter: It said when to come again.
        ServiceUnavailable: It may work later.
    """
    limits = aiohttp.ClientTimeout(total=timeout)
    where = _public(url)
    try:
        async with (
            aiohttp.ClientSession(timeout=limits) as session,
            session.post(url, data=body, headers=dict(headers), allow_redirects=False) as response,
        ):
            answer = Answer(response.status, await _read(response))
            wait = retry_after(response.headers.get("Retry-After"))
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
        raise Unrecoverable(f"not a URL: {where[:200]!r}") from None
    except TimeoutError as error:
        raise ServiceUnavailable(f"{where} did not answer within {timeout:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        raise ServiceUnavailable(f"{where}: {type(error).__name__}: {error}") from error
    _judge(answer, wait, where)
    return answer


def _public(url: str) -> str:
    """Return the URL without its query and without a password: it goes into error texts."""
    return url.split("?")[0].rpartition("@")[2]


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Read the start of the answer: a server can't fill our memory."""
    found = b""
    while len(found) < _ANSWER_LIMIT:
        chunk = await response.content.read(_ANSWER_LIMIT - len(found))
        if not chunk:
            break
        found += chunk
    return found


def _judge(answer: Answer, wait: float | None, where: str) -> None:
    if 200 <= answer.status < 300:
        return
    text = f"{where} answered {answer.status}: {answer.body[:200].decode(errors='replace')}"
    if answer.status not in _WORTH_A_RETRY and answer.status < 500:
        raise Unrecoverable(text)
    if wait is not None:
        raise RetryAfter(wait, text)
    raise ServiceUnavailable(text)


def retry_after(value: str | None, *, now: datetime | None = None) -> float | None:
    """Return the seconds that a Retry-After header (seconds or a date) asks for, 0 to a day; None if it names none."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:12]), LONGEST_WAIT)
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return min(max(0.0, (when - (now or datetime.now(UTC))).total_seconds()), LONGEST_WAIT)

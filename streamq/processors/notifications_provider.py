"""Who carries push and SMS: the interface of a provider, and the one that speaks HTTP.

`STREAMQ_PUSH_URL` / `STREAMQ_SMS_URL` name the HTTP provider's address, `…_TOKEN` its bearer token, `…_TIMEOUT` its
seconds. Another provider takes its place by `STREAMQ_PUSH_PROVIDER=module:factory`, a function without arguments.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Protocol

import msgspec

from streamq.errors import InvalidInput
from streamq.processors.integrations_http import post


class Notice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a provider is asked to carry."""

    channel: str
    recipient: str
    body: str
    title: str | None = None
    data: dict[str, str] = {}


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """A provider's word that it took the notice; `message_id` is its own name for it."""

    message_id: str | None = None


class Provider(Protocol):
    """Carries notices of one channel."""

    async def send(self, notice: Notice, key: str) -> Receipt:
        """Hand the notice over once per `key`: a repeat with the same key must not reach the recipient twice.

        Raises:
            Unrecoverable: Refused for good.
            RetryAfter: Come again then.
            StreamqError: It may work later.
        """
        ...


class HttpProvider:
    """Posts each notice as JSON, with the key in `Idempotency-Key`."""

    def __init__(self, url: str, *, token: str | None = None, timeout: float = 10.0) -> None:
        self._url, self._timeout = url, timeout
        self._headers = {"Content-Type": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"

    async def send(self, notice: Notice, key: str) -> Receipt:
        """Post the notice; see Provider.send."""
        headers = {**self._headers, "Idempotency-Key": key}
        answer = await post(self._url, msgspec.json.encode(notice), headers, timeout=self._timeout)
        try:
            return Receipt(message_id=msgspec.json.decode(answer.body, type=_Reply).id)
        except msgspec.DecodeError:
            return Receipt()  # taken, by the status; an answer that we can't read must not send it again


class _Reply(msgspec.Struct):
    id: str | None = None


def provider_from_env(channel: str, env: Mapping[str, str] | None = None) -> Provider:
    """Return the provider of `channel` ("push" or "sms") that the environment names.

    Raises:
        InvalidInput: It names none, or one that can't be loaded. The message holds no token.
    """
    env = os.environ if env is None else env
    prefix = f"STREAMQ_{channel.upper()}"
    if target := env.get(f"{prefix}_PROVIDER"):
        module, _, attribute = target.partition(":")
        try:
            provider: Provider = getattr(importlib.import_module(module), attribute)()
        except (ImportError, AttributeError, ValueError) as error:
            raise InvalidInput(f"{prefix}_PROVIDER={target}: {error}") from error
        return provider
    url = env.get(f"{prefix}_URL")
    if not url:
        raise InvalidInput(f"{prefix}_URL or {prefix}_PROVIDER must say who carries {channel} notifications")
    try:
        timeout = float(env.get(f"{prefix}_TIMEOUT") or 10.0)
    except ValueError:
        raise InvalidInput(f"{prefix}_TIMEOUT must be a number of seconds") from None
    return HttpProvider(url, token=env.get(f"{prefix}_TOKEN") or None, timeout=timeout)

"""Where data is synchronised from and to, and where webhooks go: by name, from the environment, never from a job.

`ledger` is the ledger of `STREAMQ_LEDGER_URL`. Any other name N is `STREAMQ_SYNC_<N>_URL` (capitals, dashes as
underscores): sqlite:// and postgresql:// are ledgers, http:// and https:// are webhooks, which need
`STREAMQ_SYNC_<N>_SECRET` and may have `STREAMQ_SYNC_<N>_TIMEOUT` in seconds. So a job can send data only where the
bank's operators let it, and no secret is in Redis.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

import msgspec

from streamq.errors import InvalidInput
from streamq.processors.ledger.database import ledger_url

MAIN = "ledger"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}\Z")


class LedgerPlace(msgspec.Struct, frozen=True):
    """A ledger; None is the one of `STREAMQ_LEDGER_URL`."""

    name: str
    url: str | None

    def __repr__(self) -> str:
        return f"<LedgerPlace {self.name}>"


class WebhookPlace(msgspec.Struct, frozen=True):
    """An HTTP endpoint that takes signed batches."""

    name: str
    url: str
    secret: str
    timeout: float = 10.0

    def __repr__(self) -> str:
        return f"<WebhookPlace {self.name}>"


def place(name: str, env: Mapping[str, str] | None = None) -> LedgerPlace | WebhookPlace:
    """Return what `name` stands for.

    Raises:
        InvalidInput: It is no name, or the environment does not say where it is. The message holds no secret.
    """
    env = os.environ if env is None else env
    if not _NAME.match(name):
        raise InvalidInput(f"not a place's name (small letters, digits, dashes): {name[:60]!r}")
    if name == MAIN:
        return LedgerPlace(name, env.get("STREAMQ_LEDGER_URL"))
    prefix = f"STREAMQ_SYNC_{name.upper().replace('-', '_')}"
    url = env.get(f"{prefix}_URL")
    if not url:
        raise InvalidInput(f"{prefix}_URL must say where {name!r} is")
    if not url.startswith(("http://", "https://")):
        ledger_url(url)  # raises if it is no ledger either
        return LedgerPlace(name, url)
    secret = env.get(f"{prefix}_SECRET")
    if not secret:
        raise InvalidInput(f"{prefix}_SECRET must hold the key that {name!r} checks signatures with")
    try:
        timeout = float(env.get(f"{prefix}_TIMEOUT") or 10.0)
    except ValueError:
        raise InvalidInput(f"{prefix}_TIMEOUT must be a number of seconds") from None
    return WebhookPlace(name, url, secret, timeout)


def webhook(name: str, env: Mapping[str, str] | None = None) -> WebhookPlace:
    """Return the webhook `name`; raise InvalidInput if there is none."""
    found = place(name, env)
    if not isinstance(found, WebhookPlace):
        raise InvalidInput(f"{name!r} is a ledger, not a webhook")
    return found

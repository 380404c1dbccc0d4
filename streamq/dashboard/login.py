"""Logging in: a form for a name and a password, or for a token, and a brake on guessing."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import MutableMapping
from typing import Any

from streamq.dashboard.access import Access
from streamq.dashboard.passwords import hash_password, password_fits

MOST_FAILURES = 10
FORGET_SECONDS = 300.0
MOST_PLACES = 1_000
AT_ONCE = 2
"""Passwords that are checked at the same time: each takes 16 MB and a core."""


class Logins:
    """Checks what visitors give, and slows down those who guess."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()
        self._checking = asyncio.Semaphore(AT_ONCE)
        self._decoy: str | None = None

    def is_braked(self, place: str) -> bool:
        """Whether too many guesses have come from a place in the last minutes."""
        failures = self._failures.get(place)
        while failures and failures[0] < time.monotonic() - FORGET_SECONDS:
            failures.popleft()
        return failures is not None and len(failures) >= MOST_FAILURES

    async def enter(self, place: str, session: MutableMapping[str, Any], name: str, secret: str) -> bool:
        """Start a session for a user, or for whoever has a token (with no name); False if it does not fit."""
        found = await (self._by_password(name, secret) if name else self._by_token(secret))
        if found is None:
            self._failures.setdefault(place, deque(maxlen=MOST_FAILURES)).append(time.monotonic())
            if len(self._failures) > MOST_PLACES:
                self._failures.popitem(last=False)
            return False
        self._failures.pop(place, None)
        session.clear()  # nothing that was there before the login is of use after it
        session.update(found)
        return True

    async def _by_token(self, token: str) -> dict[str, str] | None:
        return None if self._access.token_role(token) is None else self._access.session_of_token(token)

    async def _by_password(self, name: str, password: str) -> dict[str, str] | None:
        user = self._access.users.get(name)
        async with self._checking:
            if user is None:  # takes as long as a user's, so that names can't be told apart
                if self._decoy is None:
                    self._decoy = await asyncio.to_thread(hash_password, secrets.token_hex(16))
                await asyncio.to_thread(password_fits, password, self._decoy)
                return None
            fits = await asyncio.to_thread(password_fits, password, user.password)
        return self._access.session_of(name, user) if fits else None

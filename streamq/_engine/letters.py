"""Follows a queue's dead letters as they are written, over reconnects."""

from __future__ import annotations

import asyncio
import logging

from streamq._engine import keys
from streamq._engine.pages import StoredLetter
from streamq._engine.store import FIRST_PAUSE, LONGEST_PAUSE, Store, refusal
from streamq._engine.wire import Wire
from streamq.errors import StoreError

log = logging.getLogger("streamq.store")

BLOCK = 5.0
"""Seconds that one read waits at the server."""
READ_LETTERS = 50


class LetterReader:
    """Reads dead letters in order, on a connection of its own, behind `after` or behind the last one there is."""

    def __init__(self, store: Store, wire: Wire, after: str | None) -> None:
        self._store, self._wire, self._after = store, wire, after
        self._key = keys.dead(store.base)

    async def start(self) -> None:
        """Take the position from which to read: from here on no letter is missed."""
        if self._after is None:
            last = await self._store.command("XREVRANGE", self._key, "+", "-", "COUNT", 1)
            self._after = last[0][0].decode() if last else "0-0"

    def go_to(self, letter: str) -> None:
        """Read on behind this letter."""
        self._after = letter

    async def read_on(self) -> list[StoredLetter]:
        """Wait for letters and return them; an empty list after some seconds without any. Waits through outages."""
        pause = FIRST_PAUSE
        while True:
            try:
                return await self._read()
            except StoreError as error:
                log.warning("reading dead letters failed, going on in %.2f s: %s", pause, error)
                self._store.on_error(error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    async def _read(self) -> list[StoredLetter]:
        await self.start()
        # Only to wait: the page behind it says of each letter whether its job is still kept.
        command = ("XREAD", "BLOCK", int(BLOCK * 1000), "COUNT", 1, "STREAMS", self._key, self._after)
        reply = await self._wire.call(*command, wait=BLOCK)
        if isinstance(reply, Exception):
            raise refusal(reply, self._wire)
        if not reply:
            return []
        page = await self._store.dead_letters(self._after or "", READ_LETTERS)
        if page.letters:
            self._after = page.letters[-1].letter
        return page.letters

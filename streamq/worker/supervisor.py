"""Keep a background loop going.

A loop that raises is logged and started again, later and later; only its owner's cancellation ends it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from streamq.observer import ErrorHandler

log = logging.getLogger("streamq.worker")

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0


async def supervise(name: str, loop: Callable[[], Awaitable[None]], on_error: ErrorHandler) -> None:
    """Run `loop` until it returns; start it again whenever it raises."""
    pause = FIRST_PAUSE
    while True:
        started = asyncio.get_running_loop().time()
        try:
            await loop()
            return
        except Exception as error:
            log.exception("%s failed; it goes on in %.1f s", name, pause)
            on_error(error)
            if asyncio.get_running_loop().time() - started > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

"""Pages that stay up to date: one loop per page that is watched draws it anew, for all who watch it, as events.

A loop starts with the first watcher and ends with the last one. Redis being away is told as an event, too; the loop
goes on and tells when it is back.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress

from streamq.dashboard.pages import NotThere
from streamq.errors import InvalidInput, StoreError

log = logging.getLogger("streamq.dashboard")

INTERVAL = 2.0
HEARTBEAT = 15.0
MOST_CHANNELS = 200

Draw = Callable[[], Awaitable[str]]


class Crowded(Exception):
    """As many different pages are being watched as this process takes."""


class Hub:
    """All pages that are being watched."""

    def __init__(self, interval: float = INTERVAL) -> None:
        self.interval = interval
        self._channels: dict[object, _Channel] = {}
        self._closed = asyncio.Event()

    def watch(self, key: object, draw: Draw) -> AsyncGenerator[str, None]:
        """Return the events of the page `key`, which `draw` draws; they end with the hub.

        Raises:
            Crowded: Too many pages are watched already.
        """
        if key not in self._channels and len(self._channels) >= MOST_CHANNELS:
            raise Crowded
        return self._events(key, draw)

    def nudge(self) -> None:
        """Draw all watched pages now: something was done."""
        for channel in self._channels.values():
            channel.due.set()

    def close(self) -> None:
        """End all watching."""
        self._closed.set()
        for channel in self._channels.values():
            channel.stop()

    async def _events(self, key: object, draw: Draw) -> AsyncGenerator[str, None]:
        channel = self._channels.get(key)
        if channel is None:
            channel = self._channels[key] = _Channel(draw, self.interval)
        channel.watchers += 1
        seen = 0
        try:
            while not self._closed.is_set():
                if channel.version != seen:
                    seen = channel.version
                    yield channel.message
                    continue
                news = channel.news
                with suppress(TimeoutError):
                    async with asyncio.timeout(HEARTBEAT):
                        await news.wait()
                if channel.version == seen:
                    yield ": still here\n\n"
        finally:
            channel.watchers -= 1
            if not channel.watchers:
                channel.stop()
                if self._channels.get(key) is channel:
                    del self._channels[key]


class _Channel:
    def __init__(self, draw: Draw, interval: float) -> None:
        self.watchers, self.version, self.message = 0, 0, ""
        self.news, self.due = asyncio.Event(), asyncio.Event()
        self._task = asyncio.create_task(self._run(draw, interval), name="streamq-dashboard-page")

    def stop(self) -> None:
        self._task.cancel()
        self.news.set()

    async def _run(self, draw: Draw, interval: float) -> None:
        while True:
            self.due.clear()
            message = await _drawn(draw)
            if message != self.message:
                self.message = message
                self.version += 1
                self.news.set()
                self.news = asyncio.Event()
            with suppress(TimeoutError):
                async with asyncio.timeout(interval):
                    await self.due.wait()


async def _drawn(draw: Draw) -> str:
    try:
        return _event("live", await draw())
    except StoreError as error:
        return _event("trouble", str(error))
    except (NotThere, InvalidInput) as error:
        return _event("gone", str(error))
    except Exception:
        log.exception("drawing a page failed")
        return _event("trouble", "the dashboard could not draw this page; its log says why")


def _event(kind: str, text: str) -> str:
    # As JSON the text is one line, whatever is in it.
    return f"event: {kind}\ndata: {json.dumps(text)}\n\n"

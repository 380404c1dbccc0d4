"""The dashboard as it is served: uvicorn on a free port of this machine, over a real server."""

from __future__ import annotations

import asyncio
import html
import json
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest
import uvicorn

from streamq import Queue, Settings
from streamq.dashboard import Access, create_app
from streamq.dashboard.app import Dashboard

PATIENCE = 30.0


class Quiet(uvicorn.Server):
    """A server that leaves the process's signals alone, and says when it is up."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @asynccontextmanager
    async def capture_signals(self) -> AsyncIterator[None]:  # type: ignore[override]
        yield

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        await self._serve(sockets)


@asynccontextmanager
async def served(app: Any, hub: Dashboard) -> AsyncIterator[str]:
    """Serve an app; yields its address."""
    place = socket.socket()
    place.bind(("127.0.0.1", 0))
    server = Quiet(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=3))
    task = asyncio.create_task(server.serve([place]))
    try:
        async with asyncio.timeout(PATIENCE):
            await server.up.wait()
        yield f"http://127.0.0.1:{place.getsockname()[1]}"
    finally:
        hub.hub.close()
        server.should_exit = True
        await task
        place.close()


class Answer(msgspec.Struct):
    """What came back."""

    status: int
    text: str
    headers: Any
    path: str

    @property
    def words(self) -> str:
        """The page's text, without its tags."""
        body = self.text.partition("<main")[2] or self.text
        return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


class Browser:
    """Somebody who looks at pages and sends their forms."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session, self.url = session, url
        self.csrf = ""

    async def get(self, path: str, **options: Any) -> Answer:
        """Ask for a page."""
        headers = {"accept": "text/html", **options.pop("headers", {})}
        async with self.session.get(self.url + path, headers=headers, **options) as found:
            return await self._read(found)

    async def post(self, path: str, form: Any = None, **options: Any) -> Answer:
        """Send a form with the token of the last page that had one."""
        pairs = [("csrf", self.csrf), *(form.items() if isinstance(form, dict) else form or [])]
        async with self.session.post(self.url + path, data=aiohttp.FormData(pairs), **options) as found:
            return await self._read(found)

    async def _read(self, found: aiohttp.ClientResponse) -> Answer:
        text = await found.text()
        tokens = re.findall(r'name="csrf" value="([^"]+)"', text)
        self.csrf = tokens[0] if tokens else self.csrf
        return Answer(found.status, text, found.headers, found.url.path_qs)

    @asynccontextmanager
    async def watch(self, path: str) -> AsyncIterator[Callable[[], Any]]:
        """Open a page's event stream; yields what waits for its next event, as (kind, text)."""
        timeout = aiohttp.ClientTimeout(total=None, sock_read=PATIENCE)
        headers = {"accept": "text/event-stream"}
        async with self.session.get(self.url + path, headers=headers, timeout=timeout) as stream:
            assert stream.status == 200, await stream.text()
            assert stream.content_type == "text/event-stream"

            async def following() -> tuple[str, str]:
                kind = ""
                async with asyncio.timeout(PATIENCE):
                    while True:
                        line = (await stream.content.readuntil(b"\n")).decode().rstrip("\n")
                        name, _, value = line.partition(": ")
                        if name == "event":
                            kind = value
                        elif name == "data":
                            return kind, json.loads(value)

            yield following


@pytest.fixture
async def dashboard(settings: Settings, queue: Queue) -> AsyncIterator[Callable[..., Any]]:
    """Serve the dashboard of `queue`, with a given access, to a browser of its own."""
    async with AsyncExitStack() as stack:

        async def serve(access: Access | None = None, **options: Any) -> Browser:
            app = create_app([queue, "other"], access=access, settings=settings, **{"interval": 0.05, **options})
            url = await stack.enter_async_context(served(app, app))
            return await stack.enter_async_context(browsing(url))

        yield serve


@asynccontextmanager
async def browsing(url: str) -> AsyncIterator[Browser]:
    """A browser with cookies of its own."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield Browser(session, url)


@pytest.fixture
async def browser(dashboard: Callable[..., Any]) -> Browser:
    """A browser at a dashboard without a login."""
    found: Browser = await dashboard()
    return found

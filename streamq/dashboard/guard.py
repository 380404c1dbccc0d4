"""What every request passes before a page is drawn: who asks, from where, how much; and the headers it goes back with.

Plain ASGI, so that event streams pass through unbuffered.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamq.dashboard.access import Access

MOST_BODY = 262_144
LOGIN, STATIC = "/login", "/static/"
"""What is there for everybody."""
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """Lets in whom `access` lets in; leaves the visitor in the request's state."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                if not headers.get("cache-control"):
                    headers["cache-control"] = "no-store"
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        peer = peer_of(scope)
        visitor = self._access.visitor(peer, headers, scope["session"])
        scope.setdefault("state", {})["visitor"] = visitor
        root, path = scope.get("root_path", ""), inner_path(scope)
        posts = scope["method"] not in ("GET", "HEAD")
        if posts and (wrong := _wrong_post(headers)):
            return wrong
        if visitor is not None or path.startswith(STATIC) or (path == LOGIN and self._access.has_form):
            return None
        if not self._access.has_login:
            return PlainTextResponse(
                "This dashboard has no login, so it answers this machine alone, by the name localhost.\n"
                "docs/dashboard.md tells how to let others in.\n",
                403,
            )
        if posts or not self._access.has_form or "text/html" not in headers.get("accept", ""):
            return PlainTextResponse("Log in first.\n", 401, {"www-authenticate": "Bearer"})
        return RedirectResponse(f"{root}/login", 303)


def peer_of(scope: Scope) -> str:
    """Return the address that a request comes from; "" if it has none."""
    client = scope.get("client")
    return client[0] if client else ""


def inner_path(scope: Scope) -> str:
    """Return the path below the place where the dashboard is mounted."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")) or "/"


def _wrong_post(headers: Headers) -> Response | None:
    """Refuse a request that another site had a browser send, or that is too large."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        foreign = site != "same-origin"
    else:  # browsers say so over HTTPS and on localhost only
        foreign = origin is not None and urlsplit(origin).netloc != headers.get("host")
    if foreign:
        return PlainTextResponse("This came from another site.\n", 403)
    length = headers.get("content-length", "")
    if not length.isdigit():
        return PlainTextResponse("Say how long it is.\n", 411)
    if int(length) > MOST_BODY:
        return PlainTextResponse("This is too much.\n", 413)
    return None

"""The dashboard as an ASGI app: its addresses, and how a request becomes a page, an event stream, or a deed."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from streamq.dashboard.access import Access, Visitor
from streamq.dashboard.actions import ACTIONS
from streamq.dashboard.audit import Deed, note
from streamq.dashboard.desk import Desk
from streamq.dashboard.drawing import FOLDER, Links, environment, is_inside
from streamq.dashboard.guard import Guard, inner_path, peer_of
from streamq.dashboard.live import INTERVAL, Crowded, Hub
from streamq.dashboard.login import Logins
from streamq.dashboard.pages import PAGES, WRONG, Elsewhere, NotThere, Page, Shown
from streamq.errors import InvalidInput, StoreError, StoreUnavailable, StreamqError
from streamq.queue import Queue
from streamq.settings import Settings

TIMEOUT = 2.0
"""Seconds that a page waits for Redis before it says that it is away."""
MOST_FIELDS = 1_000
COOKIE = "streamq_dashboard"
TOLD = ("state", "hours", "name", "error", "reason", "rate", "concurrency", "weight")
"""The fields of forms that are written down with what was done."""


class Dashboard(Starlette):
    """The app that `create_app` makes. Where no lifespan runs it (mounted), call `close` at the end."""

    hub: Hub
    desk: Desk
    _own: list[Queue]

    async def close(self) -> None:
        """End all event streams and close the connections of queues that were given by name."""
        self.hub.close()
        for queue in self._own:
            await queue.close()


def create_app(
    queues: Iterable[str | Queue],
    *,
    access: Access | None = None,
    settings: Settings | None = None,
    interval: float = INTERVAL,
) -> Dashboard:
    """Make the dashboard of these queues, to be served alone or mounted in another ASGI app.

    Queues are given by name (`settings`, or the environment, say where Redis is) or as `Queue`s, which stay the
    caller's to close. With no `access` it answers this machine alone. Pages are drawn anew every `interval` seconds
    while somebody watches them.

    Raises:
        InvalidInput: No queue was given, or a name can't be one.
    """
    settings = settings or Settings.from_env()
    quick = msgspec.structs.replace(settings, timeout=min(settings.timeout, TIMEOUT))
    own, found = [], []
    for queue in queues:
        if isinstance(queue, str):
            queue = Queue(queue, settings=quick, shards="stored")
            own.append(queue)
        found.append(queue)
    if not found:
        raise InvalidInput("the dashboard needs at least one queue")
    access = access or Access()
    clerk = _Clerk(Desk(found), Hub(interval), access)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        assert isinstance(app, Dashboard)  # noqa: S101 - it was made below
        await app.close()

    app = Dashboard(
        routes=[
            *(Route(page.path, clerk.page(page), name=page.template) for page in PAGES),
            Route("/do/{action}", clerk.act, methods=["POST"]),
            Route("/login", clerk.login, methods=["GET", "POST"]),
            Route("/logout", clerk.logout, methods=["POST"]),
            Mount("/static", StaticFiles(directory=FOLDER / "static")),
        ],
        middleware=[
            Middleware(
                SessionMiddleware,
                secret_key=access.secret or secrets.token_urlsafe(32),
                session_cookie=COOKIE,
                max_age=access.session_seconds,
                same_site="strict",
                https_only=access.secure_cookies,
            ),
            Middleware(Guard, access=access),
        ],
        exception_handlers={HTTPException: clerk.refuse},
        lifespan=lifespan,
    )
    app.hub, app.desk, app._own = clerk.hub, clerk.desk, own
    return app


class _Clerk:
    """Answers requests."""

    def __init__(self, desk: Desk, hub: Hub, access: Access) -> None:
        self.desk, self.hub, self._access = desk, hub, access
        self._templates = environment()
        self._logins = Logins(access)

    # Looking ----------------------------------------------------------------------------------------------------------

    def page(self, page: Page) -> Any:
        """Return what answers requests for a page."""

        async def answer(request: Request) -> Response:
            if "text/event-stream" in request.headers.get("accept", ""):
                return self._stream(page, request)
            try:
                shown = await page.load(self.desk, request.query_params)
            except Elsewhere as place:
                return RedirectResponse(Links(request.scope.get("root_path", ""))(place.path, **place.ask), 303)
            except NotThere as error:
                return self._draw(request, "gone.html", {"why": str(error)}, 404)
            except StoreError as error:
                return self._draw(request, "trouble.html", {"why": str(error)}, 503)
            except WRONG as error:
                return self._draw(request, "gone.html", {"why": str(error)}, 400)
            return self._draw(request, page.template, shown)

        return answer

    def _stream(self, page: Page, request: Request) -> Response:
        ask, visitor = request.query_params, _visitor(request)
        links = Links(request.scope.get("root_path", ""))
        template = self._templates.get_template(page.template)

        async def draw() -> str:
            shown = await page.load(self.desk, ask)
            context = template.new_context({**shown, "to": links, "may_act": visitor.may_act})
            return "".join(template.blocks["live"](context))

        key = page.path, str(ask), visitor.may_act, links.root
        try:
            events = self.hub.watch(key, draw)
        except Crowded:
            return PlainTextResponse("Too many pages are being watched.\n", 503)
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    async def refuse(self, request: Request, error: Exception) -> Response:
        """Answer a request for what is not there."""
        assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for these
        if error.status_code != 404 or "text/html" not in request.headers.get("accept", ""):
            return PlainTextResponse(f"{error.detail}\n", error.status_code, error.headers)
        return self._draw(request, "gone.html", {"why": "there is no such page"}, 404)

    def _draw(self, request: Request, template: str, shown: Shown, status: int = 200) -> HTMLResponse:
        visitor: Visitor | None = request.state.visitor
        root = request.scope.get("root_path", "")
        here = inner_path(request.scope) + (f"?{request.url.query}" if request.url.query else "")
        common = {
            "to": Links(root),
            "here": root + here,
            "path": inner_path(request.scope),
            "visitor": visitor,
            "may_act": visitor is not None and visitor.may_act,
            "csrf": _csrf(request.session) if visitor is None or visitor.ambient else "",
            "said": request.session.pop("said", None),
            "has_form": self._access.has_form,
            "all_queues": list(self.desk.queues),
        }
        return HTMLResponse(self._templates.get_template(template).render({**common, "live": True, **shown}), status)

    # Acting -----------------------------------------------------------------------------------------------------------

    async def act(self, request: Request) -> Response:
        """Do what a form asks for, or ask back first."""
        visitor, links = _visitor(request), Links(request.scope.get("root_path", ""))
        ask = request.query_params
        form, ticked = await _form(request)
        name, queue = request.path_params["action"], self.desk.queues.get(ask.get("q", ""))
        action = ACTIONS.get(name)
        if action is None or queue is None:
            return self._draw(request, "gone.html", {"why": "there is no such action, or no such queue"}, 404)
        ids = [ask["id"]] if "id" in ask else ticked
        more = ", ".join(f"{k}={form[k]}" for k in TOLD if form.get(k))
        deed = Deed(name, queue.name, ids, more)
        if visitor.ambient and not _csrf_fits(request.session, form.get("csrf", "")):
            note(visitor, peer_of(request.scope), deed, "refused: the form was not this session's")
            return self._draw(request, "gone.html", {"why": "the form was too old: go back, reload, try again"}, 403)
        if not visitor.may_act:
            note(visitor, peer_of(request.scope), deed, "refused: may only look")
            return self._draw(request, "gone.html", {"why": "you may look, but not act"}, 403)
        back = form.get("back", "")
        back = back if is_inside(back, links.root) else links("/queue", q=queue.name)
        if action.needs_ids and not ids:
            request.session["said"] = "trouble", "Nothing was picked."
            return RedirectResponse(back, 303)
        if action.asks(ids) and form.get("confirmed") != "yes":
            shown = {"action": action, "deed": deed, "form": form, "back": back, "again": str(ask)}
            return self._draw(request, "confirm.html", shown)
        try:
            outcome = await action.run(queue, ids, form)
            kind = "trouble" if " not: " in outcome else "done"
        except StreamqError as error:
            kind, outcome = "trouble", str(error)
            if isinstance(error, StoreUnavailable):
                outcome += ". It may or may not have been done: look before you repeat it."
        note(visitor, peer_of(request.scope), deed, outcome)
        self.desk.forget(queue.name)
        self.hub.nudge()
        request.session["said"] = kind, outcome[:300]  # it travels in a cookie
        if name == "remove" and "id" in ask and "/job?" in back:
            back = links("/queue", q=queue.name)
        return RedirectResponse(back, 303)

    async def login(self, request: Request) -> Response:
        """Show the login, or check what was given."""
        if request.method == "GET":
            return self._draw(request, "login.html", {"wrong": ""})
        form, _ = await _form(request)
        name, peer = form.get("name", "").strip(), peer_of(request.scope)
        if not _csrf_fits(request.session, form.get("csrf", "")):
            return self._draw(request, "login.html", {"wrong": "The form was too old. Please try again."}, 403)
        if self._logins.is_braked(peer):
            note(None, peer, Deed("login", more=name), "refused: too many attempts")
            return self._draw(request, "login.html", {"wrong": "Too many attempts. Wait some minutes."}, 429)
        if not await self._logins.enter(peer, request.session, name, form.get("secret", "")):
            note(None, peer, Deed("login", more=name), "refused: it does not fit")
            return self._draw(request, "login.html", {"wrong": "That does not fit."}, 401)
        note(None, peer, Deed("login", more=name), "done")
        return RedirectResponse(Links(request.scope.get("root_path", ""))("/"), 303)

    async def logout(self, request: Request) -> Response:
        """End the session."""
        form, _ = await _form(request)
        if _csrf_fits(request.session, form.get("csrf", "")):
            request.session.clear()
        return RedirectResponse(Links(request.scope.get("root_path", ""))("/login"), 303)


def _visitor(request: Request) -> Visitor:
    visitor = request.state.visitor
    assert isinstance(visitor, Visitor)  # noqa: S101 - the guard lets nobody else in
    return visitor


async def _form(request: Request) -> tuple[dict[str, str], list[str]]:
    """Return a form's fields, and the ids that were ticked."""
    body = (await request.body()).decode("utf-8", "replace")
    try:
        pairs = parse_qsl(body, keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise HTTPException(413, "This is too much.") from None
    return dict(pairs), list(dict.fromkeys(value for name, value in pairs if name == "id"))


def _csrf(session: dict[str, Any]) -> str:
    if "csrf" not in session:
        session["csrf"] = secrets.token_urlsafe(24)
    return str(session["csrf"])


def _csrf_fits(session: dict[str, Any], given: str) -> bool:
    return bool(session.get("csrf")) and hmac.compare_digest(str(session["csrf"]).encode(), given.encode())

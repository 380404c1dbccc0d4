"""Who is let in, and with which headers pages go out."""

from __future__ import annotations

from typing import Any

import pytest
from yarl import URL

from streamq import Queue
from streamq.dashboard import Access, Role, User, hash_password
from streamq.dashboard.login import MOST_FAILURES
from streamq.errors import InvalidInput
from tests.integration.dashboard.conftest import Browser, browsing

PASSWORD = "correct horse"  # noqa: S105
HASHED = hash_password(PASSWORD)
TOKEN, VIEWER = "t" * 20, "v" * 20
USERS = {"ann": User(HASHED, Role.OPERATOR), "vera": User(HASHED)}


async def logged_in(browser: Browser, name: str, secret: str) -> int:
    await browser.get("/login")
    found = await browser.post("/login", {"name": name, "secret": secret})
    return found.status if found.path == "/" else 401 if found.status == 200 else found.status


@pytest.mark.parametrize("headers", [
    {"host": "evil.example"}, {"host": "127.0.0.1.evil.example:80"}, {"x-forwarded-for": "10.0.0.1"},
    {"forwarded": "for=10.0.0.1"}, {"x-real-ip": "10.0.0.1"},
])  # fmt: skip
async def test_without_a_login_only_this_machine_by_its_own_name_is_answered(
    browser: Browser, headers: dict[str, str]
) -> None:
    assert (await browser.get("/")).status == 200
    for path in ("/", "/queue?q=q", "/login"):
        refused = await browser.get(path, headers=headers)
        assert refused.status == 403
        assert "waiting" not in refused.text.lower()


async def test_another_name_can_be_allowed(dashboard: Any) -> None:
    browser = await dashboard(Access(hosts=("ops.bank.example",)))
    assert (await browser.get("/", headers={"host": "ops.bank.example:8700"})).status == 200


async def test_with_a_login_nothing_is_shown_before_it(dashboard: Any, queue: Queue) -> None:
    browser = await dashboard(Access(users=USERS))
    await queue.add("secret-name")
    for path in ("/", "/jobs?q=q", "/job?q=q&id=1", "/nowhere"):
        found = await browser.get(path)
        assert found.path == "/login"
        assert "secret-name" not in found.text
    stream = await browser.get("/jobs?q=q", headers={"accept": "text/event-stream"})
    assert stream.status == 401
    assert (await browser.post("/do/pause?q=q", allow_redirects=False)).status == 401
    assert not (await queue.stats()).paused


async def test_users_log_in_act_as_their_role_says_and_log_out(dashboard: Any, queue: Queue) -> None:
    browser = await dashboard(Access(users=USERS))
    assert await logged_in(browser, "ann", "wrong one") == 401
    assert await logged_in(browser, "nobody", PASSWORD) == 401
    assert await logged_in(browser, "vera", PASSWORD) == 200
    assert (await browser.post("/do/pause?q=q")).status == 403
    await browser.get("/")
    await browser.post("/logout")
    assert (await browser.get("/")).path == "/login"
    assert await logged_in(browser, "ann", PASSWORD) == 200
    await browser.get("/")
    assert (await browser.post("/do/pause?q=q")).status == 200
    assert (await queue.stats()).paused


async def test_a_token_comes_in_by_the_form_or_as_a_header(dashboard: Any, queue: Queue) -> None:
    browser = await dashboard(Access(tokens={TOKEN: Role.OPERATOR, VIEWER: Role.VIEWER}))
    assert (await browser.post("/do/pause?q=q", headers={"authorization": f"Bearer {VIEWER}"})).status == 403
    assert (await browser.post("/do/pause?q=q", headers={"authorization": f"Bearer {TOKEN}x"})).status == 401
    assert (await browser.get("/", headers={"authorization": f"Bearer {VIEWER}"})).status == 200
    assert await logged_in(browser, "", TOKEN[:-1]) == 401
    assert await logged_in(browser, "", TOKEN) == 200
    async with browsing(browser.url) as script:
        assert (await script.post("/do/pause?q=q", headers={"authorization": f"Bearer {TOKEN}"})).status == 200
    assert (await queue.stats()).paused


async def test_a_session_ends_when_the_password_changes_or_the_user_goes(dashboard: Any) -> None:
    secret = "s" * 32
    first = await dashboard(Access(users=USERS, secret=secret))
    assert await logged_in(first, "ann", PASSWORD) == 200
    for users, status in (
        (USERS, 200),
        ({"ann": User(hash_password("another one"))}, 401),
        ({"vera": USERS["vera"]}, 401),
    ):
        second = await dashboard(Access(users=users, secret=secret))
        cookies = first.session.cookie_jar.filter_cookies(URL(first.url))
        async with first.session.get(second.url + "/", cookies=cookies, headers={"accept": "*/*"}) as found:
            assert found.status == status


async def test_a_session_can_t_be_made_up(dashboard: Any) -> None:
    browser = await dashboard(Access(users=USERS))
    other = await dashboard(Access(users=USERS))  # with a secret of its own
    assert await logged_in(other, "ann", PASSWORD) == 200
    cookies = other.session.cookie_jar.filter_cookies(URL(other.url))
    async with browsing(browser.url) as fresh:
        assert (await fresh.get("/", cookies=cookies)).path == "/login"


async def test_a_proxy_s_header_counts_from_the_proxy_alone(dashboard: Any, queue: Queue) -> None:
    named = {"x-user": "ann"}
    trusted = await dashboard(Access(proxy_header="X-User", proxy_operators=frozenset({"ann"})))
    assert (await trusted.get("/")).status == 401
    assert "ann" in (await trusted.get("/", headers=named)).text
    assert (await trusted.post("/do/pause?q=q", headers=named)).status == 200
    assert (await queue.stats()).paused
    looks = await trusted.get("/", headers={"x-user": "vera"})
    assert "read-only" in looks.text
    far = await dashboard(Access(proxy_header="X-User", proxy_peers=("10.1.0.0/16",)))
    assert (await far.get("/", headers=named)).status == 401


async def test_guessing_is_braked(dashboard: Any) -> None:
    browser = await dashboard(Access(tokens={TOKEN: Role.VIEWER}))
    for _ in range(MOST_FAILURES):
        assert await logged_in(browser, "", "guess") == 401
    assert await logged_in(browser, "", TOKEN) == 429


async def test_a_login_from_another_page_is_refused(dashboard: Any) -> None:
    browser = await dashboard(Access(tokens={TOKEN: Role.VIEWER}))
    assert (await browser.post("/login", {"secret": TOKEN})).status == 403


async def test_every_answer_carries_the_headers_that_bind_a_browser(dashboard: Any) -> None:
    browser = await dashboard(Access(users=USERS, secure_cookies=True))
    for path in ("/login", "/static/dashboard.js", "/nowhere"):
        headers = (await browser.get(path)).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
    cookie = (await browser.get("/login")).headers.get("set-cookie", "").lower()
    assert all(word in cookie for word in ("httponly", "samesite=strict", "secure"))


@pytest.mark.parametrize("wrong", [
    {"tokens": {"short": Role.VIEWER}}, {"users": {"ann": User("plain text")}}, {"proxy_peers": ("nowhere",)},
    {"secret": "short"}, {"users": {"ann": User("scrypt$99999999$8$1$AA==$AA==")}},
])  # fmt: skip
def test_an_access_that_makes_no_sense_is_refused_without_being_repeated(wrong: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        Access(**wrong)
    assert "plain text" not in str(caught.value)
    assert "short" not in str(caught.value)


def test_no_secret_shows_in_what_an_access_says_of_itself() -> None:
    access = Access(users=USERS, tokens={TOKEN: Role.OPERATOR}, secret="s" * 32)
    assert not any(secret in repr(access) + repr(USERS) for secret in (HASHED, TOKEN, "s" * 32))

"""Who may look at the dashboard, and who may act. Pure but for reading a request's headers and session.

Without a login only requests from this machine, to this machine's own name, are answered: a page elsewhere whose name
is made to point here (DNS rebinding) is not. With a login a visitor is told by a proxy's header, a token, or a session.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from typing import Any

import msgspec

from streamq.dashboard.passwords import check_hash
from streamq.errors import InvalidInput

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
LEAST_TOKEN = 16


class Role(enum.StrEnum):
    """What a visitor may do: look, or look and act."""

    VIEWER = "viewer"
    OPERATOR = "operator"


class User(msgspec.Struct, frozen=True):
    """Somebody who logs in: the hash of a password, as `hash_password` makes it, and a role."""

    password: str
    role: Role = Role.VIEWER

    def __repr__(self) -> str:
        return f"<User {self.role}>"


class Visitor(msgspec.Struct, frozen=True):
    """Who a request comes from. `ambient`: the browser vouches for it by itself, so forms need a token."""

    name: str
    role: Role
    ambient: bool = True

    @property
    def may_act(self) -> bool:
        """Whether this visitor may change anything."""
        return self.role is Role.OPERATOR


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """Who may come in. As it stands: only this machine, as operator.

    Attributes:
        users: People by name.
        tokens: Roles by token (at least 16 characters): sent as `Authorization: Bearer`, or typed in at the login.
        proxy_header: The header in which a proxy that has checked it names the visitor.
        proxy_peers: The networks that such a proxy speaks from; the header counts from nowhere else.
        proxy_operators: The names in that header that may act; the others look.
        read_only: Nobody acts.
        hosts: Names under which the dashboard may be asked for without a login, beside this machine's own.
        secret: What sessions are signed with. Without one they end with the process.
        secure_cookies: Send cookies over HTTPS only.
        session_seconds: How long a login lasts.

    Raises:
        InvalidInput: A hash, token or network makes no sense.
    """

    users: Mapping[str, User] = {}
    tokens: Mapping[str, Role] = {}
    proxy_header: str | None = None
    proxy_peers: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    proxy_operators: frozenset[str] = frozenset()
    read_only: bool = False
    hosts: tuple[str, ...] = ()
    secret: str | None = None
    secure_cookies: bool = False
    session_seconds: int = 43_200

    def __post_init__(self) -> None:
        for user in self.users.values():
            check_hash(user.password)
        if any(len(token) < LEAST_TOKEN for token in self.tokens):
            raise InvalidInput(f"a token needs at least {LEAST_TOKEN} characters")
        if self.secret is not None and len(self.secret) < LEAST_TOKEN:
            raise InvalidInput(f"the secret needs at least {LEAST_TOKEN} characters")
        for network in self.proxy_peers:
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                raise InvalidInput(f"proxy_peers: {error}") from None

    def __repr__(self) -> str:
        return f"<Access users={sorted(self.users)} tokens={len(self.tokens)} proxy_header={self.proxy_header}>"

    @property
    def has_login(self) -> bool:
        """Whether visitors have to say who they are."""
        return bool(self.users or self.tokens or self.proxy_header)

    @property
    def has_form(self) -> bool:
        """Whether they can do so on the login page."""
        return bool(self.users or self.tokens)

    def visitor(self, peer: str, headers: Mapping[str, str], session: Mapping[str, Any]) -> Visitor | None:
        """Return who asks; None if it can't be told, or may not come in."""
        found = self._local(peer, headers) if not self.has_login else self._known(peer, headers, session)
        if found is not None and self.read_only and found.may_act:
            return Visitor(found.name, Role.VIEWER, found.ambient)
        return found

    def token_role(self, token: str) -> Role | None:
        """Return what a token allows; None if it is none. Takes as long for any."""
        given, found = hashlib.sha256(token.encode()).digest(), None
        for known, role in self.tokens.items():
            if hmac.compare_digest(given, hashlib.sha256(known.encode()).digest()):
                found = role
        return found

    def session_of(self, name: str, user: User) -> dict[str, str]:
        """Return what a session says of a user. It ends when the password is changed."""
        return {"user": name, "mark": _mark(user.password)}

    def session_of_token(self, token: str) -> dict[str, str]:
        """Return what a session says of somebody who gave a token. It ends when the token is taken away."""
        return {"token": _mark(token)}

    def _local(self, peer: str, headers: Mapping[str, str]) -> Visitor | None:
        host = _host_name(headers.get("host", ""))
        if not is_loopback(peer) or host not in (*LOCAL_NAMES, *self.hosts):
            return None
        if any(name in headers for name in FORWARDED):
            return None
        return Visitor("local", Role.OPERATOR)

    def _known(self, peer: str, headers: Mapping[str, str], session: Mapping[str, Any]) -> Visitor | None:
        if self.proxy_header and self._is_proxy(peer):
            name = headers.get(self.proxy_header.lower(), "").strip()
            if name:
                return Visitor(name, Role.OPERATOR if name in self.proxy_operators else Role.VIEWER)
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            role = self.token_role(token.strip())
            return None if role is None else Visitor("token", role, ambient=False)
        user = self.users.get(str(session.get("user")))
        if user is not None and session.get("mark") == _mark(user.password):
            return Visitor(str(session["user"]), user.role)
        for known, role in self.tokens.items():
            if session.get("token") == _mark(known):
                return Visitor("token", role)
        return None

    def _is_proxy(self, peer: str) -> bool:
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        return any(address in ipaddress.ip_network(network) for network in self.proxy_peers)


def is_loopback(peer: str) -> bool:
    """Whether an address, or a name to bind to, is this machine's own."""
    if peer == "localhost":
        return True
    try:
        return ipaddress.ip_address(peer).is_loopback
    except ValueError:
        return False


def _host_name(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _mark(secret: str) -> str:
    return hashlib.sha256(b"streamq session " + secret.encode()).hexdigest()[:24]

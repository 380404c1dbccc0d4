"""`streamq dashboard`: serve the dashboard, on this machine unless a login says who may come in."""

from __future__ import annotations

import getpass
import logging
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamq.cli import arguments
from streamq.cli.session import complain, default_queues
from streamq.errors import InvalidInput

if TYPE_CHECKING:
    import argparse

    from streamq.cli.session import Session
    from streamq.dashboard.access import Access

RUN = "run"
PORT = 8700
NEEDED = "the dashboard needs its extra: pip install 'streamq[dashboard]'"
TOKENS = {"STREAMQ_DASHBOARD_TOKEN": "operator", "STREAMQ_DASHBOARD_VIEWER_TOKEN": "viewer"}
SECRET = "STREAMQ_DASHBOARD_SECRET"  # noqa: S105 - the name of a variable

EXAMPLES = """
  streamq dashboard                                     for this machine: http://127.0.0.1:8700
  streamq dashboard reports emails --read-only
  streamq dashboard --hash-password ann:operator >> users
  streamq dashboard --host 0.0.0.0 --users users --secure-cookies
"""


def add_parsers(commands: arguments.Commands) -> None:
    """Declare the command."""
    parser = commands.add(RUN, "dashboard", dashboard, "serve the dashboard as web pages", examples=EXAMPLES)
    arguments.add_queues(parser)
    _add_place(parser)
    _add_access(parser)


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to bind to; beyond this machine it needs a login")
    parser.add_argument("--port", type=int, default=PORT, help=f"0: a free one (default: {PORT})")
    parser.add_argument("--root-path", default="", metavar="PATH", help="where a proxy mounts it")
    parser.add_argument("--cert", type=Path, metavar="FILE", help="serve HTTPS: the certificate, PEM")
    parser.add_argument("--key", type=Path, metavar="FILE", help="its key, PEM")


def _add_access(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--users", type=Path, metavar="FILE", help="who may log in: lines of NAME:ROLE:HASH")
    parser.add_argument("--hash-password", metavar="NAME:ROLE", help="ask for a password, print such a line, and end")
    parser.add_argument("--proxy-header", metavar="NAME", help="the header in which a proxy names who it has let in")
    parser.add_argument("--proxy-peer", metavar="NETWORK", action="append", default=[],
        help="where that proxy speaks from (default: this machine)")  # fmt: skip
    parser.add_argument("--proxy-operator", metavar="NAME", action="append", default=[],
        help="who of those may act; the others look")  # fmt: skip
    parser.add_argument("--allow-host", metavar="NAME", action="append", default=[],
        help="another name of this machine, for use without a login")  # fmt: skip
    parser.add_argument("--read-only", action="store_true", help="nobody acts")
    parser.add_argument(
        "--secure-cookies", action="store_true", help="send cookies over HTTPS only (with --cert: always)"
    )
    parser.add_argument("--audit-log", type=Path, metavar="FILE", help="where the audit lines go (default: stderr)")


def dashboard(session: Session) -> int:
    """Serve until SIGINT or SIGTERM."""
    options = session.options
    try:
        import uvicorn

        from streamq.dashboard import create_app
    except ModuleNotFoundError as error:
        raise InvalidInput(f"{NEEDED} ({error.name} is missing)") from None
    if options.hash_password is not None:
        session.out.line(user_line(options.hash_password))
        return 0
    access = access_of(options)
    _check_place(options, access)
    _set_up_logs(options.audit_log)
    app = create_app(options.queues or default_queues(), access=access, settings=session.settings)
    config = uvicorn.Config(
        app,
        root_path=options.root_path.rstrip("/"),
        ssl_certfile=options.cert,
        ssl_keyfile=options.key,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # who asks is what `Access` goes by: the peer, never what the peer says
        timeout_graceful_shutdown=3,
    )

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: Any) -> None:
            app.hub.close()  # event streams never end by themselves
            self.force_exit = self.should_exit  # the second one does not wait
            self.should_exit = True

    try:
        place = _bind(options.host, options.port)
    except OSError as error:
        complain(f"can't listen on {options.host}:{options.port}: {error.strerror or error}")
        return 1
    with place:
        scheme = "https" if options.cert else "http"
        host = f"[{options.host}]" if ":" in options.host else options.host
        url = f"{scheme}://{host}:{place.getsockname()[1]}{options.root_path.rstrip('/')}/"
        if session.out.json:
            session.out.record({"url": url})
        else:
            session.out.line(url)
        sys.stdout.flush()
        Server(config).run(sockets=[place])
    return 0


def access_of(options: argparse.Namespace) -> Access:
    """Return who may come in, as the command line and the environment say.

    Raises:
        InvalidInput: They don't make sense.
    """
    from streamq.dashboard.access import Access, Role

    defaults = Access()
    return Access(
        users=_users(options.users),
        tokens={os.environ[name]: Role(role) for name, role in TOKENS.items() if os.environ.get(name)},
        proxy_header=options.proxy_header,
        proxy_peers=tuple(options.proxy_peer) or defaults.proxy_peers,
        proxy_operators=frozenset(options.proxy_operator),
        read_only=options.read_only,
        hosts=tuple(name.lower() for name in options.allow_host),
        secret=os.environ.get(SECRET) or None,
        secure_cookies=options.secure_cookies or options.cert is not None,
    )


def user_line(name_and_role: str) -> str:
    """Ask for a password and return a line for the file of users."""
    from streamq.dashboard.access import Role
    from streamq.dashboard.passwords import hash_password

    name, _, role = name_and_role.partition(":")
    if not name or role not in list(Role):
        raise InvalidInput(f"give NAME:ROLE; the roles are {', '.join(Role)}")
    password = getpass.getpass(f"Password of {name}: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    return f"{name}:{role}:{hash_password(password)}"


def _users(path: Path | None) -> dict[str, Any]:
    from streamq.dashboard.access import Role, User
    from streamq.dashboard.passwords import check_hash

    if path is None:
        return {}
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise InvalidInput(f"--users {path}: {error.strerror}") from None
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.strip().partition(":")
        role, _, kept = rest.partition(":")
        if not name or role not in list(Role):
            raise InvalidInput(f"{path}, line {number}: a line is NAME:ROLE:HASH; the roles are {', '.join(Role)}")
        try:
            found[name] = User(check_hash(kept), Role(role))
        except InvalidInput as error:
            raise InvalidInput(f"{path}, line {number}: {error}") from None
    if not found:
        raise InvalidInput(f"--users {path} names nobody")
    return found


def _check_place(options: argparse.Namespace, access: Access) -> None:
    from streamq.dashboard.access import is_loopback

    if not is_loopback(options.host) and not access.has_login:
        raise InvalidInput(
            f"--host {options.host} is open to other machines: say who may come in, with --users, --proxy-header, or "
            f"a token in {', '.join(TOKENS)}"
        )
    if (options.cert is None) != (options.key is None):
        raise InvalidInput("give --cert and --key, both or neither")


def _set_up_logs(path: Path | None) -> None:
    audit = logging.getLogger("streamq.audit")
    try:
        handler = logging.StreamHandler() if path is None else logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"--audit-log {path}: {error.strerror}") from None
    handler.setFormatter(logging.Formatter("audit %(message)s" if path is None else "%(message)s"))
    audit.addHandler(handler)
    audit.setLevel(logging.INFO)
    audit.propagate = False


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    place = socket.socket(family, socket.SOCK_STREAM)
    try:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind((host, port))
        place.listen(2_048)  # the address is told before it is served: who comes at once waits
    except BaseException:
        place.close()
        raise
    return place

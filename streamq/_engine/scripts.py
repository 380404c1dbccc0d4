"""The Lua scripts: found, put together from their includes, and named by their SHA-1.

They lie in `lua/` in a checkout and in `streamq/_lua/` in an installed package. Nothing is read before it is asked for.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path

import msgspec

_INCLUDE = re.compile(r"^-- @include (lib/[a-z_]+)$", re.MULTILINE)
_PACKAGE = Path(__file__).resolve().parent.parent


class Script(msgspec.Struct, frozen=True):
    """One transition as the server runs it."""

    name: str
    body: str
    sha: str


@cache
def folder() -> Path:
    """Return the folder that holds the scripts.

    Raises:
        FileNotFoundError: The package was installed without them.
    """
    for place in (_PACKAGE / "_lua", _PACKAGE.parent / "lua"):
        if (place / "tick.lua").is_file():
            return place
    raise FileNotFoundError(f"streamq's Lua scripts are missing: neither {_PACKAGE / '_lua'} nor ../lua holds them")


def names() -> list[str]:
    """Return the names of all transitions, sorted."""
    return sorted(path.stem for path in folder().glob("*.lua"))


@cache
def load(name: str) -> Script:
    """Return the script called `name`, its includes in place: each once, where it is first named, its own before it."""
    seen: set[str] = set()

    def whole(part: str) -> str:
        seen.add(part)
        return _INCLUDE.sub(put_in, (folder() / f"{part}.lua").read_text().rstrip("\n"))

    def put_in(found: re.Match[str]) -> str:
        return f"-- {found[1]}" if found[1] in seen else whole(found[1])

    body = whole(name)
    return Script(name, body, hashlib.sha1(body.encode(), usedforsecurity=False).hexdigest())

"""The Lua scripts: found, put together from their includes, and named by their SHA-1.

Lua takes 200 locals in one scope, and a large script includes more than that: so each library has a scope of its own,
and only those of its names that others use are outside of it.

They lie in `lua/` in a checkout and in `streamq/_lua/` in an installed package. Nothing is read before it is asked for.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import msgspec

_INCLUDE = re.compile(r"^-- @include (lib/[a-z_]+)$", re.MULTILINE)
_LOCAL = re.compile(r"^local (function )?([A-Za-z_]\w*(?:, [A-Za-z_]\w*)*)(?= =|\(|$)", re.MULTILINE)
_WORD = re.compile(r"\w+")
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
    parts = _parts(name, {})
    users = Counter(word for text in parts.values() for word in set(_WORD.findall(text)))
    libraries = [_library(part, text, users) for part, text in parts.items() if part != name]
    body = _INCLUDE.sub("", "\n".join(libraries))
    first, _, rest = parts[name].rstrip("\n").partition("\n")
    body = f"{first}\n{body}\n{_INCLUDE.sub('', rest)}"
    return Script(name, body, hashlib.sha1(body.encode(), usedforsecurity=False).hexdigest())


def _parts(part: str, found: dict[str, str]) -> dict[str, str]:
    """Read a script or library and all that it includes, in the order in which they are to stand."""
    text = (folder() / f"{part}.lua").read_text()
    for included in _INCLUDE.findall(text):
        if included not in found:
            _parts(included, found)
    found[part] = text
    return found


def _library(part: str, text: str, users: Mapping[str, int]) -> str:
    """Return a library in a scope of its own; `users` says how many parts of the script each name occurs in."""
    outside: list[str] = []

    def declare(found: re.Match[str]) -> str:
        function, names = found[1] or "", found[2].split(", ")
        used = [name for name in names if users[name] > 1]
        outside.extend(used)
        if not used:
            return found[0]
        if not text.startswith((" =", "("), found.end()):
            return ""  # a name without a value
        inside = [f"local {name}\n" for name in names if name not in used]
        return "".join(inside) + function + found[2]

    body = _LOCAL.sub(declare, text).rstrip("\n")
    names = f"local {', '.join(outside)}\n" if outside else ""
    return f"{names}do -- {part}\n{body}\nend -- {part}"

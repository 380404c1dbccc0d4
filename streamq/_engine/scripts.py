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
_COMMENT = re.compile(r"--.*")
_BOUND_ONLY = "-- @needed by bound jobs only\n"
_NEED = "function need_bonds() end"
NEEDS_BONDS = "NEEDBONDS"
_CANNOT = f"function need_bonds() error({{ err = '{NEEDS_BONDS} the queue has bound jobs' }}) end"
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
def load(name: str, *, plain: bool = False) -> Script:
    """Return the script called `name`, its includes in place: each once, where it is first named, its own before it.

    With `plain` it is without all that only bound jobs need, and answers NEEDBONDS where it would need that: a script
    runs from its first line each time, and to make a hundred functions takes longer than to add a job.
    """
    parts = _parts(name, {})
    words = {part: set(_WORD.findall(_COMMENT.sub("", text))) for part, text in parts.items()}
    if plain:
        for part in _bound_only(name, parts, words):
            del parts[part], words[part]
    users = Counter(word for used in words.values() for word in used)
    libraries = [_library(part, text, users) for part, text in parts.items() if part != name]
    body = _INCLUDE.sub("", "\n".join(libraries)).replace(_BOUND_ONLY, "")
    first, _, rest = parts[name].rstrip("\n").partition("\n")
    body = f"{first}\n{body}\n{_INCLUDE.sub('', rest)}"
    if plain:
        body = body.replace(_NEED, _CANNOT, 1)
    return Script(name, body, hashlib.sha1(body.encode(), usedforsecurity=False).hexdigest())


def _bound_only(name: str, parts: Mapping[str, str], words: Mapping[str, set[str]]) -> set[str]:
    """Return the libraries that only bound jobs need: those that say so, and those that nothing but these uses."""
    found = {part for part, text in parts.items() if text.startswith(_BOUND_ONLY)}
    names = {
        part: {one for made in _LOCAL.findall(text) for one in made[1].split(", ")} for part, text in parts.items()
    }
    before = 0
    while len(found) > before:
        before = len(found)
        found |= {
            part
            for part in parts
            if part != name and not any(names[part] & words[other] for other in parts if other not in (part, *found))
        }
    return found


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

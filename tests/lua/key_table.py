"""The table of `docs/keys.md`, as data: which keys a queue may leave in Redis, of which type, and for how long."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import redis

DOCS = Path(__file__).resolve().parents[2] / "docs"
_ROW = re.compile(r"^\| `:([^`]+)` \| ([a-z]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
_TTL = re.compile(r"TTL (?:(\d+) s|of)(.*\buntil)?\b")


class KeyRow(msgspec.Struct, frozen=True):
    """One row. `ttl_ms` is the longest TTL that it may have (0: none); `lasting` whether it may be without."""

    name: str
    type: str
    ttl_ms: float
    lasting: bool

    @property
    def pattern(self) -> re.Pattern[str]:
        """What the part behind the queue's base looks like."""
        text = re.escape(self.name).replace(r"<1\.\.4>", "[1-4]")
        return re.compile(re.sub(r"<[a-z ]+>", "[^:].*", text) + r"\Z", re.DOTALL)


def key_rows() -> list[KeyRow]:
    """Read the table, the most particular names first."""
    rows = []
    for name, kind, _, lifetime in _ROW.findall((DOCS / "keys.md").read_text()):
        ttl = _TTL.match(lifetime)
        longest = 0.0 if ttl is None else float(ttl[1] or "inf") * 1000
        rows.append(KeyRow(name, kind, longest, ttl is None or bool(ttl[2])))
    return sorted(rows, key=lambda row: -len(row.name))


def strays(client: redis.Redis) -> list[str]:
    """Say what is wrong with the keys in the database: unknown ones, wrong types, wrong lifetimes."""
    rows, found = key_rows(), []
    for key in client.scan_iter(count=1000):
        text = key.decode()
        tag, _, rest = text.partition("}:")
        row = next((row for row in rows if row.pattern.match(rest)), None)
        if not tag.startswith("sq:{") or row is None:
            found.append(f"{text} is not in docs/keys.md")
            continue
        kind, ttl = client.type(key).decode(), client.pttl(key)
        if kind not in (row.type, "none"):
            found.append(f"{text} is a {kind}; docs/keys.md says {row.type}")
        if ttl == -1 and not row.lasting:
            found.append(f"{text} has no TTL; docs/keys.md says {row.ttl_ms} ms")
        if ttl > row.ttl_ms:
            found.append(f"{text} has a TTL of {ttl} ms; docs/keys.md says {row.ttl_ms}")
    return found

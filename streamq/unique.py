"""Unique keys: at most one job of a key at a time, and what becomes of a second one. `docs/unique.md` has the recipes.

Pure: refuses what makes no sense when it is made. The scripts enforce it (`lua/lib/unique.lua`).
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec

from streamq.errors import InvalidInput
from streamq.names import MAX_ID, check_text
from streamq.policy import Seconds, seconds

While = Literal["pending", "running", "retained"]
OnConflict = Literal["return_existing", "replace", "raise", "keep_latest"]

_WHILE = {"pending": "p", "running": "r", "retained": "k"}
_CONFLICT = {"return_existing": "e", "replace": "r", "raise": "x", "keep_latest": "l"}
REFUSING = ("raise", "replace", "keep_latest")
"""What `on_conflict` may refuse a job instead of giving it a place."""


class Unique(msgspec.Struct, frozen=True):
    """A key that one job of a queue holds at a time.

    A job that ends or goes releases its key, and never another job's. `add` says with `is_new` whether the job is new;
    if not, the handle is that of the job which is there instead.

    Attributes:
        key: Text of up to 256 bytes, of the queue's own name space; job ids are another one.
        while_: How long the job holds it: while it is `pending`, until it first starts; while it is `running`, until it
            has ended, waits and retries included; or while it is `retained`, until its record goes too.
        ttl: Seconds that it holds the key at most, from the add on. While `retained`, it holds the key for just this
            long, however soon the job ends and its record goes (a throttle).
        on_conflict: What an add does if the key is held. `return_existing`: nothing. `raise`: `DuplicateJob`.
            `replace`: the holder, if it has not started, gets the new job's name, data, options, priority and delay.
            `keep_latest`: so it does, and behind a holder that runs, one job is next, which is replaced likewise.
            Where neither can be (the holder runs, or has ended), these two raise `DuplicateJob`.
    """

    key: str
    while_: While = "running"
    ttl: Seconds | None = None
    on_conflict: OnConflict = "return_existing"

    def __post_init__(self) -> None:
        check_text("unique key", self.key, MAX_ID)
        for field, words in (("while_", get_args(While)), ("on_conflict", get_args(OnConflict))):
            if getattr(self, field) not in words:
                raise InvalidInput(f"{field} must be one of {', '.join(words)}, not {getattr(self, field)!r}")
        if self.ttl is not None:
            seconds("ttl", self.ttl, low=0.001)

    @property
    def ttl_ms(self) -> int | None:
        """The time to live in milliseconds, rounded up, as the scripts take it."""
        if self.ttl is None:
            return None
        span = seconds("ttl", self.ttl)
        nearest = round(span * 1000)  # not `ceil`: 256.951 * 1000 is a little more than 256,951
        return nearest if nearest / 1000 >= span else nearest + 1

    def bond(self) -> dict[str, Any]:
        """Return what the scripts take: short names, as every job that has one carries them."""
        found: dict[str, Any] = {"k": self.key, "w": _WHILE[self.while_], "c": _CONFLICT[self.on_conflict]}
        if self.ttl is not None:
            found["t"] = self.ttl_ms
        return found

    @classmethod
    def from_bond(cls, bond: dict[str, Any]) -> Unique:
        """Undo `bond`."""
        while_ = {short: word for word, short in _WHILE.items()}[bond["w"]]
        conflict = {short: word for word, short in _CONFLICT.items()}[bond["c"]]
        ttl = bond["t"] / 1000 if "t" in bond else None
        return cls(bond["k"], while_, ttl, conflict)  # type: ignore[arg-type]

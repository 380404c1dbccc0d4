"""What may be part of a key: the one check that names, ids, tags and unique keys pass before anything is sent."""

from __future__ import annotations

import re

from streamq.errors import InvalidInput

MAX_ID = 256
MAX_NAME = 256
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def check_text(what: str, value: str, limit: int) -> str:
    """Return `value` if it can be part of a key: text of 1 to `limit` bytes, no control characters, no braces.

    Raises:
        InvalidInput: It can't; the message names `what` and the limit.
    """
    if not isinstance(value, str):
        raise InvalidInput(f"{what} must be text, not {type(value).__name__}")
    if not value:
        raise InvalidInput(f"{what} must not be empty")
    if _CONTROL.search(value):
        raise InvalidInput(f"{what} must not contain control characters or lone surrogates: {value[:60]!r}")
    if "{" in value or "}" in value:
        raise InvalidInput(f"{what} must not contain braces (they mark a key's hash slot): {value[:60]!r}")
    if len(value.encode()) > limit:
        raise InvalidInput(f"{what} takes {len(value.encode()):,} bytes, over the limit of {limit}")
    return value

"""Passwords, as scrypt leaves them. Pure, and slow on purpose: call `password_fits` in a thread."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

from streamq.errors import InvalidInput

N, R, P = 2**14, 8, 1
"""16 MB and some 50 ms for each guess."""
MOST_N = 2**20
_MEMORY = 256 * 2**20


def hash_password(password: str) -> str:
    """Return what may be kept of a password: `scrypt$n$r$p$salt$hash`."""
    if len(password) < 8:
        raise InvalidInput("a password needs at least 8 characters")
    salt = secrets.token_bytes(16)
    return f"scrypt${N}${R}${P}${_text(salt)}${_text(_derive(password, salt, N, R, P))}"


def check_hash(kept: str) -> str:
    """Return `kept` if `hash_password` can have made it.

    Raises:
        InvalidInput: It can't; the message does not repeat it.
    """
    try:
        _parts(kept)
    except ValueError:
        raise InvalidInput(
            "a password's hash looks like scrypt$16384$8$1$salt$hash; make one with hash_password"
        ) from None
    return kept


def password_fits(password: str, kept: str) -> bool:
    """Whether this is the password that `kept` was made of."""
    n, r, p, salt, derived = _parts(kept)
    return hmac.compare_digest(_derive(password, salt, n, r, p), derived)


def _parts(kept: str) -> tuple[int, int, int, bytes, bytes]:
    kind, n, r, p, salt, derived = kept.split("$")
    found = int(n), int(r), int(p), base64.b64decode(salt, validate=True), base64.b64decode(derived, validate=True)
    if kind != "scrypt" or not (1 < found[0] <= MOST_N and 0 < found[1] <= 32 and 0 < found[2] <= 16 and found[4]):
        raise ValueError(kept)
    return found


def _derive(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=_MEMORY, dklen=32)


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()

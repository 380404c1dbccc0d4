"""Encrypted payloads (extra `encryption`): AES-GCM, with keys that can be changed while jobs wait.

    codec = Encryption({"2026-11": key, "2026-05": old_key}, current="2026-11")
    queue = Queue("reports", codec=codec)

New payloads are sealed under the current key, whose id stands before them in the clear; those under any key given can
be opened. Each has a random nonce of its own: change a key long before it has sealed 2^32 payloads.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from streamq.errors import InvalidInput, UnreadablePayload
from streamq.names import check_text
from streamq.payload import ENCRYPTED, Codec, unwrap, wrap

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ImportError as error:  # pragma: no cover - the package tests try it
    raise InvalidInput('encryption needs cryptography: pip install "streamq[encryption]"') from error

NONCE, MAX_KEY_ID = 12, 64


class Encryption(Codec):
    """Encrypts payloads with AES-GCM. `keys` are 16, 24 or 32 random bytes each, by an id that is no secret.

    Raises:
        InvalidInput: A key or an id does not fit, or there is no current key.
    """

    def __init__(self, keys: Mapping[str, bytes], current: str) -> None:
        if current not in keys:
            raise InvalidInput(f"the current key {current!r} is not among the keys")
        for key_id, key in keys.items():
            check_text("key id", key_id, MAX_KEY_ID)
            if not isinstance(key, bytes) or len(key) not in (16, 24, 32):
                raise InvalidInput(f"key {key_id!r} must be 16, 24 or 32 bytes")
        self._keys = {key_id.encode(): AESGCM(key) for key_id, key in keys.items()}
        self._current = current.encode()

    def seal(self, body: bytes) -> bytes:
        """Encrypt under the current key."""
        nonce, key_id = os.urandom(NONCE), self._current
        head = bytes([len(key_id)]) + key_id
        return wrap(ENCRYPTED, head + nonce + self._keys[key_id].encrypt(nonce, body, head))

    def open(self, body: bytes) -> bytes:
        """Decrypt; what is not encrypted comes back as it is."""
        sealed = unwrap(ENCRYPTED, body)
        if sealed is None:
            return body
        end = 1 + (sealed[0] if sealed else 0)
        head, nonce, rest = sealed[:end], sealed[end : end + NONCE], sealed[end + NONCE :]
        key = self._keys.get(head[1:])
        if key is None:
            shown = head[1:].decode("ascii", "replace")
            raise UnreadablePayload(f"it is encrypted under the key {shown!r}, which is not known here")
        try:
            return key.decrypt(nonce, rest, head)
        except (InvalidTag, ValueError):
            raise UnreadablePayload("it was changed since it was encrypted, or its key is another one") from None

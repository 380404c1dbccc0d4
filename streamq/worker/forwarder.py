"""Add a queue's dead letters to another queue as they are written: `Worker(dead_letter_queue=…)`.

Reads letters on a connection of its own, gives their jobs headers that say where they come from and why, and has them
added together with the note up to which letter that was done: each is added once, by whichever worker is first, and
none is left out if a worker dies. Never deletes a letter. Started by the worker, which supervises it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import msgspec

from streamq._engine import codec, keys
from streamq._engine.letters import LetterReader
from streamq._engine.pages import StoredLetter
from streamq._engine.store import Store
from streamq._engine.wire import Wire

log = logging.getLogger("streamq.worker")

MAX_ERROR = 500
"""Characters of the error that go along."""


class Forwarder:
    """Forwards one queue's dead letters to `target`."""

    def __init__(self, store: Store, new_wire: Callable[[], Wire], target: str) -> None:
        self._store, self._new_wire, self._base = store, new_wire, keys.base(target)
        self.begun = asyncio.Event()
        """Set once it is noted from which letter on they are forwarded: what fails after that is."""

    async def run(self) -> None:
        """Forward letters as they come, until cancelled.

        Raises:
            StoreError: Redis did not answer or refused; run again, it goes on where all was left.
        """
        wire = self._new_wire()
        try:
            done = await self._store.forward(self._base, "", "", ())
            self.begun.set()
            reader = LetterReader(self._store, wire, done)
            while True:
                letters = await reader.read_on()
                if letters:
                    last = letters[-1].letter
                    jobs = forwarded(self._store.queue, letters)
                    done = await self._store.forward(self._base, done, last, jobs)
                    if done != last:
                        reader.go_to(done)  # another worker forwarded some of these, or more
        finally:
            await wire.close()


def forwarded(queue: str, letters: Sequence[StoredLetter]) -> list[tuple[str, int, bytes]]:
    """Return what `forward` takes of letters; those that hold no job are left out."""
    found = []
    for letter in letters:
        try:
            envelope = codec.decode_envelope(letter.envelope)
        except codec.BadEnvelope:
            log.warning("dead letter %s of queue %s holds no job, and is not forwarded", letter.letter, queue)
            continue
        said = envelope.options or codec.EnvelopeOptions()
        error = str(codec.decode_error(letter.error))
        at = datetime.fromtimestamp(int(letter.letter.partition("-")[0]) / 1000, UTC)
        origin = {
            "dead-queue": queue,
            "dead-job": letter.job_id,
            "dead-letter": letter.letter,
            "dead-at": at.isoformat(timespec="milliseconds"),
            "dead-error": error[:MAX_ERROR],
        }
        # What it had to start within is over.
        options = msgspec.structs.replace(said, h={**(said.h or {}), **origin}, x=None)
        body = codec.encode_envelope(envelope.name, bytes(envelope.data), options)
        found.append((letter.letter, letter.lane, body))
    return found

"""Pauses that grow while something keeps failing, and begin anew once it has worked."""

from __future__ import annotations

import time


class Pauses:
    """The pause before the next try: `first` seconds, then twice as long each time, up to `longest`."""

    def __init__(self, first: float, longest: float) -> None:
        self._first, self._longest = first, longest
        self.pause = 0.0
        """Seconds, as the last failure left it; 0 after a success."""
        self.until = 0.0
        """When it is over (monotonic seconds)."""

    def failed(self) -> float:
        """Begin a pause; returns its seconds."""
        self.pause = min(max(self.pause * 2, self._first), self._longest)
        self.until = time.monotonic() + self.pause
        return self.pause

    def worked(self) -> None:
        """Let the next failure be the first."""
        self.pause = 0.0

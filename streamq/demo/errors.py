"""How the demo says that something is wrong."""

from __future__ import annotations

from streamq.errors import StreamqError


class DemoFailed(StreamqError):
    """Something is not as it should be; the text is for the person at the terminal."""

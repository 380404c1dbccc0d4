"""Templates and what they are given. Every value is escaped; nothing is marked as safe."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from streamq.dashboard import text

FOLDER = Path(__file__).parent
FILTERS = ("clean", "block", "pretty", "brief", "moment", "exactly", "age", "since", "number", "rate")


def environment() -> Environment:
    """Return the templates."""
    found = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    found.filters.update({name: getattr(text, name) for name in FILTERS})
    return found


class Links:
    """Addresses of pages, wherever the dashboard is mounted.

    Ids and names are always parameters, never parts of a path: a browser would take `..` in one apart.
    """

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")

    def __call__(self, path: str, **ask: Any) -> str:
        """Return the address of a page with these parameters; those that are empty are left out."""
        query = urlencode({name: str(value) for name, value in ask.items() if value not in (None, "")})
        return f"{self.root}{path}" + (f"?{query}" if query else "")


def is_inside(address: str, root: str) -> bool:
    """Whether an address that came with a form is a page of this dashboard."""
    return (
        address.startswith(f"{root.rstrip('/')}/")
        and not address.startswith("//")
        and "\\" not in address
        and address.isprintable()
    )

"""What the commands print: tables and fields for people, JSON for scripts.

On a terminal, with the extra `[cli]`, tables are drawn by rich. Elsewhere (in a pipe, or without rich) they are plain
text in aligned columns, which nothing wraps or cuts. Text that came out of a job never reaches a terminal raw: control
characters are shown, not sent.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from streamq.cli.values import to_json

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_TONES = {"good": "green", "warn": "yellow", "bad": "bold red", "dim": "dim", "name": "cyan"}
RIGHT = ">"
NEVER_FOLDED = 20
"""Characters up to which a column stays in one piece on a narrow screen, as long as others can give way."""


class Cell(NamedTuple):
    """A table's cell and what it means: `good`, `warn`, `bad`, `dim`, `name` or nothing in particular."""

    text: str
    tone: str = ""


Row = Sequence["str | Cell"]


class Table(NamedTuple):
    """Rows under headings. A heading that begins with `>` has its column aligned to the right."""

    columns: Sequence[str]
    rows: Sequence[Row]
    title: str = ""


class Output:
    """Where one command's answers go."""

    def __init__(self, *, json: bool = False, to: IO[str] | None = None) -> None:
        self.json = json
        self._to = to or sys.stdout
        self._console = None if json else _console(self._to)

    @property
    def console(self) -> Console | None:
        """rich's console, if tables are drawn by rich."""
        return self._console

    def record(self, value: Any) -> None:
        """Print a value as one line of JSON."""
        self.line(to_json(value), clean=False)

    def line(self, text: str = "", *, clean: bool = True) -> None:
        """Print a line at once, so that whoever reads a pipe has it."""
        print(clean_text(text) if clean else text, file=self._to, flush=True)

    def table(self, table: Table) -> None:
        """Print a table."""
        if self._console is not None:
            self._console.print(drawn(table, self._console.width))
        else:
            self.line("\n".join(plain_lines(table)), clean=False)

    def fields(self, pairs: Iterable[tuple[str, str | Cell]]) -> None:
        """Print names and values, a pair a line; values of several lines are indented."""
        shown = [(name, _cell(value)) for name, value in pairs]
        width = max((len(name) for name, _ in shown), default=0)
        for name, cell in shown:
            text = clean_text(cell.text).replace("\n", "\n" + " " * (width + 2))
            if self._console is None:
                self.line(f"{name:<{width}}  {text}", clean=False)
            else:
                from rich.text import Text

                shown_as = Text.assemble((f"{name:<{width}}  ", "dim"), (text, _TONES.get(cell.tone, "")))
                self._console.print(shown_as, soft_wrap=True)


def clean_text(text: str) -> str:
    """Return `text` with control characters shown as escapes; line feeds and tabs stay."""
    return _CONTROL.sub(
        lambda found: f"\\x{ord(found[0]):02x}" if found[0] < "\x80" else f"\\u{ord(found[0]):04x}", text
    )


def shorten(text: str, limit: int = 60) -> str:
    """Return the text on one line, cut to `limit` characters."""
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def plain_lines(table: Table) -> list[str]:
    """Return a table as lines of aligned columns."""
    rows = [[_one_line(cell) for cell in row] for row in table.rows]
    names = [column.removeprefix(RIGHT) for column in table.columns]
    widths = [max(len(name), *(len(row[at]) for row in rows)) if rows else len(name) for at, name in enumerate(names)]
    right = [column.startswith(RIGHT) for column in table.columns]

    def laid_out(cells: Sequence[str]) -> str:
        padded = (f"{c:>{w}}" if r else f"{c:<{w}}" for c, w, r in zip(cells, widths, right, strict=True))
        return "  ".join(padded).rstrip()

    title = [table.title] if table.title else []
    return [*title, laid_out([name.upper() for name in names]), *(laid_out(row) for row in rows)]


def drawn(table: Table, width: int) -> RenderableType:
    """Return a table as rich draws it on a screen of this width: closer together, then folded, where it is narrow."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    title = Text(clean_text(table.title), style="dim") if table.title else None
    gap = 1 if max(map(len, plain_lines(table))) <= width else 0
    found = RichTable(
        box=box.SIMPLE_HEAD, show_edge=False, padding=(0, gap, 0, 0), title=title, title_justify="left",
        header_style="bold",
    )  # fmt: skip
    for at, column in enumerate(table.columns):
        found.add_column(
            column.removeprefix(RIGHT),
            justify="right" if column.startswith(RIGHT) else "left",
            overflow="fold",
            no_wrap=all(len(_one_line(row[at])) <= NEVER_FOLDED for row in table.rows),
        )
    for row in table.rows:
        found.add_row(*(Text(_one_line(cell), style=_TONES.get(_cell(cell).tone, "")) for cell in row))
    return found


def _one_line(cell: str | Cell) -> str:
    return clean_text(_cell(cell).text).replace("\n", "\\n").replace("\t", " ")


def _cell(cell: str | Cell) -> Cell:
    return cell if isinstance(cell, Cell) else Cell(cell)


def _console(to: IO[str]) -> Console | None:
    if not to.isatty():
        return None
    try:
        from rich.console import Console
    except ModuleNotFoundError:
        return None
    return Console(file=to, highlight=False)

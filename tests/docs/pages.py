"""The code blocks of a Markdown page, and what its comments say about them; CONTRIBUTING.md tells how to write them.

A comment stands for itself, right before the block that it is about:

    <!-- not run: the reason -->     the next block is only parsed
    <!-- output -->                  the next block is what the one before it prints
    <!-- setup                       Python that runs at this place and that readers don't see
    queue = Queue("reports")
    -->
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = {
    "python": "run",
    "sh": "run",
    "console": "parsed",
    "lua": "parsed",
    "toml": "parsed",
    "json": "parsed",
    "yaml": "parsed",
    "text": "shown",
    "promql": "shown",
    "ini": "shown",
    "sql": "shown",
}
TITLE = re.compile(r'title="([\w./-]+)"')
COMMENT = re.compile(r"<!--\s*(?:(not run):\s*(.*?)|(output)|(setup)\n(.*?))\s*-->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block, or the Python of a setup comment."""

    page: str
    line: int
    """Of the first line of its code."""
    language: str
    code: str
    title: str = ""
    """The file that it is."""
    reason: str = ""
    """Why it is not run."""
    is_output: bool = False

    @property
    def place(self) -> str:
        """Return where it stands."""
        return f"{self.page}:{self.line}"


class WrongPage(Exception):
    """A block or comment that can't be understood, with its place."""


def pages() -> list[str]:
    """Return every page with code for users, by its path from the root: a new one is found by itself."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path.relative_to(ROOT).as_posix() for path in found]


def blocks(page: str) -> list[Block]:
    """Return a page's blocks in order.

    Raises:
        WrongPage: A language is unknown or missing, or a comment is not followed by a block.
    """
    return parse(page, (ROOT / page).read_text())


def parse(page: str, text: str) -> list[Block]:
    """Return the blocks of a text."""
    found: list[Block] = []
    reason, is_output = "", False
    for token in MarkdownIt("commonmark").parse(text):
        if token.map is None:
            continue
        line = token.map[0] + 2
        if token.type == "html_block":
            said = COMMENT.fullmatch(token.content.strip())
            if said is None:
                continue
            if said[4]:
                found.append(Block(page, line, "python", said[5]))
            reason, is_output = (said[2] or ""), bool(said[3])
            if said[1] and not reason:
                raise WrongPage(f"{page}:{line}: says no reason")
        elif token.type == "fence":
            language = token.info.split()[0] if token.info.strip() else ""
            if language not in LANGUAGES:
                raise WrongPage(
                    f"{page}:{line}: a block of {language or 'no language'}: say one of {', '.join(LANGUAGES)}"
                )
            title = TITLE.search(token.info)
            found.append(Block(page, line, language, token.content, title[1] if title else "", reason, is_output))
            reason, is_output = "", False
        elif reason or is_output:
            raise WrongPage(f"{page}:{line}: a comment about a block, and no block behind it")
    return found

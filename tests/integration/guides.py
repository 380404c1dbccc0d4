"""Runs the examples of the guides in docs/ as they stand there."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

DOCS = Path(__file__).resolve().parents[2] / "docs"


def blocks(page: str, language: str = "python") -> list[str]:
    """Return the code blocks of a page, in order."""
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def run(block: str, name: str = "guide", names: dict[str, object] | None = None) -> ModuleType:
    """Run a block as a module of this name and return that; `names` are there already."""
    module = ModuleType(name)
    vars(module).update(names or {})
    exec(compile(block, f"<{name}>", "exec"), vars(module))  # noqa: S102 - our own page
    return module


@contextmanager
def importable(module: ModuleType) -> Iterator[ModuleType]:
    """Let others import the module by its name while the block runs."""
    sys.modules[module.__name__] = module
    try:
        yield module
    finally:
        del sys.modules[module.__name__]

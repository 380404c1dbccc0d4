"""Find the processors that a worker process is to run: named modules, or installed plugins."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import os
import sys
from collections.abc import Iterable

from streamq.errors import InvalidInput
from streamq.processor import Processors

GROUP = "streamq.processors"
log = logging.getLogger("streamq.worker")


def from_modules(names: Iterable[str]) -> Processors:
    """Import `package.module` or `package.module:attribute` and gather the registries found there.

    The current folder can be imported from. Without an attribute, every `Processors` in the module counts.

    Raises:
        InvalidInput: A module can't be imported or holds no registry.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    found = Processors()
    for name in names:
        module_name, _, attribute = name.partition(":")
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise InvalidInput(f"--processors {name}: {error}") from error
        if attribute and not isinstance(getattr(module, attribute, None), Processors):
            raise InvalidInput(f"--processors {name}: {module_name} has no Processors called {attribute!r}")
        values = [getattr(module, attribute)] if attribute else list(vars(module).values())
        registries = {id(value): value for value in values if isinstance(value, Processors)}
        if not registries:
            raise InvalidInput(f"--processors {name}: the module holds no Processors")
        for registry in registries.values():
            found.update(registry)
    return found


def installed() -> Processors:
    """Gather the registries of all installed plugins (entry-point group `streamq.processors`).

    streamq's own ones are left out, and the log says so, where the extra that they need is not installed.

    Raises:
        InvalidInput: A plugin can't be loaded; the message names it.
    """
    found, left_out = Processors(), list[str]()
    for entry in importlib.metadata.entry_points(group=GROUP):
        try:
            registry = entry.load()
        except Exception as error:
            if _lacks_extra(entry, error):
                left_out.append(entry.name)
                continue
            raise InvalidInput(f"plugin {entry.name} ({entry.value}) can't be loaded: {error}") from error
        if not isinstance(registry, Processors):
            raise InvalidInput(f"plugin {entry.name} ({entry.value}) is no Processors")
        found.update(registry)
    if left_out:
        log.info("left out, for want of streamq[processors]: %s", ", ".join(sorted(left_out)))
    return found


def _lacks_extra(entry: importlib.metadata.EntryPoint, error: Exception) -> bool:
    own = entry.value.startswith("streamq.")
    return own and isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("streamq")

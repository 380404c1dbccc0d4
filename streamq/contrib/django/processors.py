"""The processors of a Django project: `python -m streamq.worker --processors streamq.contrib.django.processors`.

Importing this sets Django up, if nobody has, and imports the modules called `jobs` of all installed apps (or those that
`settings.STREAMQ` names). Each handler runs as a request does: with database connections that are fit for use, and that
are let go of when they are old.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import django  # type: ignore[import-untyped]
import msgspec
from asgiref.sync import sync_to_async
from django.apps import apps  # type: ignore[import-untyped]
from django.db import close_old_connections  # type: ignore[import-untyped]

from streamq.contrib.django.conf import read
from streamq.processor import Processors


def _modules() -> Iterator[str]:
    named = read().processors
    if named is not None:
        yield from named
        return
    for app in apps.get_app_configs():
        if find_spec(f"{app.name}.jobs") is not None:
            yield f"{app.name}.jobs"


def _as_a_request(handler: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(handler):

        @functools.wraps(handler)
        async def run(job: Any) -> Any:
            await sync_to_async(close_old_connections)()
            try:
                return await handler(job)
            finally:
                await sync_to_async(close_old_connections)()

        return run

    @functools.wraps(handler)
    def run_in_thread(job: Any) -> Any:
        close_old_connections()
        try:
            return handler(job)
        finally:
            close_old_connections()

    # Where a process of the pool finds it, with Django set up.
    run_in_thread.__module__ = __name__
    return run_in_thread


def _discovered() -> Processors:
    found, seen = Processors(), set[int]()
    for name in _modules():
        for value in list(vars(importlib.import_module(name)).values()):
            if isinstance(value, Processors) and id(value) not in seen:
                seen.add(id(value))
                for processor in value:
                    found.add(msgspec.structs.replace(processor, handler=_as_a_request(processor.handler)))
    return found


if not apps.ready:
    django.setup()
processors = _discovered()

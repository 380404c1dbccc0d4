"""streamq.sync has the names, signatures and words of the asynchronous API."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import pytest

import streamq
from streamq import InvalidInput, flat, sync
from tests import generate_sync

NOT_HERE = {"create_worker", "create_queue_events"}


def public(of: type) -> dict[str, Any]:
    return {name: value for name, value in inspect.getmembers(of) if not name.startswith("_")}


def signature(function: Callable[..., Any]) -> tuple[list[inspect.Parameter], str]:
    found = inspect.signature(function)
    returns = str(found.return_annotation).replace("AsyncGenerator[Event, None]", "Generator[Event, None, None]")
    returns = returns.replace("AsyncGenerator[str, None]", "Generator[str, None, None]")
    parameters = [p.replace(annotation=str(p.annotation).replace("Target", "Queue")) for p in found.parameters.values()]
    return parameters, returns


@pytest.mark.parametrize(("here", "there"), [(sync.Queue, streamq.Queue), (sync.Job, streamq.Job)])
def test_a_class_has_every_public_name_of_the_asynchronous_one_with_its_signature(here: type, there: type) -> None:
    ours = public(here)
    for name, value in public(there).items():
        assert name in ours, f"{name} is missing: python -m tests.generate_sync --write"
        if inspect.isfunction(value):
            assert signature(ours[name]) == signature(value), f"{name}: python -m tests.generate_sync --write"
            assert ours[name].__doc__ == value.__doc__
            assert not inspect.iscoroutinefunction(ours[name])
    assert signature(here.__init__)[0][1:] == signature(there.__init__)[0][1:] or here is sync.Job


def test_the_flat_functions_are_there_with_their_signatures() -> None:
    functions = {name for name in vars(flat) if inspect.isfunction(getattr(flat, name)) and name in streamq.__all__}
    assert functions - NOT_HERE <= set(sync.__all__)
    for name in functions - NOT_HERE - {"close_all_queues"}:
        assert signature(getattr(sync, name)) == signature(getattr(flat, name)), name


def test_what_is_generated_is_as_it_should_be() -> None:
    for path, text in generate_sync.modules().items():
        assert path.read_text() == text, f"{path.name} is stale: python -m tests.generate_sync --write"


def test_it_refuses_to_block_an_event_loop() -> None:
    async def use() -> None:
        with pytest.raises(
            InvalidInput, match=r"streamq\.sync blocks, and this thread runs an event loop: use streamq"
        ):
            queue.stats()

    queue = sync.Queue("q", "redis://127.0.0.1:1/0")
    asyncio.run(use())


def test_what_a_queue_is_made_with_is_checked_at_once() -> None:
    with pytest.raises(InvalidInput, match="queue name must not contain braces"):
        sync.Queue("{q}")
    with pytest.raises(InvalidInput, match="is no Redis URL"):
        sync.Queue("q", "http://localhost")

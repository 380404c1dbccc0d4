"""The jobs that the processors' documents show are jobs that the processors take."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from streamq.processor import Processors
from streamq.processors import calculations, emails, integrations, notifications

FOLDER = Path(__file__).parents[3] / "docs" / "processors"
PLUGINS = {"emails": emails, "notifications": notifications, "integrations": integrations, "calculations": calculations}


def shown(document: str) -> Iterator[tuple[str, str, ast.expr]]:
    """Yield the queue, the name and the data of each `Queue(…).add(…)` in the document's code."""
    for block in re.findall(r"```python\n(.*?)```", (FOLDER / f"{document}.md").read_text(), re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add":
                assert isinstance(node.func.value, ast.Call)
                queue, name = ast.literal_eval(node.func.value.args[0]), ast.literal_eval(node.args[0])
                yield queue, name, node.args[1]


@pytest.mark.parametrize("document", PLUGINS)
def test_every_job_that_a_document_shows_is_taken_and_every_processor_is_shown(document: str) -> None:
    registry: Processors = PLUGINS[document].processors
    seen = set()
    for queue, name, data in shown(document):
        processor = registry.find(queue, name)
        assert processor is not None, f"{document}.md: no processor {name} in {queue}"
        given = eval(compile(ast.Expression(data), document, "eval"), {"device_token": "token"})  # noqa: S307 - our own
        msgspec.convert(given, processor.data)
        seen.add(name)
    assert seen == {processor.name for processor in registry}


@pytest.mark.parametrize("document", PLUGINS)
def test_every_field_of_a_request_is_documented(document: str) -> None:
    text = (FOLDER / f"{document}.md").read_text()
    for processor in PLUGINS[document].processors:
        for field in msgspec.structs.fields(processor.data):
            assert f"`{field.encode_name}`" in text or f'"{field.encode_name}"' in text, (processor.name, field.name)

"""The documents of reports, imports and exports show jobs that the processors take, and name all their fields."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from streamq.processors import exports, imports, reports
from streamq.processors.exports_entities import EXPORTS
from streamq.processors.exports_request import ExportFilters, ExportResult
from streamq.processors.imports_records import RECORDS
from streamq.processors.imports_request import ImportResult
from streamq.processors.reports_catalogue import CATALOGUE
from streamq.processors.reports_queries import QUERIES
from streamq.processors.reports_request import ReportFilters, ReportResult

DOCS = Path(__file__).parents[3] / "docs"
PLUGINS = {"reports": reports, "imports": imports, "exports": exports}
ANSWERS = {
    "reports": (ReportResult, ReportFilters),
    "imports": (ImportResult,),
    "exports": (ExportResult, ExportFilters),
}


def text_of(document: str) -> str:
    return (DOCS / "processors" / f"{document}.md").read_text()


def shown(document: str) -> Iterator[tuple[str, str, object]]:
    """Yield the queue, the name and the data of each `Queue(…).add(…)` in the document."""
    for block in re.findall(r"```python\n(.*?)```", text_of(document), re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add":
                assert isinstance(node.func.value, ast.Call)
                yield ast.literal_eval(node.func.value.args[0]), *map(ast.literal_eval, node.args)


@pytest.mark.parametrize("document", PLUGINS)
def test_every_job_that_is_shown_is_taken_and_every_job_is_shown(document):
    registry, seen = PLUGINS[document].processors, set()
    for queue, name, data in shown(document):
        processor = registry.find(queue, name)
        assert processor is not None
        request = msgspec.convert(data, processor.data)
        if document == "reports":
            reports.find_report(name, request)
        seen.add(name)
    assert seen == {processor.name for processor in registry} == set(PLUGINS[document].JOBS)


@pytest.mark.parametrize("document", PLUGINS)
def test_every_field_of_requests_filters_and_results_is_named(document):
    text = text_of(document)
    requests = {processor.data for processor in PLUGINS[document].processors}
    for struct in (*requests, *ANSWERS[document]):
        for field in msgspec.structs.fields(struct):
            assert f"`{field.encode_name}`" in text, (struct.__name__, field.encode_name)


def test_every_report_query_and_column_is_named():
    for name in (*CATALOGUE, *QUERIES):
        assert f"`{name}`" in text_of("reports")
    for record in RECORDS.values():
        for field in msgspec.structs.fields(record):
            assert f"`{field.name}`" in text_of("imports") or f"[`{field.name}`" in text_of("imports")


def test_the_filters_of_each_entity_are_those_in_the_table():
    period = {"from_", "to", "month", "year"}
    names = {field.name: field.encode_name for field in msgspec.structs.fields(ExportFilters)}
    for entity, export in EXPORTS.items():
        (row,) = re.findall(rf"^\| {entity} \| (.*), days \|$", text_of("exports"), re.MULTILINE)
        assert set(row.replace("`", "").split(", ")) == {names[name] for name in export.filters - period}


def test_the_overview_leads_to_every_page():
    pages = {path.stem for path in (DOCS / "processors").glob("*.md")}
    assert set(re.findall(r"\(processors/(\w+)\.md\)", (DOCS / "processors.md").read_text())) == pages


def test_the_code_of_the_overview_is_python():
    for block in re.findall(r"```python\n(.*?)```", (DOCS / "processors.md").read_text(), re.DOTALL):
        compile(block, "processors.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

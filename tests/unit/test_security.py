"""What docs/security.md and SECURITY.md say of the code itself; and that their statements name tests that are there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamq.processor import Processors

ROOT = Path(__file__).resolve().parents[2]
MODULES = [*sorted((ROOT / "streamq").rglob("*.py")), ROOT / "streamq_pytest.py"]
SCRIPTS = sorted((ROOT / "lua").rglob("*.lua"))

MAKE_OBJECTS = {
    "pickle",
    "_pickle",
    "cPickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "jsonpickle",
    "yaml",
    "code",
    "imp",
    "runpy",
}
"""Modules that make objects or code of data."""
RUN_CODE = {"eval", "exec", "compile", "__import__"}
IMPORTERS = {
    "streamq/worker/plugins.py": "what --processors names",
    "streamq/worker/child.py": "the module of a handler that its own worker has registered",
    "streamq/contrib/django/processors.py": "the apps that the project's settings list",
    "streamq/processors/notifications_provider.py": "what the environment names",
}
"""The only modules that import by name, and whose names those are."""


def faults(tree: ast.AST) -> Iterator[str]:
    """Find what runs or makes code in a module."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        yield from (f"imports {name}" for name in names if name.partition(".")[0] in MAKE_OBJECTS)
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called in RUN_CODE or called in ("os.system", "os.popen") or called.endswith("literal_eval"):
            yield f"calls {called}"
        if called.endswith("import_module"):
            yield "imports by name"
        yield from (
            "starts a shell" for word in node.keywords if word.arg == "shell" and ast.unparse(word.value) != "False"
        )


def test_no_module_makes_objects_or_code_of_data() -> None:
    found = {str(path.relative_to(ROOT)): set(faults(ast.parse(path.read_text()))) for path in MODULES}
    assert len(found) > 150
    assert {path: what for path, what in found.items() if what} == {path: {"imports by name"} for path in IMPORTERS}


@pytest.mark.parametrize("code", [
    "import pickle", "from marshal import loads", "import yaml", "eval(x)", "exec(x)", "__import__(x)", "os.system(x)",
    "subprocess.run(x, shell=True)", "importlib.import_module(x)", "ast.literal_eval(x)",
])  # fmt: skip
def test_what_would_make_code_of_data_is_found(code: str) -> None:
    assert list(faults(ast.parse(code)))


def test_no_script_makes_code_of_data() -> None:
    assert len(SCRIPTS) > 80
    runs = re.compile(
        r"\b(loadstring|load|dofile|loadfile|require|setfenv)\s*\(|'(EVAL|EVALSHA|SCRIPT|FUNCTION|FCALL)'"
    )
    assert [str(path) for path in SCRIPTS if runs.search(re.sub(r"--.*", "", path.read_text()))] == []


@pytest.mark.parametrize("name", [
    "os.system", "os:system", "streamq.worker.plugins:find", "__class__", "__init__", "builtins.eval", "report ",
    "Report", "report.__call__", "../report", "re*", "report\u200b",
])  # fmt: skip
def test_a_name_selects_what_is_registered_under_it_and_nothing_else(name: str) -> None:
    processors = Processors()
    processors.register("report")(lambda job: None)
    assert processors.find("q", name) is None
    assert processors.find("q", "report") is not None


ROW = re.compile(r"^\| (?P<statement>[^|`]+) \| (?P<tests>.*`tests/.*) \|$", re.MULTILINE)
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
PAGES = ("docs/security.md", "SECURITY.md")


def test_every_statement_of_the_page_names_tests_that_are_there() -> None:
    rows = ROW.findall((ROOT / "docs/security.md").read_text())
    assert len(rows) >= 25
    assert [statement for statement, tests in rows if not NAMED.search(tests)] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_a_page_names_is_there(page: str) -> None:
    named = NAMED.findall((ROOT / page).read_text())
    assert named
    lost = [
        f"{path}::{test}"
        for path, test in named
        if not (ROOT / path).is_file() or (test and f"def {test}(" not in (ROOT / path).read_text())
    ]
    assert lost == []

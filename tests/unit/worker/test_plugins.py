"""Finding processors: named modules, and installed plugins."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamq import InvalidInput
from streamq.worker import plugins

MODULE = """
from streamq import Processors
processors = Processors()
also_here = processors
more = Processors()

@processors.register("a", queue="emails")
async def a(job): ...

@more.register("b")
async def b(job): ...
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder with modules to import; what was imported is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]


def test_every_registry_of_a_module_counts_once(folder: Path) -> None:
    (folder / "bank_jobs_one.py").write_text(MODULE)
    assert sorted(p.name for p in plugins.from_modules(["bank_jobs_one"])) == ["a", "b"]


def test_an_attribute_names_one_registry(folder: Path) -> None:
    (folder / "bank_jobs_two.py").write_text(MODULE)
    assert [p.name for p in plugins.from_modules(["bank_jobs_two:more"])] == ["b"]


def test_several_modules_are_laid_together(folder: Path) -> None:
    (folder / "bank_jobs_three.py").write_text(MODULE)
    found = plugins.from_modules(["bank_jobs_three:more", "bank_jobs_three:processors"])
    assert sorted(p.name for p in found) == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("no_such_module", "--processors no_such_module: No module named 'no_such_module'"),
        ("bank_jobs:nothing", "--processors bank_jobs:nothing: bank_jobs has no Processors called 'nothing'"),
        ("bank_jobs:a", "--processors bank_jobs:a: bank_jobs has no Processors called 'a'"),
        ("bank_empty", "--processors bank_empty: the module holds no Processors"),
        ("bank_broken", "--processors bank_broken: No module named 'no_such_dependency'"),
    ],
)
def test_a_module_that_gives_no_processors_is_named(folder: Path, name: str, text: str) -> None:
    (folder / "bank_jobs.py").write_text(MODULE)
    (folder / "bank_empty.py").write_text("x = 1\n")
    (folder / "bank_broken.py").write_text("import no_such_dependency\n")
    with pytest.raises(InvalidInput) as raised:
        plugins.from_modules([name])
    assert str(raised.value) == text


def test_the_same_name_in_two_modules_is_refused(folder: Path) -> None:
    for name in ("bank_twin_one", "bank_twin_two"):
        (folder / f"{name}.py").write_text(MODULE)
    with pytest.raises(InvalidInput, match="a processor for 'a' is registered already"):
        plugins.from_modules(["bank_twin_one", "bank_twin_two"])


def install(folder: Path, name: str, value: str) -> None:
    """Install a distribution that has one entry point."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[streamq.processors]\n{name} = {value}\n")
    sys.path.insert(0, str(folder))


def test_an_installed_plugin_is_found_by_its_entry_point(folder: Path) -> None:
    (folder / "bank_plugin.py").write_text(MODULE.replace('"a"', '"plugged-in"'))
    install(folder, "bank_plugin", "bank_plugin:processors")
    assert "plugged-in" in [p.name for p in plugins.installed()]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("no_such_plugin:processors", "plugin bad_plugin (no_such_plugin:processors) can't be loaded: No module named"),
        ("os:sep", "plugin bad_plugin (os:sep) is no Processors"),
        ("bank_raises:processors", "plugin bad_plugin (bank_raises:processors) can't be loaded: division by zero"),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_named(folder: Path, value: str, text: str) -> None:
    (folder / "bank_raises.py").write_text("1 / 0\n")
    install(folder, "bad_plugin", value)
    with pytest.raises(InvalidInput) as raised:
        plugins.installed()
    assert str(raised.value).startswith(text)


def test_a_plugin_of_our_own_is_left_out_where_its_extra_is_not_installed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install(folder, "bank_mail", "streamq.processors.emails:processors")
    for name in [name for name in sys.modules if name.startswith("streamq.processors")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jinja2", None)  # as if it were not there
    with caplog.at_level("INFO", logger="streamq.worker"):
        assert "send-email" not in [processor.name for processor in plugins.installed()]
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("left out, for want of streamq[processors]: ")
    assert "bank_mail" in line

"""The wheel, built and installed as users get it: away from the checkout, with nothing editable in sight."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]

LOADED_SCRIPTS = """
import json, streamq
from streamq._engine import scripts
print(json.dumps([streamq.__file__, str(scripts.folder()), {name: scripts.load(name).sha for name in scripts.names()}]))
"""

FOUND_PLUGIN = """
import importlib.metadata, importlib.util, json
[entry] = importlib.metadata.entry_points(group="pytest11")
print(json.dumps([entry.name, importlib.util.find_spec(entry.value).name]))
"""

# Everything that the import of streamq asks the system for, but for reading code, goes into `heard`.
HEARD = """
import asyncio, json, ssl, sys, threading
heard, on = [], True
CODE = (".py", ".pyc", ".so", ".dylib", ".pth")
WATCHED = ("socket.", "subprocess.", "os.fork", "os.exec", "os.posix_spawn", "os.system", "os.mkdir", "os.remove",
           "os.rename", "os.putenv", "os.chmod", "os.kill", "signal.", "shutil.", "tempfile.", "fcntl.", "urllib.")
def hear(event, arguments):
    if on and event == "open" and not (isinstance(arguments[0], str) and arguments[0].endswith(CODE)):
        heard.append([event, str(arguments[0])])
    elif on and event.startswith(WATCHED):
        heard.append([event, str(arguments)])
sys.addaudithook(hear)
import streamq
on = False
print(json.dumps([heard, threading.active_count()]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    [wheel] = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python in a fresh environment that holds the wheel, links to what it declares that it needs, and no more."""
    folder = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(pip, check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    for name in needed(Distribution.at(next(site.glob("streamq-*.dist-info")))):
        for entry in {file.parts[0] for file in distribution(name).files or ()} - {"..", "__pycache__"}:
            (site / entry).symlink_to(distribution(name).locate_file(entry))
    return python


def needed(of: Distribution) -> set[str]:
    """Return the names of the packages that a plain install of a distribution brings."""
    found: set[str] = set()
    todo = list(of.requires or ())
    while todo:
        requirement = Requirement(todo.pop())
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if wanted and requirement.name not in found:
            found.add(requirement.name)
            todo += distribution(requirement.name).requires or ()
    return found


def run(python: Path, code: str) -> object:
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, cwd=python.parent)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_wheel_holds_the_scripts_and_the_type_marker_and_no_tests(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    scripts = {f"streamq/_lua/{path.relative_to(ROOT / 'lua')}" for path in (ROOT / "lua").rglob("*.lua")}
    assert scripts
    assert {name for name in held if name.startswith("streamq/_lua/")} == scripts
    assert "streamq/py.typed" in held
    dashboard = (ROOT / "streamq" / "dashboard").rglob("*")
    pages = {str(path.relative_to(ROOT)) for path in dashboard if path.suffix in (".html", ".css", ".js", ".svg")}
    assert pages
    assert pages <= held
    assert {name.split("/")[0].removesuffix(".dist-info").split("-")[0] for name in held} == {
        "streamq", "streamq_pytest.py",
    }  # fmt: skip


def test_pytest_finds_the_plugin_in_the_wheel(installed: Path) -> None:
    found = run(installed, FOUND_PLUGIN)
    assert found == ["streamq_pytest", "streamq_pytest"]


def test_the_installed_package_works_with_what_it_declares_and_the_scripts_that_it_holds(installed: Path) -> None:
    from streamq._engine import scripts

    package, folder, shas = run(installed, LOADED_SCRIPTS)
    assert Path(package).is_relative_to(installed.parent.parent)
    assert Path(folder) == Path(package).parent / "_lua"
    assert shas == {name: scripts.load(name).sha for name in scripts.names()}


def test_importing_it_does_nothing_but_read_code(installed: Path) -> None:
    heard, threads = run(installed, HEARD)
    assert heard == []
    assert threads == 1

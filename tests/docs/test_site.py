"""The documentation as a site: it builds, what leads nowhere is refused, and it asks no other host for anything.

Skipped where MkDocs is not installed (the dependency group `docs`).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import streamq
from tests.docs.pages import ROOT

pytest.importorskip("mkdocs", reason="MkDocs is not installed here: pip install --group docs")
pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed here: pip install --group docs")

LOADS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "object": "data"}
HARMLESS = {"canonical", "alternate", "prev", "next"}
"""Kinds of `link` that a browser does not fetch."""


def build(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=root, env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True, text=True, timeout=110,
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    return folder


class Loaded(HTMLParser):
    """What a page makes a browser fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        if tag in LOADS and not (tag == "link" and found.get("rel") in HARMLESS):
            self.places.append(found.get(LOADS[tag]) or "")


def test_no_page_and_no_style_loads_anything_from_another_host(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = Loaded()
        loaded.feed(page.read_text())
        assert [place for place in loaded.places if re.match(r"(https?:)?//", place)] == [], page
    for style in site.rglob("*.css"):
        assert re.findall(r"(?:url\(|@import )['\"]?(?:https?:)?//[^)]*", style.read_text()) == [], style


def test_every_public_name_is_in_the_reference_once(site: Path) -> None:
    text = "".join(page.read_text() for page in (site / "reference").glob("*.html"))
    ids = re.findall(r'<h2 id="streamq\.(\w+)"', text)
    assert sorted(ids) == sorted(streamq.__all__)


def test_the_readme_is_the_first_page_and_its_links_lead_on(site: Path) -> None:
    first = (site / "index.html").read_text()
    assert 'href="quickstart.html"' in first
    assert 'href="measurements.html"' in first
    assert 'src="images/streamq.svg"' in first


def test_what_tests_read_is_not_in_the_site(site: Path) -> None:
    assert not [page for page in site.rglob("*.html") if re.search(r"<!--\s*(setup|not run|output)", page.read_text())]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[x](nowhere.md)", "nowhere.md"),
        ("[x](cli.md#nowhere)", "does not contain an anchor '#nowhere'"),
        ("![x](images/nowhere.svg)", "images/nowhere.svg"),
        ("[x](../nowhere.txt)", "nowhere.txt"),
    ],
)
def test_a_link_that_leads_nowhere_fails_the_build(text: str, told: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for name in ("docs", "streamq", "benchmarks", "deploy"):
        if name == "docs":
            shutil.copytree(ROOT / name, root / name)
        else:
            (root / name).symlink_to(ROOT / name)
    for name in ("mkdocs.yml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docker-compose.yml"):
        shutil.copy(ROOT / name, root / name)
    (root / "docs" / "quickstart.md").write_text(text)
    done = build(root, tmp_path / "site")
    assert done.returncode != 0
    assert told in done.stderr

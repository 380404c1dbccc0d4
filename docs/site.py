"""What turns the pages, which are written to be read in the repository, into a site: hooks of MkDocs.

- README.md, CHANGELOG.md, CONTRIBUTING.md and benchmarks/README.md are pages of the site, too.
- A link to any other file of the repository leads to a copy of it, so that the site needs nothing beside itself.
- A page that the navigation does not name is listed under Guides.
- Each public name that no page of the reference describes is described on its last page.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import streamq

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md",
    "benchmarks/README.md": "measurements.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
"""Pages outside of docs/, and what they are called in the site."""
PLACES = {place: name for name, place in PAGES.items()}
LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")
FOR_TESTS = re.compile(r"^<!--\s*(?:not run|output|setup)\b.*?-->\n", re.DOTALL | re.MULTILINE)
DESCRIBED = re.compile(r"^::: streamq\.(\w+)$", re.MULTILINE)
REST = "reference/more.md"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List pages that the navigation does not name."""
    nav: list[Any] = config.nav or []
    named = set(_leaves(nav))
    docs = Path(config.docs_dir)
    found = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    (guides,) = (section["Guides"] for section in nav if isinstance(section, dict) and "Guides" in section)
    guides.extend(sorted(found - named - {"README.md"}))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside of docs/, and the files that pages lead to."""
    for name, place in PAGES.items():
        files.append(File.generated(config, place, content=(ROOT / name).read_text()))
    wanted: set[str] = set()
    for file in files.documentation_pages():
        wanted.update(name for name in _targets(file.src_uri, file.content_string) if not _place(name))
    for name in sorted(wanted):
        files.append(File.generated(config, f"files/{name}", abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to where their targets are in the site, and leave out what is for tests."""
    here = page.file.src_uri
    markdown = FOR_TESTS.sub("", markdown)

    def lead(link: re.Match[str]) -> str:
        name = _named(here, link[2])
        if name is None:
            return link[0]
        place = _place(name) or f"files/{name}"
        return f"{link[1]}{posixpath.relpath(place, posixpath.dirname(here) or '.')}{link[3]}"

    markdown = LINK.sub(lead, markdown)
    return markdown + _rest(files) if here == REST else markdown


def _rest(files: Files) -> str:
    described: set[str] = set()
    for file in files.documentation_pages():
        if file.src_uri.startswith("reference/"):
            described.update(DESCRIBED.findall(file.content_string))
    return "".join(f"\n::: streamq.{name}\n" for name in sorted(set(streamq.__all__) - described))


def _named(here: str, target: str) -> str | None:
    """Return the path in the repository that a page's link leads to; None if there is nothing."""
    page = PLACES.get(here, f"docs/{here}")
    name = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
    path = ROOT / name
    if path.is_dir() and (path / "README.md").is_file():
        return f"{name}/README.md"
    return name if path.is_file() and not name.startswith("..") else None


def _place(name: str) -> str | None:
    """Return where a file of the repository is in the site; None if it is not there by itself."""
    return PAGES.get(name) or (name.removeprefix("docs/") if name.startswith("docs/") else None)


def _targets(here: str, markdown: str) -> set[str]:
    return {name for link in LINK.finditer(markdown) if (name := _named(here, link[2])) is not None}


def _leaves(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    inner = nav.values() if isinstance(nav, dict) else nav
    return [leaf for item in inner for leaf in _leaves(item)]

"""The documentation as a site: built with warnings as errors, and read with a real Chromium."""

import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

import pytest
from markdown_it import MarkdownIt

from tests.support.site import ROOT, Visits, build, search, visit

pytestmark = [pytest.mark.peers, pytest.mark.slow, pytest.mark.timeout(600)]

# Elements of a page's structure. Blocks of code are counted as `pre`.
STRUCTURE: Final = ("h1", "h2", "h3", "h4", "li", "ol", "ul", "pre", "table", "tr", "td", "th")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the site."""
    pytest.importorskip("mkdocs", reason="mkdocs is not there; run: make setup")
    target = tmp_path_factory.mktemp("site")
    done = build(target)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


@pytest.fixture(scope="module")
def visits(folder: Path) -> Visits:
    """Each page, as Chromium showed it."""
    return visit(folder)


def test_every_page_shows_its_text(visits: Visits) -> None:
    """No page is empty, no script fails, and nothing that a page loads is missing."""
    pages = {name for name in visits.pages if not name.startswith("source/")}
    documents = {page.relative_to(ROOT / "docs") for page in (ROOT / "docs").rglob("*.md")}
    expected = {
        page.with_name("index.html" if page.name == "README.md" else f"{page.stem}.html").as_posix()
        for page in documents
    }
    assert pages - {"404.html"} == expected
    assert [name for name in expected if len(visits.pages[name].text) < 60] == []
    assert [name for name, page in visits.pages.items() if page.broken_images] == []
    assert visits.complaints == []


def test_no_request_leaves_the_site(visits: Visits) -> None:
    """Reading the documentation tells nobody: fonts, scripts and icons are the site's own."""
    assert visits.foreign_requests == []


def test_links_lead_to_pages_and_their_anchors(visits: Visits) -> None:
    """As a browser resolves them, those of the navigation included."""
    broken = []
    for name, page in visits.pages.items():
        for link in page.links:
            if not link.startswith(visits.base):
                continue
            path, _, anchor = link.removeprefix(visits.base).partition("#")
            target = visits.pages.get(path or "index.html")
            if target is None or (anchor and anchor not in target.ids):
                broken.append(f"{name}: {link}")
    assert broken == []


def test_search_finds_a_key(folder: Path) -> None:
    """The index is searched in the page."""
    assert any("bundle.yaml" in title for title in search(folder, "taskless_tier"))


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self.counts[tag] += 1


def _structure(html: str) -> dict[str, int]:
    parser = _Elements()
    parser.feed(html)
    return {tag: parser.counts[tag] for tag in STRUCTURE if parser.counts[tag]}


def test_a_page_has_the_structure_that_github_shows(folder: Path) -> None:
    """The two dialects of Markdown differ, for example in lists that follow a paragraph at once."""
    github = MarkdownIt("commonmark").enable("table")
    different = {}
    for page in sorted((ROOT / "docs").rglob("*.md")):
        built = folder / page.relative_to(ROOT / "docs").with_suffix(".html")
        if page.name == "README.md":
            built = built.with_name("index.html")
        html = built.read_text()
        here = _structure(html[html.index("<article") : html.index("</article>")])
        there = _structure(github.render(page.read_text()))
        if here != there:
            different[page.name] = (here, there)
    assert different == {}


def test_a_broken_anchor_stops_the_build(tmp_path: Path) -> None:
    """The build that `make docs` runs is strict."""
    pytest.importorskip("mkdocs", reason="mkdocs is not there; run: make setup")
    for name in ("docs", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy2(ROOT / "mkdocs.yml", tmp_path / "mkdocs.yml")
    for page in (tmp_path / "docs").rglob("*.md"):
        page.write_text("# Page\n")
    (tmp_path / "docs/README.md").write_text("# Home\n\n## A part\n\n[there](#a-part)\n")
    assert build(tmp_path / "site", tmp_path).returncode == 0
    (tmp_path / "docs/README.md").write_text("# Home\n\n## A part\n\n[there](#another-part)\n")
    done = build(tmp_path / "site", tmp_path)
    assert done.returncode != 0
    assert "another-part" in done.stdout + done.stderr

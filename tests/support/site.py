"""The documentation as a site: builds it, and reads its pages with a real Chromium."""

import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[2]
BROWSERS: Final = ("chromium-headless-shell", "chromium", "google-chrome")
# Addresses of links and headings as the browser has them; what it drew of the page besides.
_LOOK: Final = """() => ({
    links: [...document.querySelectorAll('a[href]')].map(one => one.href),
    ids: [...document.querySelectorAll('[id]')].map(one => one.id),
    text: document.querySelector('article')?.innerText ?? '',
    broken_images: [...document.images].filter(one => !one.naturalWidth).map(one => one.src),
})"""


@dataclass(frozen=True)
class SeenPage:
    """One page, as a browser showed it."""

    links: list[str]
    """Addresses that the page links to, absolute."""
    ids: frozenset[str]
    """Anchors of the page."""
    text: str
    """Text of the article."""
    broken_images: list[str]
    """Addresses of images that did not load."""


@dataclass(frozen=True)
class Visits:
    """What a browser saw of a site."""

    base: str
    """Address of the site, with a slash at its end."""
    pages: dict[str, SeenPage] = field(default_factory=dict)
    """Pages by their path in the site."""
    foreign_requests: list[str] = field(default_factory=list)
    """Requests to other addresses than the site's."""
    complaints: list[str] = field(default_factory=list)
    """Messages of the console, errors of scripts, and requests that failed."""


def build(folder: Path, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Build the site with warnings as errors.

    Args:
        folder: Folder for the site.
        root: Root of the repository, or of a copy.
    """
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def browser_program() -> str:
    """Finds Chromium, or leaves the test out."""
    for name in BROWSERS:
        path = shutil.which(name)
        if path is not None:
            return path
    pytest.skip("Chromium is not there; run: make test-tools")


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on loopback, and yield its address."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the library
            """Keep quiet."""

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))
    ) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def visit(folder: Path) -> Visits:
    """Open each page of a site in Chromium, and search for a word.

    Args:
        folder: Folder of the site.
    """
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - only these tests need it

    program = browser_program()
    with served(folder) as base, sync_playwright() as playwright:
        visits = Visits(base)
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: _note_request(visits, request.url))
        # Chromium stops requests of the page that it leaves; a request that is answered with an error has a response.
        page.on(
            "requestfailed",
            lambda request: (
                visits.complaints.append(f"{page.url}: {request.url}: {request.failure}")
                if request.failure != "net::ERR_ABORTED"
                else None
            ),
        )
        page.on(
            "response",
            lambda response: (
                visits.complaints.append(f"{page.url}: {response.status} {response.url}")
                if response.status >= 400
                else None
            ),
        )
        page.on(
            "console",
            lambda message: (
                visits.complaints.append(f"{page.url}: {message.text}")
                if message.type in {"error", "warning"}
                else None
            ),
        )
        page.on("pageerror", lambda error: visits.complaints.append(f"{page.url}: {error}"))
        for file in sorted(folder.rglob("*.html")):
            name = file.relative_to(folder).as_posix()
            if name.startswith("source/"):
                # Files of the repository, shown as they are: their anchors count, and one browser's time is short.
                visits.pages[name] = _unvisited(file)
                continue
            page.goto(base + name)
            seen = page.evaluate(_LOOK)
            visits.pages[name] = SeenPage(
                seen["links"], frozenset(seen["ids"]), seen["text"], seen["broken_images"]
            )
        browser.close()
    return visits


def _unvisited(file: Path) -> SeenPage:
    ids = re.findall(r' id="([^"]+)"', file.read_text())
    return SeenPage([], frozenset(ids), "", [])


def _note_request(visits: Visits, url: str) -> None:
    if not url.startswith((visits.base, "data:", "blob:")):
        visits.foreign_requests.append(url)


def search(folder: Path, words: str) -> list[str]:
    """Type words into the site's search, and return the titles that it lists.

    Args:
        folder: Folder of the site.
        words: Words to search for.
    """
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - only these tests need it

    program = browser_program()
    with served(folder) as base, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(base + "index.html")
        page.get_by_role("textbox", name="Search").fill(words)
        page.wait_for_selector(".md-search-result__item h1, .md-search-result__item h2")
        titles = page.locator(
            ".md-search-result__item h1, .md-search-result__item h2"
        ).all_inner_texts()
        browser.close()
    return titles

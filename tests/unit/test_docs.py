"""What the documentation names is there: links lead somewhere, commands and options exist."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import urlsplit

import pytest

from authz.server.http import observation
from authz.server.http.oauth.metadata import OAuthUrls

if TYPE_CHECKING:
    from authz.server.status.readiness import Readiness

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Pages elsewhere in the repository, whose links are checked, too.
OTHER_PAGES: Final = sorted(
    page
    for folder in ("bench", "client", "deploy", "examples", "tests")
    for page in (ROOT / folder).rglob("*.md")
)
LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
HEADING: Final = re.compile(r"^#{1,6} (.*)$", re.MULTILINE)
BLOCK: Final = re.compile(r"^( *)```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
COMMAND: Final = re.compile(r"`(authz [^`\n]+)`")
GROUPS: Final = frozenset(
    {
        "approval",
        "audit",
        "bundle",
        "catalog",
        "config",
        "credential",
        "exception",
        "forget",
        "keys",
        "task",
    }
)


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@cache
def _anchors(page: Path) -> frozenset[str]:
    """Anchors of headings, as GitHub makes them."""
    counts: dict[str, int] = {}
    found = set()
    for heading in HEADING.findall(page.read_text()):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"[`*]", "", heading.strip()))
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        number = counts.get(slug, 0)
        counts[slug] = number + 1
        found.add(f"{slug}-{number}" if number else slug)
    return frozenset(found)


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES], ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    """To a file that is there, and to a heading that it has."""
    broken = []
    for link in LINK.findall(BLOCK.sub("", page.read_text())):
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        is_there = target.exists() and (
            not anchor or target.suffix != ".md" or anchor in _anchors(target)
        )
        if not is_there:
            broken.append(link)
    assert broken == []


@cache
def _options() -> dict[str, str]:
    """Section of each verb in the reference of the command, which is generated."""
    text = (ROOT / "docs/reference/cli.md").read_text()
    parts = re.split(r"^### `authz ([a-z -]+)`$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _commands(text: str) -> Iterator[list[str]]:
    """Words of each `authz …` in blocks and code spans."""
    lines = [
        line
        for _, kind, block in BLOCK.findall(text)
        if kind in {"sh", "console", ""}
        for line in block.replace("\\\n", " ").splitlines()
    ]
    for line in [*lines, *COMMAND.findall(text)]:
        for part in re.split(r"&&|\|\||;|\|", line):
            command = part.strip().removeprefix("$ ").removeprefix(".venv/bin/")
            if command.startswith("authz "):
                try:
                    yield shlex.split(command, comments=True)
                except ValueError:
                    yield command.split()


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_commands_and_options_exist(page: Path) -> None:
    """Of each line that a reader may paste."""
    if page.name in {"CHANGELOG.md", "cli.md"}:
        return
    wrong = []
    for words in _commands(page.read_text()):
        if len(words) < 2 or not re.fullmatch("[a-z][a-z-]*", words[1]):
            continue
        is_group = words[1] in GROUPS
        if is_group and (len(words) < 3 or not re.fullmatch("[a-z-]+", words[2])):
            continue
        verb = " ".join(words[1:3] if is_group else words[1:2])
        section = _options().get(verb)
        if section is None:
            wrong.append(" ".join(words))
            continue
        options = {word.partition("=")[0] for word in words if re.match("--[a-z]", word)}
        wrong += [f"{verb} {one}" for one in sorted(options) if f"`{one}`" not in section]
    assert wrong == []


def test_the_page_of_the_sdk_is_that_of_its_sources() -> None:
    """And names everything that the package exports."""
    pytest.importorskip("griffe")
    command = [sys.executable, str(ROOT / "scripts/sdk_page.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_the_page_of_http_lists_every_endpoint() -> None:
    """Of both listeners, with its method."""
    text = (ROOT / "docs/reference/http.md").read_text()
    listed = set(re.findall(r"^\| `([A-Z]+ /[\w./-]+)` \|", text, re.MULTILINE))
    urls = OAuthUrls("https://authz.example")
    metrics = observation.endpoints(lambda: b"", cast("Readiness", None))
    served = {f"{endpoint.method} {endpoint.path}" for endpoint in metrics}
    served |= {f"GET {urlsplit(url).path}" for url in (urls.metadata, urls.jwks)}
    served |= {
        f"POST {urlsplit(url).path}" for url in (urls.token, urls.introspection, urls.revocation)
    }
    served.add("POST /shared-signals/NAME")
    assert listed == served

"""Hooks of mkdocs.yml: navigation, anchors as GitHub makes them, and pages of files outside docs/.

The pages of `docs/` are read in two places: on GitHub, where a link may lead to any file of the repository, and on the site,
which holds only pages. The hook makes a page of each file outside `docs/` that a page links to, so that no link of the site
leads outside it. A Markdown file becomes a page like the others; a file of another kind is shown as code; of a folder all files.
"""

import os
import posixpath
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).resolve().parent.parent
DOCS: Final = "docs"
# Folder of the site with the pages of files outside docs/.
SOURCE: Final = "source"

# Sections of the navigation: title, folder, and the pages and folders that come first. The others follow by title.
SECTIONS: Final = (
    ("Start", "start", ("installation.md", "quickstart.md", "first-policy.md")),
    ("Concepts", "concepts", ("overview.md", "decisions.md", "tasks.md", "history.md")),
    (
        "Guides",
        "guides",
        ("adopt.md", "kinds-of-task.md", "tasks.md", "sdk.md", "approvals.md", "credentials.md"),
    ),
    (
        "Cookbook",
        "cookbook",
        (
            "read-only-agent.md",
            "customer-data-stays.md",
            "strangers-text.md",
            "ask-before-delete.md",
            "one-tenant.md",
            "writes-per-task.md",
            "search-helper.md",
            "lent-api-key.md",
        ),
    ),
    ("Operate", "operate", ()),
    (
        "Reference",
        "reference",
        ("glossary.md", "policies.md", "bundle", "configuration", "cli.md", "reason-codes.md"),
    ),
    ("Explanation", "explanation", ()),
    ("Contributing", "contributing", ("architecture.md",)),
)
# Pages that stand in no folder, by the section in which the navigation shows them.
TOP: Final = {
    "Reference": ("CHANGELOG.md",),
    "Operate": ("SECURITY.md",),
    "Contributing": ("CONTRIBUTING.md",),
}

_LINK: Final = re.compile(r"(\]\()([^)\s]+)(\))")
_IMAGE: Final = re.compile(r'(<img [^>]*src=")([^"]+)(")')
_FENCE: Final = re.compile(r"(^ *```.*?^ *```)", re.MULTILINE | re.DOTALL)
_TITLE: Final = re.compile(r"^# (.+)$", re.MULTILINE)
_LANGUAGES: Final = {".mjs": "js", ".py": "python", ".sh": "sh", ".toml": "toml", ".yaml": "yaml"}


class SiteError(Exception):
    """A page links to a file that the repository does not have."""


def slug(heading: str, _separator: str = "-") -> str:
    """Make the anchor that GitHub makes of a heading.

    Args:
        heading: Text of the heading, without markup.

    Returns:
        The anchor, without `#`.
    """
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Set the anchors and the navigation."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = slug
    config.nav = list(navigation(Path(config.docs_dir)))
    return config


def navigation(docs: Path) -> Iterator[dict[str, Any]]:
    """Yield the sections of the navigation: titles with pages, relative to `docs`.

    Raises:
        SiteError: A page has no heading.
    """
    yield {"Home": "README.md"}
    for title, folder, first in SECTIONS:
        pages = list(_section(docs, docs / folder, first))
        pages += [{page_title(docs / name): name} for name in TOP.get(title, ())]
        if pages:
            yield {title: pages}


def _section(docs: Path, folder: Path, first: tuple[str, ...] = ()) -> Iterator[Any]:
    """Pages of a folder: its README, those that come first, the others by title, then folders."""
    if not folder.is_dir():
        return
    readme = folder / "README.md"
    if readme.exists():
        yield readme.relative_to(docs).as_posix()
    entries = [path for path in folder.iterdir() if path != readme and _has_pages(path)]
    rank = {name: place for place, name in enumerate(first)}
    for entry in sorted(
        entries, key=lambda path: (rank.get(path.name, len(rank)), _sort_key(path))
    ):
        if entry.is_dir():
            yield {page_title(entry): list(_section(docs, entry))}
        else:
            yield {page_title(entry): entry.relative_to(docs).as_posix()}


def _has_pages(path: Path) -> bool:
    return path.suffix == ".md" if path.is_file() else any(path.rglob("*.md"))


def page_title(page: Path) -> str:
    """Return the heading of a page, or of a folder's README, without markup and without the part after a colon.

    Raises:
        SiteError: The page has no heading.
    """
    if page.is_dir():
        page /= "README.md"
    heading = _TITLE.search(page.read_text())
    if heading is None:
        raise SiteError(f"{page}: the page has no heading `# …`; add one")
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1])
    return plain.replace("`", "").partition(":")[0].strip()


def _sort_key(page: Path) -> str:
    return page_title(page).lower().removeprefix("the ")


def on_post_build(config: MkDocsConfig) -> None:
    """Put the Markdown of each page beside it, since `llms.txt` links to it."""
    docs, site = Path(config.docs_dir), Path(config.site_dir)
    for page in docs.rglob("*.md"):
        target = site / page.relative_to(docs)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(page.read_bytes())


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page of each file outside docs/ that a page links to, directly or through such a page."""
    waiting = [
        target
        for file in files.documentation_pages()
        for target in _outside(f"{DOCS}/{file.src_uri}", file.content_string)
    ]
    made: set[str] = set()
    while waiting:
        target = waiting.pop()
        if target in made:
            continue
        made.add(target)
        text = _page_of(target)
        files.append(File.generated(config, _site_page(target), content=text))
        if target.endswith(".md"):
            waiting += _outside(target, text)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to files outside docs/ lead to their pages."""
    del config, files
    uri = page.file.src_uri
    origin = f"{DOCS}/{uri}"
    if uri.startswith(f"{SOURCE}/"):
        origin = uri.removeprefix(f"{SOURCE}/")
        if not origin.endswith(".md") or origin.endswith(".file.md"):
            return markdown

    def rewrite(link: str) -> str:
        path, hash_, anchor = link.partition("#")
        target = _target(origin, path)
        if target is None:
            return link
        inside = target.removeprefix(f"{DOCS}/") if target.startswith(f"{DOCS}/") else None
        there = _site_page(target) if inside is None else inside
        return posixpath.relpath(there, posixpath.dirname(uri) or ".") + hash_ + anchor

    return _each_link(markdown, rewrite)


def _outside(origin: str, text: str) -> list[str]:
    """Files and folders outside docs/ that a page links to."""
    found: list[str] = []

    def look(link: str) -> str:
        target = _target(origin, link.partition("#")[0])
        if target is not None and not target.startswith(f"{DOCS}/"):
            found.append(target)
        return link

    _each_link(text, look)
    return found


def _target(origin: str, path: str) -> str | None:
    """Path of a link's target from the root of the repository. None: an address, or the page itself."""
    if not path or re.match(r"[a-z]+:", path):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(origin), path))


def _each_link(text: str, change: Callable[[str], str]) -> str:
    """Replace the target of each link outside blocks and spans of code."""
    parts = []
    for block in _FENCE.split(text):
        if block.lstrip().startswith("```"):
            parts.append(block)
            continue
        # A link's text may be a span of code, so only targets are looked at: none holds a backtick.
        for target in (_LINK, _IMAGE):
            block = target.sub(lambda link: link[1] + change(link[2]) + link[3], block)  # noqa: PLW2901
        parts.append(block)
    return "".join(parts)


def _site_page(target: str) -> str:
    """Page of a file or a folder outside docs/, in the folder of pages."""
    return f"{SOURCE}/{target}" if target.endswith(".md") else f"{SOURCE}/{target}.file.md"


def _page_of(target: str) -> str:
    path = ROOT / target
    if target.endswith(".md") and path.is_file():
        return path.read_text()
    parts = ["---\nsearch: {exclude: true}\n---\n", f"# {target}\n"]
    for file in _files(path):
        name = file.relative_to(ROOT).as_posix()
        if name != target:
            parts.append(f"## {name.removeprefix(target).lstrip('/')}\n")
        parts.append(_code(file))
    return "\n".join(parts)


def _files(path: Path) -> list[Path]:
    """The file, or the files of a folder that the repository has."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise SiteError(f"{path}: a page links to this file, which is not there")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "."],
        cwd=path,
        capture_output=True,
        check=True,
        env={key: value for key, value in os.environ.items() if not key.startswith("GIT_")},
    )
    names = sorted(name for name in listed.stdout.decode().split("\0") if name)
    return [path / name for name in names if (path / name).is_file()]


def _code(file: Path) -> str:
    text = file.read_text()
    fence = "````" if "```" in text else "```"
    return f"{fence}{_LANGUAGES.get(file.suffix, 'text')}\n{text.rstrip()}\n{fence}\n"

"""Writes docs/llms.txt: the pages of the documentation for language models, in the form of https://llmstxt.org.

The list follows the navigation of the site, so no page is missing. `--check` fails if the file differs.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import docs_site

ROOT: Final = Path(__file__).resolve().parent.parent
DOCS: Final = ROOT / "docs"
FILE: Final = DOCS / "llms.txt"

# Pages that a short context can leave out: section `Optional` of the form.
OPTIONAL: Final = ("Contributing",)
_MOST: Final = 240
_LINK: Final = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_COMMENT: Final = re.compile(r"<!--.*?-->", re.DOTALL)
_SENTENCE: Final = re.compile(r"(.+?[.:?!])(?:\s|$)", re.DOTALL)
_NO_PROSE: Final = ("#", "<", "|", "```", "- ", "* ", ">", "1.")


def llms_txt() -> str:
    """Return the text of the file.

    Raises:
        docs_site.SiteError: A page has no heading.
    """
    home = (DOCS / "README.md").read_text()
    parts = [f"# Authz\n\n> {_first_sentence(home)}\n"]
    parts.append(
        "Links lead to pages in Markdown, relative to this file. "
        "A bundle is a folder of YAML facts and Cedar policies; `authz check`, `authz test` and `authz eval` need no server.\n"
    )
    sections = [entry for entry in docs_site.navigation(DOCS) if "Home" not in entry]
    last = [entry for entry in sections if next(iter(entry)) in OPTIONAL]
    for entry in [entry for entry in sections if entry not in last]:
        ((title, pages),) = entry.items()
        parts.append(f"## {title}\n\n" + "".join(_rows(pages)))
    parts.append(
        "## Optional\n\n" + "".join(row for entry in last for row in _rows(*entry.values()))
    )
    return "\n".join(parts)


def _rows(pages: list[Any]) -> Iterator[str]:
    """Yield a line of each page, also of pages in folders."""
    for page in pages:
        if isinstance(page, str):
            yield _row(page)
            continue
        ((_, target),) = page.items()
        if isinstance(target, str):
            yield _row(target)
        else:
            yield from _rows(target)


def _row(name: str) -> str:
    text = (DOCS / name).read_text()
    title = docs_site.page_title(DOCS / name)
    about = _first_sentence(text)
    return f"- [{title}]({name})" + (f": {about}\n" if about else "\n")


def _first_sentence(text: str) -> str:
    """Return the first sentence of a page below its heading, without markup. It is empty where the page begins with a table."""
    for block in _COMMENT.sub("", text).split("\n\n")[1:]:
        paragraph = " ".join(block.split())
        if not paragraph or paragraph.startswith(_NO_PROSE):
            continue
        plain = _LINK.sub(r"\1", paragraph).replace("**", "")
        sentence = _SENTENCE.match(plain)
        found = (sentence[1] if sentence else plain).rstrip(":.") + "."
        return found if len(found) <= _MOST else found[: _MOST - 1] + "…"
    return ""


def main() -> int:
    """Write the file, or compare it."""
    text = llms_txt()
    if "--check" in sys.argv[1:]:
        if not FILE.exists() or FILE.read_text() != text:
            sys.stderr.write(
                f"{FILE.relative_to(ROOT)} is not what scripts/llms_txt.py writes; run `make reference`\n"
            )
            return 1
        return 0
    FILE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

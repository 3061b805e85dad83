"""`docs/llms.txt` lists every page of the documentation, in the form of llmstxt.org."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docs/llms.txt"
ROW = re.compile(r"- \[[^\]]+\]\((\S+\.md)\)(: .+)?")


def test_the_file_is_what_the_script_writes() -> None:
    """`make reference` writes it, and `make lint` compares it."""
    pytest.importorskip("mkdocs")
    command = [sys.executable, str(ROOT / "scripts/llms_txt.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_the_file_has_the_form() -> None:
    """A title, a quoted summary, prose, and sections of links; the section `Optional` is last."""
    title, summary, rest = FILE.read_text().split("\n\n", 2)
    assert title == "# Authz"
    assert re.fullmatch(r"> Authz decides, .+\.", summary)
    sections = re.split(r"^## (.+)$\n", rest, flags=re.MULTILINE)
    assert sections[1::2][-1] == "Optional"
    for name, rows in zip(sections[1::2], sections[2::2], strict=True):
        lines = rows.strip().splitlines()
        assert lines, name
        assert [line for line in lines if not ROW.fullmatch(line)] == []


def test_every_page_is_listed_once() -> None:
    """But the page that leads to the others, and none that is gone."""
    listed = [found[1] for found in map(ROW.fullmatch, FILE.read_text().splitlines()) if found]
    docs = ROOT / "docs"
    pages = {page.relative_to(docs).as_posix() for page in docs.rglob("*.md")} - {"README.md"}
    assert sorted(listed) == sorted(pages)


def test_the_comparison_says_where_each_statement_is_from() -> None:
    """Each system has a link and a date, and each link of the text stands among the sources."""
    text = (ROOT / "docs/explanation/comparison.md").read_text()
    body, sources = text.split("## Sources\n")
    rows = [row for row in sources.splitlines() if row.startswith("| ")][1:]
    assert len(rows) >= 10
    for row in rows:
        assert "](https://" in row
        assert re.search(r"\b2026-\d\d", row)
    hosts = set(re.findall(r"\]\(https://([^/)]+)", body))
    assert hosts <= set(re.findall(r"\]\(https://([^/)]+)", sources))

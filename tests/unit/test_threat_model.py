"""Each line of the threat model is shown by a test or a case that exists."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs/explanation/threat-model.md"
REFERENCE: Final = re.compile(r"`((?:tests|native)/[^`:]+)::([^`]+)`")
RUST_TEST: Final = re.compile(
    r"#\[(?:tokio::)?test(?:\([^)]*\))?\]\s*(?:#\[[^\]]*\]\s*)*(?:async )?fn (\w+)"
)
NO_TEST: Final = "No test can show this."


def _lines() -> Iterator[tuple[str, bool, str]]:
    """Heading, whether the line says what is not defended, and text of each line of the list."""
    for section in PAGE.read_text().split("\n## ")[1:]:
        heading, _, text = section.partition("\n")
        defended, _, open_lines = text.partition("**Not defended:**")
        for is_open, part in ((False, defended), (True, open_lines)):
            for line in re.split(r"^- ", part, flags=re.MULTILINE)[1:]:
                yield heading, is_open, " ".join(line.split())


@cache
def _names(path: Path) -> frozenset[str]:
    """Names of the tests or cases of a file."""
    text = path.read_text()
    match path.suffix:
        case ".py":
            functions = (ast.FunctionDef, ast.AsyncFunctionDef)
            return frozenset(
                node.name
                for node in ast.parse(text).body
                if isinstance(node, functions) and node.name.startswith("test_")
            )
        case ".rs":
            return frozenset(RUST_TEST.findall(text))
        case _:
            loaded: dict[str, list[dict[str, Any]]] = yaml.safe_load(text)
            return frozenset(test.get("case") or test["trace"] for test in loaded["tests"])


REFERENCES: Final = sorted(set(REFERENCE.findall(PAGE.read_text())))


@pytest.mark.parametrize(("file", "name"), REFERENCES, ids=lambda value: str(value)[-60:])
def test_what_shows_a_line_exists(file: str, name: str) -> None:
    """A test that was renamed or removed leaves no claim behind."""
    path = ROOT / file
    assert path.is_file(), f"{file} does not exist"
    assert name in _names(path), f"{file} has no test or case {name!r}"


def test_every_defence_is_shown() -> None:
    """No defence stands there without its test; what is not defended has one, or says that it has none."""
    lines = list(_lines())
    assert len(lines) > 60
    bare = [
        text
        for _, is_open, text in lines
        if not REFERENCE.search(text) and not (is_open and (NO_TEST in text or "](" in text))
    ]
    assert bare == []


def test_every_attacker_is_told_what_is_left() -> None:
    """Each attacker has lines of both kinds: nobody is stopped whole."""
    kinds: dict[str, set[bool]] = {}
    for heading, is_open, _ in _lines():
        kinds.setdefault(heading, set()).add(is_open)
    assert [heading for heading, found in kinds.items() if found != {False, True}] == []
    assert len(kinds) >= 8

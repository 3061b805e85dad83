"""The bundle of `authz init` stays small: three files, their test, and a dozen concepts."""

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from authz.tools.scaffold import write_template

MOST_CONCEPTS: Final = 12
MOST_LINES: Final = 55
# Keys whose members are names of the reader's own.
NAMED: Final = frozenset({"agents", "subjects", "labels", "destinations", "catalog", "operations"})
# Keys whose value is another language.
FOREIGN: Final = frozenset({"input"})
CONCEPTS: Final = {
    "bundle": {"bundle", "name"},
    "task": {"tasks"},
    "mode": {"mode", "default", "owner", "until"},
    "agent": {"agents", "Role"},
    "subject": {"subjects", "issuer", "claim", "contains"},
    "system": {"catalog", "kind", "system"},
    "operation": {"operations", "input"},
    "effect": {"effects", "effect"},
    "label": {"labels", "yields", "uncleared_labels"},
    "destination": {
        *("destinations", "match", "clearance", "from", "type"),
        *("destination", "destination.class", "DestinationClass"),
    },
    "policy": {"permit", "forbid", "id", "reason", "Action"},
    "step-up": {"stepup", "satisfied", "Kind"},
}
"""Words of a bundle by their concept."""


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The bundle of `authz init`, which observes."""
    write_template(tmp_path / "bundle", date(2027, 1, 1))
    return tmp_path / "bundle"


def yaml_words(value: Any, *, is_named: bool = False) -> Iterator[str]:
    """Yield the keys of a file that Authz gives a meaning to."""
    if not isinstance(value, dict):
        return
    for key, member in value.items():
        if not is_named:
            yield key
        if key not in FOREIGN:
            yield from yaml_words(member, is_named=not is_named and key in NAMED)


def cedar_words(text: str) -> Iterator[str]:
    """Yield effects, annotations, entity types, groups of actions and keys of the context."""
    code = re.sub(r"//.*", "", text)
    yield from re.findall(r"^(permit|forbid)\b", code, re.MULTILINE)
    yield from re.findall(r"@(\w+)", code)
    yield from re.findall(r"\b([A-Z]\w*)::\"", code)
    yield from re.findall(r"Action::\"(\w+):", code)
    for path in re.findall(r"\bcontext\.(\w+(?:\.\w+)*)", code):
        yield re.sub(r"\.(?:isEmpty|contains)$", "", path)


def words(folder: Path) -> set[str]:
    """Collect the words of the files, without the tests."""
    collected = set(cedar_words((folder / "policy.cedar").read_text()))
    for file in folder.glob("*.yaml"):
        collected |= set(yaml_words(yaml.safe_load(file.read_text())))
    return collected


def test_it_has_three_files_and_a_test(bundle: Path) -> None:
    """Each fits on a page."""
    files = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert files == {"people.yaml", "systems.yaml", "policy.cedar", "tests/desk.yaml"}
    for name in files:
        lines = (bundle / name).read_text().splitlines()
        assert len(lines) <= MOST_LINES, name
        assert max(map(len, lines)) <= 100, name


def test_it_needs_a_dozen_concepts(bundle: Path) -> None:
    """A new word in the files must belong to a concept that is there already."""
    used = words(bundle)
    concepts = {concept for concept, known in CONCEPTS.items() if used & known}
    assert used <= set().union(*CONCEPTS.values()), "a word without a concept"
    assert concepts == set(CONCEPTS), "a concept that no file has"
    assert len(concepts) <= MOST_CONCEPTS


def test_the_words_of_the_full_bundle_are_more(tmp_path: Path) -> None:
    """The count finds words: the full bundle has several that the small one does without."""
    write_template(tmp_path / "full", full=True)
    used: set[str] = set()
    for file in (tmp_path / "full").glob("*.yaml"):
        used |= set(yaml_words(yaml.safe_load(file.read_text())))
    for file in (tmp_path / "full").rglob("*.cedar"):
        used |= set(cedar_words(file.read_text()))
    more = used - set().union(*CONCEPTS.values())
    assert {"sequences", "budgets", "tiers", "routes", "templates", "obligation"} <= more

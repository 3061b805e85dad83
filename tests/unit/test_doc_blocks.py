"""Examples of the documentation are what they say: policies compile, configurations load, commands are run."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.doc_blocks import (
    LANGUAGES,
    PAGES,
    ROOT,
    DocBlock,
    blocks,
    check,
    counts,
    missing_imports,
)


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(one.language in LANGUAGES for one in blocks(page))],
    ids=_name,
)
def test_examples_of_a_page(page: Path) -> None:
    """Each block of a language that is checked, unless it says why not."""
    found = blocks(page)
    defects = {
        block.place: defects
        for block in found
        if block.language in LANGUAGES and (not block.mark or block.mark.startswith("from: "))
        if (defects := check(block, found))
    }
    defects |= {
        block.place: missing
        for block in found
        if block.language == "python"
        if (missing := missing_imports(block))
    }
    assert defects == {}


def test_few_examples_are_not_checked(capsys: pytest.CaptureFixture[str]) -> None:
    """Each says why; `python -m tests.support.doc_blocks` lists them."""
    checked, skipped = counts()
    with capsys.disabled():
        sys.stdout.write(
            f"\nexamples of the documentation: {checked} run or checked, {len(skipped)} not run\n"
        )
    assert all(len(why) > 10 for why in skipped.values())
    assert checked > 2 * len(skipped)


def _block(language: str, text: str) -> DocBlock:
    return DocBlock("docs/example.md", 1, language, "", text)


@pytest.mark.parametrize(
    ("language", "text", "defect"),
    [
        ("cedar", '@id("x") permit (principal in Role::"staf", action, resource);', "unknown role"),
        ("cedar", "permit (principal, action, resource);", "`@id`"),
        ("yaml", "labels: {x: {kind: confidental}}", "confidental"),
        ("yaml", "classify: [{match: crm.nothing, effects: [read]}]", "matches no operation"),
        ("yaml", "listeners: {main: {adress: x}}", "adress"),
        ("yaml", "enforcers: [{name: x, listener: nowhere}]", "nowhere"),
        (
            "yaml",
            (
                "fixtures: {agents: {a: 'spiffe://${trust_domain}/ns/support/sa/a'}}\n"
                "tests: [{case: x, as: {agent: a}, call: crm.search, input: {query: x}, expect: STEP_UP}]"
            ),
            "expected",
        ),
        ("sh", "authz version", "run"),
        ("python", "x = 1", "run"),
    ],
)
def test_a_wrong_example_is_found(language: str, text: str, defect: str) -> None:
    """Of each kind."""
    block = _block(language, text)
    assert defect in "\n".join(check(block, [block]))


def test_a_part_that_its_file_does_not_have_is_found() -> None:
    """The file was changed, and the page was not."""
    block = DocBlock("docs/example.md", 1, "yaml", "from: mkdocs.yml", "site_name: Autz\n")
    assert "does not stand in" in check(block, [block])[0]
    assert check(replace(block, text="site_name: Authz\n"), []) == []


def test_a_name_that_is_not_there_is_found() -> None:
    """Also in a block that is not run."""
    block = _block("python", "from authz.config import load, lode")
    assert missing_imports(block) == ["`authz.config` has no `lode`"]

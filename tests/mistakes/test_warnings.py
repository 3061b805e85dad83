"""Warnings of `authz check` name nothing that works."""

from collections.abc import Iterator
from functools import cache
from typing import Any, Final

import pytest
import yaml

from authz.bundle import CheckFacts, check_bundle, read_folder
from authz.model import Diagnostic
from tests.support.cases import BUNDLES, CASES, VARIABLES

NAMES: Final = sorted(path.name for path in BUNDLES.iterdir() if path.is_dir())


@cache
def warnings(name: str) -> tuple[Diagnostic, ...]:
    """Return the warnings about a bundle of the cases."""
    return check_bundle(read_folder(BUNDLES / name), CheckFacts(VARIABLES)).warnings


def permitted_calls(document: Any) -> Iterator[str]:
    """Yield the operations that a case file expects to be permitted."""
    if isinstance(document, list):
        for item in document:
            yield from permitted_calls(item)
    elif isinstance(document, dict):
        expect = document.get("expect")
        outcome = expect.get("outcome") if isinstance(expect, dict) else expect
        if outcome == "PERMIT" and "call" in document:
            yield document["call"]
        for item in document.values():
            yield from permitted_calls(item)


@pytest.mark.parametrize("name", NAMES)
def test_no_warning_about_an_operation_that_a_case_permits(name: str) -> None:
    """What a case calls with success can be called, so no warning says that nobody can."""
    permitted: set[str] = set()
    for file in CASES.glob("*.yaml"):
        document = yaml.safe_load(file.read_text())
        if document.get("bundle") == name:
            permitted.update(permitted_calls(document.get("tests")))
    said = [one for one in warnings(name) if one.code in ("no-rule", "cap-below-scope")]
    wrong = [str(one) for one in said for operation in permitted if f"`{operation}`" in one.what]
    assert wrong == []


def test_cases_permit_enough_to_tell() -> None:
    """The test above compares with many operations, and some of the bundles have warnings."""
    files = [yaml.safe_load(file.read_text()) for file in CASES.glob("*.yaml")]
    permitted = {call for document in files for call in permitted_calls(document.get("tests"))}
    assert len(permitted) > 50
    assert {one.code for name in NAMES for one in warnings(name)} >= {
        "no-rule",
        "cap-below-scope",
        "unused-role",
        "unyielded-label",
    }

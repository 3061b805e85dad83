"""The tools run on `examples/company`, as in the CI of a company."""

import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final

import pytest
from typer.testing import CliRunner, Result

from authz.bundle import read_folder, read_results
from authz.cli import application
from authz.engine import Plan
from authz.errors import BundleError
from bench.holes.draft import Draft

ROOT: Final = Path(__file__).resolve().parents[2]
COMPANY: Final = ROOT / "examples" / "company"
_NOW_MS: Final = 1_795_564_800_000
_FIGURES: Final = re.compile(
    r"(\d+) policies, (\d+) operations of (\d+) systems, (\d+) kinds of task, and (\d+) tested steps"
)


def _run(*words: str) -> Result:
    return CliRunner().invoke(application(), [*words])


@cache
def _draft() -> Draft:
    return Draft.read("company", COMPANY)


def test_check_has_no_warning() -> None:
    """A warning that newcomers see in an example teaches them to ignore warnings."""
    checked = _run("check", str(COMPANY), "--strict")
    assert checked.exit_code == 0, checked.output


def test_its_tests_pass() -> None:
    """None is skipped: each can be judged without a server."""
    tested = _run("test", str(COMPANY))
    assert tested.exit_code == 0, tested.output
    assert "0 failed, 0 skipped" in tested.output


def test_the_readme_counts_right() -> None:
    """Figures in prose are out of date after the next policy, unless a test holds them."""
    bundle = read_folder(COMPANY)
    plan = Plan.compile(bundle, {})
    counted = _FIGURES.search((COMPANY / "README.md").read_text())
    assert counted is not None
    assert tuple(map(int, counted.groups())) == (
        plan.policy_count,
        plan.operation_count,
        len([one for one in plan.systems if one != "authz"]),
        sum(len(section.value) for section in _draft().sections("templates")),
        read_results(plan.test(bundle, _NOW_MS)).passed,
    )


def test_every_file_is_in_the_readme() -> None:
    """A newcomer finds each file of facts and each file of policies."""
    text = (COMPANY / "README.md").read_text()
    for file in COMPANY.glob("*.yaml"):
        assert f"`{file.name}`" in text, file
    for file in (COMPANY / "policies").glob("*.cedar"):
        assert f"`{file.stem}`" in text, file


@pytest.mark.parametrize("policy", [one.id for one in _draft().rules()])
def test_a_test_needs_each_policy(policy: str) -> None:
    """Without the policy a test of the bundle fails, or the bundle is refused: no policy stands there for show."""
    draft = _draft().copy()
    next(one for one in draft.rules() if one.id == policy).remove()
    bundle = replace(read_folder(COMPANY), files=draft.rendered(_draft()))
    try:
        plan = Plan.compile(bundle, {})
    except BundleError:
        return
    assert read_results(plan.test(bundle, _NOW_MS)).failed > 0

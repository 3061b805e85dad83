"""The tools run on `examples/company`, as in the CI of a company."""

import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from authz.analysis.executable import find_analyzer
from authz.bundle import read_folder, read_results
from authz.cli import main
from authz.engine import Plan
from authz.errors import BundleError, UsageError
from bench.holes.draft import Draft
from tests.support.readme import matches

ROOT: Final = Path(__file__).resolve().parents[2]
COMPANY: Final = ROOT / "examples" / "company"
_NOW_MS: Final = 1_795_564_800_000
_FIGURES: Final = re.compile(
    r"(\d+) policies, (\d+) operations of (\d+) systems, (\d+) kinds of task, and (\d+) tested steps"
)


# The change of a colleague who means well: copies of answers go to customers that the company knows.
_RULE: Final = (
    'when { context.uncleared_labels.containsAny([Label::"pii", Label::"customer-record"]) }'
)
_EXEMPTION: Final = (
    'unless { action == Action::"tickets.reply" && '
    'context.destination.class == DestinationClass::"customers" }'
)

_ASSERTION: Final = "assertion:no-record-to-a-customer-after-strangers-text"
_OPERATIONS: Final = {"crm.get_customer", "tickets.read", "tickets.reply"}


def _has_analyzer() -> bool:
    try:
        find_analyzer()
    except UsageError:
        return False
    return importlib.util.find_spec("cvc5") is not None


needs_analyzer = pytest.mark.skipif(
    not _has_analyzer(), reason="needs `make analyzer` and the solver"
)


@dataclass(frozen=True)
class Run:
    """A command that ended."""

    exit_code: int
    output: str


Command = Callable[..., Run]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command of `authz`."""

    def invoke(*words: str | Path) -> Run:
        with pytest.raises(SystemExit) as ended:
            main([str(one) for one in words])
        code = ended.value.code
        return Run(code if isinstance(code, int) else 0, capsys.readouterr().out)

    return invoke


@cache
def _draft() -> Draft:
    return Draft.read("company", COMPANY)


def test_check_has_no_warning(run: Command) -> None:
    """A warning that newcomers see in an example teaches them to ignore warnings."""
    checked = run("check", COMPANY, "--strict")
    assert checked.exit_code == 0, checked.output


def test_its_tests_pass(run: Command) -> None:
    """None is skipped: each can be judged without a server."""
    tested = run("test", COMPANY)
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


def test_its_tests_reach_everything(run: Command) -> None:
    """Starts of tasks, gifts and answers are no calls, so their policies are not counted; `test_a_test_needs_each_policy` removes them."""
    tested = run("test", COMPANY, "--coverage", "--format", "json")
    assert tested.exit_code == 0
    for kind, counted in json.loads(tested.output)["coverage"]["kinds"].items():
        missing = {one["file"] for one in counted["parts"] if one["reach"] != "reached"}
        expected = (
            {"policies/tasks.cedar", "policies/approvals.cedar"} if kind == "policies" else set()
        )
        assert missing <= expected, (kind, missing)


def test_controls_that_it_can_enforce_are_enforced(run: Command) -> None:
    """Without the policy of a control a test fails. No operation of the company runs code, so ASI05 is missing."""
    covered = run("coverage", COMPANY, "--framework", "owasp-agentic", "--format", "json")
    assert covered.exit_code == 0
    (framework,) = json.loads(covered.output)["frameworks"]
    states = {one["id"]: one["state"] for one in framework["controls"]}
    assert {id_ for id_, state in states.items() if state == "missing"} == {"ASI05"}
    assert states["ASI01"] == states["ASI03"] == states["ASI09"] == "enforced"


def test_every_file_is_in_the_readme() -> None:
    """A newcomer finds each file of facts and each file of policies."""
    text = (COMPANY / "README.md").read_text()
    for file in COMPANY.glob("*.yaml"):
        assert f"`{file.name}`" in text, file
    for file in (COMPANY / "policies").glob("*.cedar"):
        assert f"`{file.stem}`" in text, file


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    """A copy of the bundle with a hole that its own tests do not see."""
    copy = tmp_path / "company"
    shutil.copytree(COMPANY, copy)
    policies = copy / "policies" / "data.cedar"
    text = policies.read_text()
    assert text.count(_RULE) == 1
    policies.write_text(text.replace(_RULE, f"{_RULE}\n{_EXEMPTION}"))
    return copy


def test_the_hole_passes_check_and_test(changed: Path, run: Command) -> None:
    """Otherwise nothing would be left to find for the analysis."""
    assert run("check", changed, "--strict").exit_code == 0
    assert run("test", changed).exit_code == 0


def test_the_test_of_the_readme_fails_while_the_hole_is_there(changed: Path, run: Command) -> None:
    """And passes without the hole."""
    readme = (COMPANY / "README.md").read_text()
    assert f"+{_EXEMPTION}\n" in readme
    (kept,) = re.findall(r"^```yaml\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    (changed / "tests" / "kept.yaml").write_text(kept)
    with_hole = run("test", changed)
    assert with_hole.exit_code == 2
    assert "1 failed, 0 skipped" in with_hole.output
    policies = changed / "policies" / "data.cedar"
    policies.write_text(policies.read_text().replace(f"{_EXEMPTION}\n", ""))
    assert run("test", changed).exit_code == 0


@needs_analyzer
@pytest.mark.slow
def test_analyze_has_no_finding(run: Command, capsys: pytest.CaptureFixture[str]) -> None:
    """Hardly a question is open, and nothing is wrong with an example that people copy."""
    analyzed = run("analyze", COMPANY, "--format", "json", "--fail-on", "warning")
    assert analyzed.exit_code == 0, analyzed.output
    report = json.loads(analyzed.output)
    assert [one for one in report["findings"] if one["state"] != "suppressed"] == []
    open_share = report["counts"]["not_decided"] / report["counts"]["questions"]
    with capsys.disabled():
        sys.stdout.write(
            f"\nnot decided: {open_share:.1%} of {report['counts']['questions']} questions\n"
        )
    assert open_share <= 0.02
    assert report["proved"]


@needs_analyzer
@pytest.mark.slow
def test_an_assertion_fails_without_a_solver(run: Command) -> None:
    """Nobody knows then whether it holds, so the default does not pass it. Open questions about other rules are warnings."""
    analyzed = run("analyze", COMPANY, "--format", "json", "--no-solver")
    assert analyzed.exit_code == 2, analyzed.output
    still_open = [
        one
        for one in json.loads(analyzed.output)["findings"]
        if one["verdict"] == "not_decided" and one["state"] != "suppressed"
    ]
    assert {one["severity"] for one in still_open} == {"error", "warning"}
    for one in still_open:
        is_assertion = one["rule"].startswith("assertion:")
        assert (one["severity"] == "error") is is_assertion, one


@needs_analyzer
@pytest.mark.slow
def test_analyze_finds_the_hole(changed: Path, run: Command) -> None:
    """As a trace of three calls, with the address of a customer; the page shows it."""
    analyzed = run("analyze", changed)
    assert analyzed.exit_code == 2, analyzed.output
    page = (COMPANY / "README.md").read_text()
    expected = re.findall(r"^```text\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[0]
    assert matches(expected, analyzed.output), analyzed.output
    (found,) = re.findall(
        rf"^error\[{_ASSERTION}\].*?(?=^error|^warning|\Z)",
        analyzed.output,
        re.MULTILINE | re.DOTALL,
    )
    assert "(path found)" in found
    calls = [
        one for one in re.findall(r"^ .*? calls (\S+) ", found, re.MULTILINE) if one in _OPERATIONS
    ]
    assert calls == ["tickets.read", "crm.get_customer", "tickets.reply"]
    assert "lea@heron.example" in found or "kai@brandt.example" in found


@needs_analyzer
@pytest.mark.slow
def test_diff_shows_the_hole_and_no_other(changed: Path, run: Command) -> None:
    """Of the bundle with itself nothing; of the changed one a request that only the change permits."""
    same = run("diff", COMPANY, COMPANY, "--fail-on", "not-proved")
    assert same.exit_code == 0, same.output
    compared = run("diff", COMPANY, changed, "--format", "json", "--fail-on", "newly-permitted")
    assert compared.exit_code == 2, compared.output
    proof = json.loads(compared.output)["proof"]
    opened = {one["operation"] for one in proof["operations"] if one["verdict"] == "path_found"}
    assert opened == {"tickets.reply"}
    assert proof["counts"]["not_decided"] == 0
    shown = run("diff", COMPANY, changed).output
    page = (COMPANY / "README.md").read_text()
    expected = re.findall(r"^```text\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[1]
    assert matches(expected, shown), shown


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

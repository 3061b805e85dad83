"""`authz test`: coverage, thresholds and formats."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from authz.cli import main
from tests.support.covered_bundle import AGENT, FILES, write_bundle


def run(*words: object) -> int:
    """Runs `authz test`; returns its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(["test", *map(str, words)])
    code = ended.value.code
    assert isinstance(code, int)
    return code


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle of which the tests reach some parts."""
    return write_bundle(tmp_path / "bundle")


def document(bundle: Path, file: Path) -> dict[str, Any]:
    """Returns the coverage of a bundle, from the file that the command writes."""
    assert run(bundle, "--coverage-file", file) == 0
    value: dict[str, Any] = json.loads(file.read_text())
    return value


def test_each_part_says_how_far_the_tests_get(bundle: Path, tmp_path: Path) -> None:
    """With its place and the tests that reach it."""
    made = document(bundle, tmp_path / "coverage.json")
    policies = {part["name"]: part for part in made["kinds"]["policies"]["parts"]}
    assert {name: part["reach"] for name, part in policies.items()} == {
        "may": "reached",
        "never-run": "none",
        "no-drops": "reached",
        "one-lock": "reached",
        "other-lock": "reached",
    }
    assert policies["no-drops"] == {
        "name": "no-drops",
        "file": "policies/all.cedar",
        "line": 3,
        "effect": "forbid",
        "reach": "reached",
        "tests": ["drops are denied"],
    }
    operations = made["kinds"]["operations"]
    assert (operations["covered"], operations["total"], operations["percent"]) == (3, 4, 75.0)
    assert made["version"] == 1
    assert made["bundle"]["name"] == "small"
    assert made["decisions"] == 3
    assert list(made["kinds"]) == [
        "policies",
        "operations",
        "sequences",
        "budgets",
        "templates",
        "tiers",
        "step_up_kinds",
        "destinations",
        "exceptions",
    ]
    assert made["total"] == sum(kind["total"] for kind in made["kinds"].values())


def test_uncovered_parts_are_listed_with_file_and_line(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each with the gap."""
    assert run(bundle, "--coverage") == 0
    shown = capsys.readouterr().out
    assert "not covered: policy never-run (policies/all.cedar:12): no test reaches it" in shown
    assert "not covered: budget reads (facts.yaml:" in shown
    assert "not covered: policy may" not in shown


def test_below_the_threshold_is_2(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A share that is exact is enough."""
    made = document(bundle, bundle.parent / "c.json")
    share = made["covered"] * 100 / made["total"]
    assert run(bundle, "--threshold", share) == 0
    capsys.readouterr()
    assert run(bundle, "--threshold", share + 0.01) == 2
    assert f"the tests reach {made['covered']} of {made['total']} parts" in capsys.readouterr().err
    assert run(bundle, "--threshold", 101) == 1


def test_without_coverage_no_part_is_listed(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the document has no coverage."""
    assert run(bundle, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "passed": 3,
        "failed": 0,
        "skipped": 0,
        "failures": [],
    }


def test_json_has_failures_and_coverage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is that of failing tests."""
    bundle = write_bundle(
        tmp_path / "b", tests=FILES["tests/all.yaml"].replace("expect: PERMIT", "expect: DENY")
    )
    assert run(bundle, "--format", "json", "--coverage") == 2
    made = json.loads(capsys.readouterr().out)
    assert made["failed"] == 1
    assert made["failures"][0]["test"] == "reads are permitted"
    assert (made["failures"][0]["file"], made["failures"][0]["line"]) == ("tests/all.yaml", 3)
    assert made["coverage"]["kinds"]["policies"]["total"] == 5


def test_github_gets_an_annotation_of_each_failure_and_gap(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At their lines, from the root of the repository."""
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    bundle = write_bundle(
        tmp_path / "b", tests=FILES["tests/all.yaml"].replace("expect: PERMIT", "expect: DENY")
    )
    assert run(bundle, "--format", "github", "--threshold", 100) == 2
    lines = capsys.readouterr().out.splitlines()
    (error,) = [line for line in lines if line.startswith("::error file=")]
    assert error.startswith("::error file=b/tests/all.yaml,line=3,title=authz test::test `reads")
    notices = [line for line in lines if line.startswith("::notice ")]
    assert any("file=b/policies/all.cedar,line=12" in line for line in notices)
    assert any(line.startswith("::error title=authz test::coverage") for line in lines)


def test_a_name_of_a_test_begins_no_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names are texts of the bundle."""
    tests = (
        f"tests:\n  - {{case: \"x\\n::error::forged\", as: {{agent: '{AGENT}'}}, "
        "call: crm.get, expect: DENY}\n"
    )
    assert run(write_bundle(tmp_path / "b", tests=tests), "--format", "github") == 2
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("::error::")] == []


def test_junit_has_every_failure_with_file_and_line(tmp_path: Path) -> None:
    """More failures than the engine lists are counted in a case of their own."""
    case = f"  - {{case: wrong \\a, as: {{agent: '{AGENT}'}}, call: crm.get, expect: DENY}}\n"
    tests = "tests:\n" + case.replace("wrong \\a", '"wrong \\a"') * 203
    report = tmp_path / "junit.xml"
    assert run(write_bundle(tmp_path / "b", tests=tests), "--junit", report) == 2
    suite = ET.parse(report).getroot()
    assert suite.get("failures") == "203"
    cases = suite.findall("testcase[failure]")
    named = [case for case in cases if case.get("file")]
    assert [(case.get("file"), case.get("line")) for case in named[:2]] == [
        ("tests/all.yaml", "2"),
        ("tests/all.yaml", "3"),
    ]
    assert len(named) == 200
    (rest,) = [case for case in cases if not case.get("file")]
    failure = rest.find("failure")
    assert failure is not None
    assert failure.get("message") == "3 more failures"


def test_a_matrix_fails_by_the_name_of_its_cell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the line of the row."""
    tests = f"""\
fixtures: {{agents: {{bot: '{AGENT}'}}}}
tests:
  - case: who may what
    matrix:
      principals: {{bot: {{agent: bot}}}}
      operations: {{crm.get: {{}}, crm.drop: {{}}}}
      outcomes:
        - [operation, bot]
        - [crm.get,   PERMIT]
        - [crm.drop,  PERMIT]
"""
    assert run(write_bundle(tmp_path / "b", tests=tests), "--format", "json") == 2
    (failure,) = json.loads(capsys.readouterr().out)["failures"]
    assert failure["test"] == "who may what: bot, crm.drop"
    assert failure["line"] == 10

"""Reports of an analysis: what is refused, which findings count, and what baselines and suppressions do."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from authz.analysis.baseline import read_baseline, write_baseline
from authz.analysis.report import ReportError, Verdict, read_report
from authz.analysis.rules import RULES, rule_text
from authz.analysis.selection import FailLevel, FindingState, Selection, select_findings
from authz.errors import UsageError
from tests.support.analysis import finding, report_bytes, report_document

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)


def _selected(*findings: dict[str, Any], **members: Any) -> Selection:
    return select_findings(read_report(report_bytes(*findings, **members)), NOW)


def _states(selection: Selection) -> dict[str, FindingState]:
    return {one.finding.id: one.state for one in selection.findings}


def test_a_report_is_read() -> None:
    """With every member of the contract."""
    report = read_report(report_bytes(finding(1)))

    (one,) = report.findings
    assert one.verdict is Verdict.PATH_FOUND
    assert [step.new_labels for step in one.path] == [("pii",), ("untrusted",), ()]
    assert [step.is_pivot for step in one.path] == [False, False, True]
    assert one.cut is not None
    assert one.cut.changes[0].line == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, "version"),
        ({"findings": [finding(1, verdict="safe")]}, "verdict"),
        ({"findings": [finding(1, severity="none")]}, "severity"),
        ({"findings": [finding(1, id="1")]}, "id"),
        ({"findings": [finding(1, path=[{"step": 1}])]}, "operation"),
        ({"findings": [finding(1, message=None)]}, "message"),
        ({"findings": [finding(1), finding(1)]}, "two findings with one id"),
        ({"counts": {"policies": "12"}}, "counts"),
        ({"findings": None}, "findings"),
    ],
)
def test_a_report_that_is_not_one_is_refused(change: dict[str, Any], said: str) -> None:
    """A value that is not understood is never an empty list of findings."""
    document = json.dumps({**report_document(), **change}).encode()

    with pytest.raises(ReportError, match=said):
        read_report(document)


@pytest.mark.parametrize("missing", ["version", "solver", "counts", "findings", "bundle"])
def test_a_report_without_a_member_is_refused(missing: str) -> None:
    """Also without `findings`, and without a word about the solver."""
    document = report_document(finding(1))
    del document[missing]

    with pytest.raises(ReportError, match=missing):
        read_report(json.dumps(document).encode())


def test_output_that_is_not_json_is_refused() -> None:
    """For example nothing at all."""
    for document in (b"", b"{", b"[]", b"\xff"):
        with pytest.raises(ReportError):
            read_report(document)


def test_a_newer_analyzer_may_say_more() -> None:
    """Members that are not known hide no finding."""
    report = read_report(report_bytes(finding(1, colour="red"), speed=3))

    assert [one.id for one in report.findings] == ["0000000000000001"]


def test_findings_stand_in_the_order_of_their_worth() -> None:
    """New before known, errors before notes, and paths before open questions."""
    selection = _selected(
        finding(1, severity="note"),
        finding(2, verdict="not_decided", reason="time limit"),
        finding(3),
        finding(4, severity="warning"),
    )

    assert [int(one.finding.id, 16) for one in selection.findings] == [3, 2, 4, 1]


@pytest.mark.parametrize(
    ("level", "failing"),
    [("error", {1, 4}), ("warning", {1, 2, 4}), ("note", {1, 2, 3, 4}), ("new", {1, 2, 3, 4})],
)
def test_the_level_says_what_fails(level: str, failing: set[int]) -> None:
    """A question that is open fails like a defect of its severity."""
    selection = _selected(
        finding(1),
        finding(2, severity="warning"),
        finding(3, severity="note"),
        finding(4, verdict="not_decided", reason="the solver ended"),
    )

    assert {int(one.id, 16) for one in selection.failing(FailLevel(level))} == failing


def test_an_open_question_is_never_proved() -> None:
    """It is counted apart, also where it is suppressed."""
    entry = {"finding": f"{1:016x}", "owner": "sec", "reason": "known", "until": "2026-12-31"}
    selection = _selected(
        finding(1, verdict="not_decided"), proved=[], suppressions=[entry], solver=None
    )

    assert [one.id for one in selection.not_decided] == [f"{1:016x}"]
    assert selection.report.proved == ()
    assert selection.failing(FailLevel.NOTE) == ()


def test_a_baseline_knows_findings(tmp_path: Path) -> None:
    """Findings that it lacks are new, and those that are gone are told."""
    file = tmp_path / "baseline.json"
    old = read_report(report_bytes(finding(2), finding(1)))
    assert write_baseline(file, old.findings) == 2
    assert [row["id"] for row in json.loads(file.read_text())["findings"]] == [
        f"{number:016x}" for number in (1, 2)
    ]

    report = read_report(report_bytes(finding(2), finding(3)))
    selection = select_findings(report, NOW, read_baseline(file))

    assert _states(selection) == {
        f"{2:016x}": FindingState.KNOWN,
        f"{3:016x}": FindingState.NEW,
    }
    assert [one.id for one in selection.failing(FailLevel.NEW)] == [f"{3:016x}"]
    assert [known.id for known in selection.gone] == [f"{1:016x}"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"version": 2, "findings": []}',
        '{"version": 1, "findings": [{"id": "*", "rule": "x", "message": ""}]}',
        '{"version": 1, "findings": [], "all": true}',
    ],
)
def test_a_broken_baseline_is_refused(tmp_path: Path, content: str) -> None:
    """It counts neither as an empty one, nor as one that knows everything."""
    file = tmp_path / "baseline.json"
    file.write_text(content)

    with pytest.raises(UsageError, match="is not a baseline"):
        read_baseline(file)
    with pytest.raises(UsageError, match="cannot be read"):
        read_baseline(tmp_path / "none.json")


def _entry(**members: Any) -> dict[str, Any]:
    return {
        "owner": "sec@corp.example",
        "reason": "accepted until Q1",
        "until": "2026-12-01",
        **members,
    }


@pytest.mark.parametrize(
    ("entry", "suppressed"),
    [
        (_entry(finding=f"{1:016x}"), {1}),
        (_entry(rule="toxic-combination"), {1, 2}),
        (_entry(rule="toxic-combination", subject="mail-out"), {1}),
        (_entry(rule="toxic-combination", subject="erp.pay"), {2}),
        (_entry(rule="toxic-combination", subject="nothing"), set()),
        (_entry(rule="self-approval"), set()),
        (_entry(rule="assertion"), {3}),
        (_entry(rule="assertion:pii"), {3}),
        (_entry(rule="assertion", subject="pii"), {3}),
        (_entry(rule="assertion", subject="other"), set()),
        (_entry(rule="policy-redundant", subject="reads"), {4}),
        (_entry(rule="policy-redundant", subject="writes"), set()),
        (_entry(finding=f"{1:016x}", until=1_796_126_400_001), {1}),
        (_entry(finding=f"{1:016x}", until=1_796_126_400_000), set()),
        (_entry(finding=f"{1:016x}", until="2026-12-01T12:00:01Z"), {1}),
        (_entry(finding=f"{1:016x}", until="2026-12-01T12:00:00Z"), set()),
        (_entry(finding=f"{1:016x}", until="2026-11-30"), set()),
    ],
)
def test_a_suppression_is_in_force_until_its_end(
    entry: dict[str, Any], suppressed: set[int]
) -> None:
    """Its last day is in UTC and belongs to it. After it, it counts as not there."""
    digest = hashlib.sha256(b"policy-redundant\nreads").hexdigest()
    selection = _selected(
        finding(1),
        finding(2, policies=[], subject="erp.pay"),
        finding(3, rule="assertion:pii", policies=[]),
        finding(4, rule="policy-redundant", policies=[], id=digest[:16]),
        suppressions=[entry],
    )

    found = {
        int(id_, 16) if id_ != digest[:16] else 4
        for id_, state in _states(selection).items()
        if state is FindingState.SUPPRESSED
    }
    assert found == suppressed
    ended = entry["until"] in {"2026-11-30", "2026-12-01T12:00:00Z", 1_796_126_400_000}
    assert bool(selection.expired) is ended
    assert bool(selection.unused) is (not ended and not suppressed)


@pytest.mark.parametrize(
    "entry",
    [
        _entry(),
        _entry(finding=f"{1:016x}", rule="self-approval"),
        _entry(finding=f"{1:016x}", owner=" "),
        _entry(finding=f"{1:016x}", reason=""),
        _entry(finding=f"{1:016x}", until="never"),
    ],
)
def test_a_suppression_without_end_owner_reason_or_object_is_refused(entry: dict[str, Any]) -> None:
    """It would suppress for ever, for nobody, or everything."""
    with pytest.raises(ReportError, match="suppression"):
        _selected(finding(1), suppressions=[entry])


def test_each_rule_has_an_explanation() -> None:
    """Also assertions of the bundle and rules of a newer analyzer."""
    assert all(text.title.endswith(".") and text.help.endswith(".") for text in RULES.values())
    assert rule_text("assertion:pii").title.startswith("An assertion")
    assert rule_text("brand-new").help

"""An analysis as SARIF, Markdown and pictures: valid, complete, and inert."""

import json
import re
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from authz.analysis.baseline import Baseline
from authz.analysis.markdown import analysis_markdown
from authz.analysis.picture import mermaid_picture, svg_picture
from authz.analysis.report import read_report
from authz.analysis.sarif import analysis_log, diagnostics_log
from authz.analysis.selection import Selection, select_findings
from authz.model import Diagnostic, Severity
from tests.support.analysis import HOSTILE, finding, report_bytes, step

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "tests/data/sarif/sarif-schema-2.1.0.json").read_text())
NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
SVG = "{http://www.w3.org/2000/svg}"


def _selection(*findings: dict[str, Any], **members: Any) -> Selection:
    report = read_report(report_bytes(*findings, **members))
    return select_findings(report, NOW, Baseline())


def _log(selection: Selection) -> dict[str, Any]:
    log = analysis_log(selection, "1.2.3", lambda file: f"authz/bundle/{file}")
    jsonschema.Draft7Validator(SCHEMA).validate(log)
    return log


def _hostile() -> dict[str, Any]:
    """A finding each of whose strings is hostile."""
    return finding(
        1,
        rule=f"assertion:{HOSTILE}",
        message=HOSTILE,
        policies=[HOSTILE],
        assumptions=[HOSTILE],
        location={"file": f"policies/{HOSTILE}", "line": 1},
        path=[
            step(
                1,
                HOSTILE,
                agent=HOSTILE,
                subject=HOSTILE,
                template=HOSTILE,
                resource=HOSTILE,
                destination=HOSTILE,
                input={HOSTILE: HOSTILE},
                labels_after=[HOSTILE],
                outcome=HOSTILE,
                reason_code=HOSTILE,
                rules=[HOSTILE],
                note=HOSTILE,
            ),
            step(2, "mail.send", is_pivot=True),
        ],
        cut={"exact": False, "changes": [{"kind": "add_label", "text": HOSTILE, "file": HOSTILE}]},
        case="```\n- case: x\n````\n",
    )


def test_a_result_has_place_fingerprint_and_path() -> None:
    """Code scanning shows the path step by step, and follows the finding when lines move."""
    (run,) = _log(_selection(finding(1)))["runs"]

    (result,) = run["results"]
    assert (result["ruleId"], result["kind"], result["level"]) == (
        "toxic-combination",
        "fail",
        "error",
    )
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "authz/bundle/policies/mail.cedar"
    assert place["region"] == {"startLine": 3, "startColumn": 5}
    assert set(result["partialFingerprints"].values()) == {f"{1:016x}", f"{1:016x}:1"}
    (flow,) = result["codeFlows"]
    steps = flow["threadFlows"][0]["locations"]
    assert [one["executionOrder"] for one in steps] == [1, 2, 3]
    assert [one["importance"] for one in steps] == ["important", "important", "essential"]
    assert "mail.send" in steps[2]["location"]["message"]["text"]
    assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == "toxic-combination"


def test_a_fingerprint_does_not_change_when_lines_move() -> None:
    """It follows from the id alone."""
    moved = finding(1, location={"file": "policies/other.cedar", "line": 99})

    results = [_log(_selection(one))["runs"][0]["results"][0] for one in (finding(1), moved)]
    assert results[0]["partialFingerprints"] == results[1]["partialFingerprints"]


def test_an_open_question_is_open_and_told() -> None:
    """And a missing solver is told, too."""
    open_one = finding(1, verdict="not_decided", reason="time limit", path=[], cut=None)
    (run,) = _log(_selection(open_one, solver=None, proved=[]))["runs"]

    (result,) = run["results"]
    assert (result["kind"], result["level"]) == ("open", "none")
    assert "time limit" in result["message"]["text"]
    notes = [one["message"]["text"] for one in run["invocations"][0]["toolExecutionNotifications"]]
    assert any("No solver" in note for note in notes)
    assert any("not decided" in note for note in notes)


def test_a_suppressed_result_says_who_answers_for_it() -> None:
    """An expired suppression is not written, and is told."""
    entry = {"finding": f"{1:016x}", "owner": "sec", "reason": "accepted", "until": "2026-12-31"}
    (run,) = _log(_selection(finding(1), suppressions=[entry]))["runs"]
    (suppression,) = run["results"][0]["suppressions"]
    assert suppression["justification"] == "accepted (sec, until 2027-01-01T00:00:00Z)"
    (run,) = _log(_selection(finding(1), suppressions=[{**entry, "until": "2026-11-30"}]))["runs"]
    assert "suppressions" not in run["results"][0]
    assert "ended at 2026-12-01T00:00:00Z" in json.dumps(run["invocations"])


def test_a_finding_without_a_place_is_at_the_head_of_the_bundle() -> None:
    """GitHub shows no result without one."""
    (run,) = _log(_selection(finding(1, location=None)))["runs"]

    place = run["results"][0]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "authz/bundle/bundle.yaml"


def test_sarif_is_inert() -> None:
    """Messages have no embedded link, no placeholder and no control character."""
    text = json.dumps(_log(_selection(_hostile())), ensure_ascii=False)

    # JSON of an argument spells a control character with a backslash, as text.
    assert "\\u001b" not in text.replace("\\\\u001b", "")
    assert "\u202e" not in text
    for message in re.findall(r'"text": "((?:[^"\\]|\\.)*)"', text):
        plain = json.loads(f'"{message}"').replace("\\[", "").replace("\\]", "")
        assert "](" not in plain
        assert "{0}" not in plain.replace("{{", "").replace("}}", "")


def test_diagnostics_are_a_log_too() -> None:
    """Errors, and warnings by their code."""
    found = [
        Diagnostic("unknown role", "people.yaml", 3, 7, "Declare it."),
        Diagnostic("nobody", "x y.yaml", severity=Severity.WARNING, code="no-rule"),
        Diagnostic("whole"),
    ]
    log = diagnostics_log(found, "1.2.3", "desk", lambda file: f"bundle/{file}")
    jsonschema.Draft7Validator(SCHEMA).validate(log)

    results = log["runs"][0]["results"]
    assert [(one["ruleId"], one["level"]) for one in results] == [
        ("not-valid", "error"),
        ("no-rule", "warning"),
        ("not-valid", "error"),
    ]
    uris = [one["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for one in results]
    assert uris == ["bundle/people.yaml", "bundle/x%20y.yaml", "bundle/bundle.yaml"]


def test_markdown_shows_finding_path_cut_and_test() -> None:
    """With a picture that GitHub draws."""
    text = analysis_markdown(_selection(finding(1)))

    for part in (
        "## toxic-combination 0000000000000001",
        "```mermaid",
        "**(pivot)**",
        "Smallest cut:",
        "pii stays inside",
        "proved within the model",
    ):
        assert part in text


def test_markdown_tells_what_is_not_decided() -> None:
    """In the list, in the summary and at the finding."""
    one = finding(1, verdict="not_decided", reason="time limit", path=[], cut=None)
    text = analysis_markdown(_selection(one, solver=None, proved=[]))

    assert "**Not decided:** time limit" in text
    assert "No solver: nothing that needs one is proved" in text
    assert "0 properties proved" in text


def test_markdown_is_inert() -> None:
    """A string of the bundle makes no link, no mention, no element and no row of its own."""
    text = analysis_markdown(_selection(_hostile()))

    blocks = re.findall(r"^(`{3,})(\w+)\n(.*?)^\1$", text, re.MULTILINE | re.DOTALL)
    assert [kind for _, kind, _ in blocks] == ["mermaid", "yaml"]
    assert len(blocks[1][0]) == 5, "longer than the longest run of backticks in the test"
    prose = re.sub(r"^(`{3,})(\w+)\n.*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    for bad in ("<script", "](", "@all", "http://", "\x1b", "\u202e", "\n::error"):
        assert bad not in prose
    assert prose.count("\n| new |") == 1


def test_a_test_that_would_be_a_command_of_the_runner_is_not_shown() -> None:
    """Nor one that is too long."""
    for case in ("a\n  ::add-mask::x\n", "##[error]x\n", "a: b\n" * 4_000):
        text = analysis_markdown(_selection(finding(1, case=case)))
        assert "The test cannot be shown here" in text
        assert "add-mask" not in text


def test_pictures_are_inert() -> None:
    """The SVG has text alone, and no label of Mermaid has a character with a meaning."""
    one = read_report(report_bytes(_hostile())).findings[0]

    document = ET.fromstring(svg_picture(one))
    allowed = {"svg", "title", "desc", "style", "defs", "marker", "path", "rect", "text"}
    assert {element.tag.removeprefix(SVG) for element in document.iter()} <= allowed
    names = {name for element in document.iter() for name in element.attrib}
    assert not {name for name in names if name.startswith("on") or "href" in name}
    source = mermaid_picture(one)
    assert "script" in source
    for label in re.findall(r'"([^"\n]*)"', source):
        assert not set("#$%&;\\`") & set(label)
        assert not set("<>") & set(label.replace("<br/>", ""))
        assert label.isprintable()
    for line in source.splitlines()[1:]:
        assert re.match(r"  (a\d+|s\d+|t\d+|class|classDef|more)\b", line), line


def test_a_picture_shows_each_step_and_the_pivot() -> None:
    """And follows from the finding alone."""
    one = read_report(report_bytes(finding(1))).findings[0]
    picture = svg_picture(one)
    document = ET.fromstring(picture)

    texts = "\n".join(element.text or "" for element in document.iter(f"{SVG}text"))
    for part in ("1. crm.read", "2. web.fetch", "3. mail.send", "external", "pivot: cut here"):
        assert part in texts
    assert "Smallest cut:" in texts
    styles = [element.get("class") for element in document.iter(f"{SVG}rect")]
    assert styles.count("pivot") == 1
    assert styles.count("caller") == 1, "calls of one caller share its box"
    assert svg_picture(one) == picture
    assert "==>" in mermaid_picture(one)


def test_boxes_of_a_picture_do_not_overlap() -> None:
    """Also with long texts, and with several callers."""
    path = [
        step(
            number,
            f"system.operation-{'x' * 90}",
            agent=f"agent-{number // 2}" * 9,
            resource="r" * 400,
            input={"k": "v " * 300},
            labels_after=["l" * 50],
        )
        for number in range(1, 9)
    ]
    one = read_report(report_bytes(finding(1, path=path))).findings[0]

    boxes = [
        tuple(int(element.get(name, "0")) for name in ("x", "y", "width", "height"))
        for element in ET.fromstring(svg_picture(one)).iter(f"{SVG}rect")
    ]
    assert len(boxes) > 16
    for place, (x, y, width, height) in enumerate(boxes):
        for left, top, wide, high in boxes[place + 1 :]:
            assert x + width <= left or left + wide <= x or y + height <= top or top + high <= y


@pytest.mark.parametrize("draw", [mermaid_picture, svg_picture])
def test_a_finding_without_a_path_has_no_picture(draw: Any) -> None:
    """For example of a policy that never matches."""
    assert draw(read_report(report_bytes(finding(1, path=[], cut=None))).findings[0]) == ""

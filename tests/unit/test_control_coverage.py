"""`authz coverage`: states of controls, the mapping, and the formats of the report."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from authz.analysis.controls import AddressedBy, Control, known_frameworks
from authz.cli import main
from tests.support.audit_cases import entry
from tests.support.covered_bundle import FILES, write_bundle

ROOT = Path(__file__).parents[2]
CONTROLS = re.compile(r'@control\("([^"]*)"\)')


def run(*words: object) -> int:
    """Runs `authz coverage`; returns its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(["coverage", *map(str, words)])
    code = ended.value.code
    assert isinstance(code, int)
    return code


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle whose tests defend one of its policies."""
    return write_bundle(tmp_path / "bundle")


def controls(
    capsys: pytest.CaptureFixture[str], bundle: Path, *words: object
) -> dict[str, dict[str, Any]]:
    """Returns the controls of the report by their ids."""
    capsys.readouterr()
    assert run(bundle, "--format", "json", *words) == 0
    document = json.loads(capsys.readouterr().out)
    return {
        control["id"]: control
        for framework in document["frameworks"]
        for control in framework["controls"]
    }


def test_a_control_is_enforced_where_a_test_fails_without_its_policy(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report names policy and test."""
    control = controls(capsys, bundle)["ASI02"]
    assert control["state"] == "enforced"
    assert control["policies"] == [
        {
            "id": "no-drops",
            "file": "policies/all.cedar",
            "line": 3,
            "state": "enforced",
            "test": "drops are denied",
            "note": "",
        }
    ]


def test_a_control_that_no_test_defends_is_not_enforced(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A test reaches both locks, and passes without either of them."""
    control = controls(capsys, bundle)["ASI05"]
    assert control["state"] == "tested"
    assert [(one["id"], one["state"], one["test"]) for one in control["policies"]] == [
        ("one-lock", "tested", "lists are denied"),
        ("other-lock", "tested", "lists are denied"),
    ]


def test_a_control_that_no_test_reaches_is_only_claimed(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An alias of the id names the same control."""
    found = controls(capsys, bundle)
    assert found["ASI06"]["state"] == "claimed"
    assert found["NHI5:2025"]["state"] == "claimed"
    assert [policy["id"] for policy in found["NHI5:2025"]["policies"]] == ["never-run"]


def test_a_test_that_stops_defending_a_policy_is_noticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the assertion nothing fails, although the policy is the same."""
    tests = FILES["tests/all.yaml"].replace(
        "call: crm.drop, expect: DENY", "call: crm.get, expect: PERMIT"
    )
    bundle = write_bundle(tmp_path / "b", tests=tests)
    assert controls(capsys, bundle)["ASI02"]["state"] == "claimed"


def test_controls_without_a_policy(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are built in, missing, or not applicable; each says why."""
    found = controls(capsys, bundle)
    assert found["ASI01"]["state"] == "missing"
    assert found["ASI01"]["policy_hint"]
    assert found["ASI10"]["state"] == "built_in"
    assert all("::" in feature["proof"] for feature in found["ASI10"]["built_in"])
    assert found["MAESTRO-L1"]["state"] == "not_applicable"
    assert found["MAESTRO-L1"]["reason"]


def test_a_control_of_an_own_catalogue_is_listed(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A control of another framework is none, whichever frameworks are asked for."""
    assert run(bundle, "--format", "json", "--framework", "owasp-nhi") == 0
    document = json.loads(capsys.readouterr().out)
    assert [framework["id"] for framework in document["frameworks"]] == ["owasp-nhi"]
    assert [(one["id"], one["state"]) for one in document["own_controls"]] == [
        ("OWN-1", "enforced")
    ]
    assert document["removals"] == 4


def test_decisions_of_a_log_are_counted(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An alias beside its id counts once."""
    carried = [["ASI02"], ["ASI02", "AML.T0101"], ["NHI5", "NHI5:2025"], []]
    records = [
        entry(f"d{index}", index, result={"outcome": "DENY", "controls": ids})
        for index, ids in enumerate(carried)
    ]
    log = tmp_path / "audit.jsonl"
    log.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    found = controls(capsys, bundle, "--log", log)
    assert found["ASI02"]["seen"] == 2
    assert found["AML.T0101"]["seen"] == 1
    assert found["NHI5:2025"]["seen"] == 1
    assert found["ASI01"]["seen"] == 0
    assert controls(capsys, bundle)["ASI02"]["seen"] is None


def test_fail_on(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, with the controls."""
    assert run(bundle, "--framework", "owasp-agentic", "--fail-on", "missing") == 2
    shown = capsys.readouterr().err
    assert "--fail-on missing" in shown
    assert "ASI01" in shown
    assert "ASI05" not in shown
    assert run(bundle, "--framework", "owasp-agentic", "--fail-on", "not-enforced") == 2
    assert "ASI05" in capsys.readouterr().err


def test_failing_tests_are_2_and_an_unknown_framework_is_1(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is told about controls of a bundle whose tests fail."""
    tests = FILES["tests/all.yaml"].replace("expect: PERMIT", "expect: DENY")
    assert run(write_bundle(tmp_path / "b", tests=tests)) == 2
    assert "ASI01" not in capsys.readouterr().out
    assert run(bundle, "--framework", "nist") == 1
    assert "owasp-agentic, owasp-nhi" in capsys.readouterr().err


class Tags(HTMLParser):
    """Collects tags and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes a tag."""
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_texts_of_a_bundle_are_no_markup(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name of a test stands in the page and in Markdown as it is written."""
    name = "<script>x</script> [a](http://evil.example) | `b`"
    tests = FILES["tests/all.yaml"].replace("drops are denied", f'"{name}"')
    bundle = write_bundle(tmp_path / "b", tests=tests)
    assert run(bundle, "--format", "html") == 0
    page = capsys.readouterr().out
    tags = Tags()
    tags.feed(page)
    assert "&lt;script&gt;x" in page
    assert tags.tags.isdisjoint({"script", "link", "img", "a", "iframe"})
    assert tags.attributes.isdisjoint({"src", "href", "style", "onload"})
    assert run(bundle, "--format", "markdown") == 0
    text = capsys.readouterr().out
    assert "<script>" not in text
    assert "(http" not in text
    rows = [line for line in text.splitlines() if line.startswith("| ASI02 ")]
    assert len(rows) == 1
    assert rows[0].count("|") == 5


def test_the_table_names_states(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And counts them."""
    assert run(bundle, "--framework", "owasp-agentic") == 0
    shown = capsys.readouterr().out
    assert "1 enforced, 1 tested, 1 claimed, 4 built in, 3 missing" in shown


def test_the_mapping_names_tests_that_are_there() -> None:
    """A feature that no test shows is no feature."""
    missing = []
    for framework in known_frameworks():
        for control in framework.controls:
            for feature in control.built_in:
                file, _, name = feature.proof.partition("::")
                path = ROOT / file
                text = path.read_text() if path.is_file() else ""
                wanted = {
                    ".py": f"def {name}(",
                    ".rs": f"fn {name}(",
                    ".yaml": f": {name}\n",
                }[path.suffix]
                if not text or (name and wanted not in text):
                    missing.append(f"{framework.id} {control.id}: {feature.proof}")
    assert missing == []


def test_ids_are_of_one_framework() -> None:
    """So that a policy names a control by its id alone."""
    ids = [id_ for framework in known_frameworks() for id_ in framework.by_id]
    assert len(ids) == len(set(ids))
    assert [framework.id for framework in known_frameworks()] == [
        "csa-maestro",
        "mitre-atlas",
        "nist-ai-rmf",
        "owasp-agentic",
        "owasp-nhi",
    ]
    agentic = next(one for one in known_frameworks() if one.id == "owasp-agentic")
    assert [control.id for control in agentic.controls] == [
        f"ASI{number:02}" for number in range(1, 11)
    ]


def test_examples_name_known_controls() -> None:
    """In the documentation, the examples and the templates of `authz init`."""
    known = {id_ for framework in known_frameworks() for id_ in framework.by_id}
    named = {
        id_.strip()
        for folder in ("docs", "examples", "authz/tools/templates")
        for file in (ROOT / folder).rglob("*")
        if file.suffix in {".md", ".cedar"}
        for list_ in CONTROLS.findall(file.read_text())
        for id_ in list_.split(",")
    }
    assert named
    assert named - known <= {"ID"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"addressed_by": "policy"},
        {"addressed_by": "built_in"},
        {"addressed_by": "not_applicable"},
        {"addressed_by": "policy", "policy": "x", "reason": "y"},
        {"addressed_by": "policy", "policy": "x", "id": "lower"},
        {"addressed_by": "policy", "policy": "x", "other": "y"},
    ],
)
def test_a_control_that_is_not_whole_is_refused(wrong: dict[str, Any]) -> None:
    """Each says how it is addressed."""
    with pytest.raises(ValidationError):
        Control.model_validate({"id": "X1", "name": "x", **wrong})


def test_not_applicable_controls_have_reasons() -> None:
    """And no feature: a control is addressed, or it is not."""
    for framework in known_frameworks():
        for control in framework.controls:
            if control.addressed_by is AddressedBy.NOT_APPLICABLE:
                assert control.reason
                assert control.built_in == ()

"""Holes are made in bundles by structure, the same ones each time, and the analyzer's answers are counted as they are."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from authz.bundle import read_folder
from bench.holes import measure
from bench.holes.analyzer import (
    Analyzer,
    AnalyzerError,
    Comparison,
    Finding,
    new_findings,
    read_findings,
)
from bench.holes.draft import Draft, DraftError, Site, parse_policies, print_policies
from bench.holes.figures import table
from bench.holes.operators import OPERATORS, Operator

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "examples" / "quickstart" / "bundle"
RECIPES = sorted(one for one in (ROOT / "examples" / "cookbook").iterdir() if one.is_dir())
RULES = {
    "assertion",
    "confused-deputy",
    "exception-on-path",
    "label-lost",
    "policy-never-matches",
    "self-approval",
    "toxic-combination",
    "unanswerable-step-up",
    "unused-authority",
}


def _operator(name: str) -> Operator:
    (operator,) = [one for one in OPERATORS if one.name == name]
    return operator


def _changed(draft: Draft, name: str, subject: str) -> tuple[Site, dict[str, bytes]]:
    """Applies an operator at the first place with this subject."""
    copy = draft.copy()
    site = next(one for one in _operator(name).sites(copy) if one.subject == subject)
    site.change()
    return site, copy.rendered(draft)


def test_each_operator_has_a_thought_and_known_rules() -> None:
    """Results name operators, so a name stands for one of them; a rule with a typo could never be found."""
    names = [one.name for one in OPERATORS]
    assert len(names) == len(set(names))
    for operator in OPERATORS:
        assert operator.thought
        assert set(operator.rules) <= RULES
    holes = [one for one in OPERATORS if one.is_hole]
    assert len(holes) >= 15
    assert len(holes) < len(OPERATORS)


def test_a_draft_without_a_change_is_the_bundle() -> None:
    """Byte for byte: comments and formatting of a file that no operator touched stay."""
    draft = Draft.read("quickstart", QUICKSTART)
    assert draft.copy().rendered(draft) == dict(read_folder(QUICKSTART).files)


@pytest.mark.parametrize("folder", [QUICKSTART, *RECIPES], ids=lambda folder: folder.name)
def test_every_site_changes_the_copy_alone(folder: Path) -> None:
    """A site that changes nothing would count as a hole that no analyzer can find."""
    draft = Draft.read("one", folder)
    original = draft.copy()
    for operator in OPERATORS:
        places = [(one.file, one.subject, one.note) for one in operator.sites(draft.copy())]
        assert places == [(one.file, one.subject, one.note) for one in operator.sites(draft.copy())]
        for index in range(len(places)):
            copy = draft.copy()
            list(operator.sites(copy))[index].change()
            written = copy.rendered(draft)
            assert written != dict(draft.files), (operator.name, places[index])
    assert draft == original


def test_a_removed_forbid_is_the_only_change() -> None:
    """The other policies of the file stay as they are."""
    draft = Draft.read("quickstart", QUICKSTART)
    site, written = _changed(draft, "drop-forbid", "small-refunds-only")
    assert site.file == "policies/guard.cedar"
    changed = {path for path, content in written.items() if content != draft.files[path]}
    assert changed == {site.file}
    before = parse_policies(draft.files[site.file].decode())
    after = parse_policies(written[site.file].decode())
    assert after == [one for one in before if one["annotations"]["id"] != "small-refunds-only"]


def test_another_kind_of_step_up_is_asked_in_annotation_and_condition() -> None:
    """A policy whose annotation and condition differ is refused, so half a change would be no hole."""
    draft = Draft.read("quickstart", QUICKSTART)
    site, written = _changed(draft, "confirm-instead-of-approve", "ask-before-mail-leaves")
    text = written[site.file].decode()
    assert '@stepup("confirm")' in text
    assert 'Kind::"approve"' not in text


def test_a_domain_that_ends_alike_is_inside() -> None:
    """`*@*corp.example` covers `eve@evilcorp.example`."""
    draft = Draft.read("quickstart", QUICKSTART)
    _, written = _changed(draft, "widen-a-destination", "internal")
    assert '"*@*corp.example"' in written["meaning.yaml"].decode().replace("'", '"')


def test_a_removed_sequence_takes_its_policy_along() -> None:
    """A policy that names an undeclared sequence is refused."""
    draft = Draft.read("quickstart", QUICKSTART)
    _, written = _changed(draft, "drop-a-sequence", "mail-then-delete")
    assert b"mail-then-delete" not in b"".join(
        content for path, content in written.items() if not path.startswith("tests/")
    )
    assert b"mail-then-refund" in written["policies/history.cedar"]


def test_a_key_goes_with_its_last_entry() -> None:
    """An empty mapping in a file of its own key is refused."""
    draft = Draft.read("quickstart", QUICKSTART)
    _, written = _changed(draft, "drop-a-budget", "customers")
    assert b"budgets" not in written["history.yaml"]


def test_a_file_that_is_no_cedar_is_named() -> None:
    """A bundle that cannot be read is an error of the run, and no bundle without sites."""
    with pytest.raises(DraftError, match=r"broken/policy\.cedar"):
        Draft.of("broken", {"policy.cedar": b"permit (principal"})


def test_no_policies_are_an_empty_file() -> None:
    """The last policy of a file can be removed."""
    assert print_policies([]) == ""


FAKE = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
text = "".join(one.read_text() for one in folder.rglob("*.cedar"))
facts = "".join(one.read_text() for one in folder.glob("*.yaml"))
found = [{"id": "0" * 16, "rule": "policy-redundant", "severity": "note", "verdict": "proved", "message": "as ever"}]
def add(id, rule, verdict, **more):
    found.append({"id": id * 16, "rule": rule, "severity": "error", "verdict": verdict, "message": id, **more})
if "small-refunds-only" not in text:
    add("1", "assertion:refunds", "path_found")
if "only-tickets-are-deleted" not in text:
    add("2", "unused-authority", "path_found")
if "named-recipients-only" not in text:
    add("3", "toxic-combination", "not_decided")
if "20m" in facts:
    add("4", "label-lost", "path_found")
if "most: 25" in facts:
    add("5", "label-lost", "path_found", state="suppressed")
print(json.dumps({"version": 1, "findings": found}))
sys.exit(2)
"""


@pytest.fixture
def fake(tmp_path: Path) -> Analyzer:
    """An analyzer that knows three policies of the quickstart by name."""
    program = tmp_path / "fake.py"
    program.write_text(FAKE)
    return Analyzer([sys.executable, str(program)])


@pytest.fixture
def target(fake: Analyzer) -> measure.Target:
    """The quickstart, as it is."""
    return measure.read_target("quickstart", QUICKSTART, fake, asserted=False)


def test_answers_are_counted_as_they_are(fake: Analyzer, target: measure.Target) -> None:
    """An expected rule, another rule, an open question and no finding are four answers."""
    tally = measure.measure(_operator("drop-forbid"), [target], fake, seed=1, most=10)
    answers = {one.subject: one.answer for one in tally.mutants}
    assert answers == {
        "small-refunds-only": measure.Answer.FOUND,
        "only-tickets-are-deleted": measure.Answer.OTHERWISE,
    }
    assert tally.refused == 1, "without its policy a sequence is refused"
    assert all(one.found_by_tests for one in tally.mutants)
    asked = measure.measure(_operator("drop-step-up"), [target], fake, seed=1, most=10)
    assert {one.subject: one.answer for one in asked.mutants} == {
        "ask-before-mail-leaves": measure.Answer.MISSED,
        "no-customer-data-out": measure.Answer.MISSED,
        "named-recipients-only": measure.Answer.NOT_DECIDED,
    }


def test_findings_about_harmless_changes_are_false_alarms(
    fake: Analyzer, target: measure.Target
) -> None:
    """A suppressed finding fails no run, so it is none."""
    alarm = measure.measure(_operator("shorten-a-deadline"), [target], fake, seed=1, most=10)
    # The quickstart's template has an idle timeout, so nothing is shortened.
    assert alarm.mutants == []
    quiet = measure.measure(_operator("lower-a-budget"), [target], fake, seed=1, most=10)
    assert [one.answer for one in quiet.mutants] == [measure.Answer.MISSED]
    written = measure.document([alarm, quiet], [target], 1)
    assert (written["harmless"], written["false_alarms"], written["changes"]) == (1, 0, 0)


def test_a_change_that_check_refuses_is_no_hole(fake: Analyzer, target: measure.Target) -> None:
    """Nobody can deploy it: the policies about exports would be about no operation."""
    tally = measure.measure(_operator("hide-an-export"), [target], fake, seed=1, most=10)
    assert (tally.mutants, tally.refused) == ([], 1)


def test_an_analyzer_that_fails_is_not_quiet(target: measure.Target) -> None:
    """A run without a report counts as neither found nor missed; for the bundle itself it ends the measure."""
    broken = Analyzer([sys.executable, "-c", "import sys; sys.exit('no time')"])
    tally = measure.measure(_operator("drop-forbid"), [target], broken, seed=1, most=1)
    assert [(one.answer, one.message) for one in tally.mutants] == [
        (measure.Answer.FAILED, "exit code 1: no time")
    ]
    with pytest.raises(measure.HolesError, match="no time"):
        measure.read_target("quickstart", QUICKSTART, broken, asserted=False)


@pytest.mark.parametrize(
    ("verdict", "answer"),
    [
        ("path_found", measure.Answer.MISSED),
        ("not_decided", measure.Answer.MISSED),
        ("proved", measure.Answer.NOTHING),
    ],
)
def test_a_change_that_opens_nothing_is_no_miss(
    fake: Analyzer, target: measure.Target, verdict: str, answer: measure.Answer
) -> None:
    """Only a proof counts. An open comparison leaves the miss a miss."""
    document = json.dumps({"proof": {"verdict": verdict, "facts": [{}]}})
    comparing = replace(fake, difference=[sys.executable, "-c", f"print({document!r})"])
    tally = measure.measure(_operator("everybody-approves"), [target], comparing, seed=1, most=1)
    assert [(one.answer, one.difference) for one in tally.mutants] == [
        (answer, Comparison(verdict, changed_facts=1))
    ]
    assert tally.document()["listed_by_diff"] == 1


def test_a_comparison_that_fails_proves_nothing(fake: Analyzer, target: measure.Target) -> None:
    """Neither of the bundle nor of the analyzer."""
    broken = replace(fake, difference=[sys.executable, "-c", "print('[]')"])
    tally = measure.measure(_operator("everybody-approves"), [target], broken, seed=1, most=1)
    assert [one.answer for one in tally.mutants] == [measure.Answer.FAILED]
    assert "not a comparison" in tally.mutants[0].message


@pytest.mark.parametrize("text", ["", "[]", '{"findings": [{"id": "1"}]}', '{"findings": 7}'])
def test_an_output_that_is_no_report_is_an_error(text: str) -> None:
    """Read as "no findings" it would be a miss of the analyzer, or a clean bundle."""
    with pytest.raises(AnalyzerError, match="not a report"):
        read_findings(text)


def test_a_question_that_is_decided_now_is_new() -> None:
    """The same finding, open before and found now, shows the hole; the other way round it does not."""
    open_, decided = (
        {"1": Finding("1", "label-lost", "error", verdict, "")}
        for verdict in ("not_decided", "path_found")
    )
    assert [one.verdict for one in new_findings(open_, decided)] == ["path_found"]
    assert new_findings(decided, open_) == []
    assert new_findings(decided, decided) == []


def test_the_choice_of_places_depends_on_the_seed_alone(target: measure.Target) -> None:
    """Two runs compare, whatever other operators are run."""
    operator = _operator("permit-everybody")
    chosen = [
        [index for _, index in measure.places(operator, [target], seed)] for seed in (1, 1, 2)
    ]
    assert chosen[0] == chosen[1]
    assert sorted(chosen[0]) == sorted(chosen[2])


def test_one_bundle_can_stand_first(target: measure.Target) -> None:
    """A short run has a change of it by each operator that applies, and a change of the others after it."""
    operator = _operator("permit-everybody")
    other = replace(target, draft=replace(target.draft.copy(), name="other"))
    for first in ("quickstart", "other"):
        order = [one.draft.name for one, _ in measure.places(operator, [target, other], 1, first)]
        assert order[:2] == [first, *({"quickstart", "other"} - {first})]


def test_assertions_are_of_bundles_that_exist() -> None:
    """An entry with a typo would be added to no bundle."""
    listed = yaml.safe_load(measure.ASSERTIONS.read_text())
    assert set(listed) <= set(measure.folders())
    for entries in listed.values():
        ids = [one["id"] for one in entries]
        assert len(ids) == len(set(ids))


def test_the_table_has_a_row_for_each_operator(fake: Analyzer, target: measure.Target) -> None:
    """Misses stand in the table beside what was found."""
    tallies = [
        measure.measure(_operator(name), [target], fake, seed=1, most=10)
        for name in ("drop-step-up", "lower-a-budget")
    ]
    facts = {"cores": 2, "cpu": "one", "date": "2026-12-01", "revision": "abc"}
    text = table({"machine": facts, **measure.document(tallies, [target], 1)})
    assert "3 changes in 1 bundles: 0 found, 2 missed, 1 not decided" in text
    assert (
        "| drop step up | people complain that they are asked too often | 3 | 0 | 0 | 1 | 0 | 2 | 0 | 0 | 3 |"
        in text
    )
    assert "| lower a budget | 1 | 0 |" in text

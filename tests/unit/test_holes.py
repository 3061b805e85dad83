"""Holes are made in bundles by structure, the same ones each time, and the analyzer's answers are counted as they are."""

from pathlib import Path

import pytest

from authz.bundle import read_folder
from bench.holes.draft import Draft, DraftError, Site, parse_policies, print_policies
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
    assert len(names) == len(set(names)) >= 15
    for operator in OPERATORS:
        assert operator.thought
        assert operator.rules
        assert set(operator.rules) <= RULES


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

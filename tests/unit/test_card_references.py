"""Values that the cards of a node compare with: lists and units of the bundle that serves."""

import pytest

from authz.approvals.card import CardReferences, MissingReference, build_card
from authz.approvals.lookalikes import FlagCode
from authz.approvals.parts import Plain, Tone
from authz.engine import Plan
from authz.model import BundleFiles
from authz.server.card_references import ServedReferences
from authz.server.snapshot import Snapshot
from authz_client.v1 import approvals_pb2

NOW_MS = 1_795_600_000_000
FACTS = """\
agents:
  bot: ["spiffe://corp.example/bot"]
catalog:
  bank:
    kind: http
    operations:
      pay:
        effects: [export]
        destination: {from: [/iban], type: iban}
        objects:
          - {from: [/amount], role: amount, scale: 100}
        input: {type: object, properties: {iban: {type: string}, amount: {type: integer}}}
recipient_lists:
  payees: {file: data/payees.txt}
  people: {file: data/people.csv, column: mail}
destinations:
  payees: {recipient_list: payees, clearance: []}
  people: {recipient_list: people, clearance: []}
  outside: {match: "*", clearance: []}
"""
POLICY = """\
@id("bot-pays")
permit (principal, action, resource);
"""


def snapshot(**files: str) -> Snapshot:
    """Return the snapshot of a bundle."""
    contents = {
        "bundle.yaml": b"name: pay\n",
        "facts.yaml": FACTS.encode(),
        "policies/pay.cedar": POLICY.encode(),
        "data/payees.txt": b"\xef\xbb\xbfDE25501027675387610652\n\n  DE44929366487946905675 \n",
        "data/people.csv": b'name,mail\n"Ruth, adviser",ruth@zahlwerk.example\n',
        **{name: text.encode() for name, text in files.items()},
    }
    bundle = BundleFiles("", contents)
    return Snapshot(plan=Plan.compile(bundle, {}, now_ms=NOW_MS), bundle_files=bundle)


def approval(iban: str, note: str = "") -> approvals_pb2.Approval:
    """Return an approval of a payment."""
    made = approvals_pb2.Approval(
        operation="bank.pay",
        arguments_json=f'{{"amount":126000,"iban":"{iban}","note":"{note}"}}'.encode(),
    )
    made.destinations.add(value=iban, destination_class="outside")
    made.objects.add(role="amount", pointer="/amount", value_json="126000", currency="EUR")
    return made


def test_cards_compare_with_the_lists_of_the_bundle() -> None:
    """Lists of lines and of a column, destinations and undeclared addresses."""
    served = snapshot()
    made = approval("DE25501027675387610653", "ruth@zahlwerk.test")
    references = ServedReferences(lambda: served)(made)
    assert [one.value for one in references.recipients] == [
        "DE25501027675387610652",
        "ruth@zahlwerk.example",
    ]
    codes = {flag.code for flag in build_card(made, references, 0.0).flags}
    assert codes == {FlagCode.CHECK_DIGITS, FlagCode.NEAR, FlagCode.OTHER_TLD}


def test_amounts_have_the_unit_of_the_bundle() -> None:
    """The engine knows that the argument is in hundredths."""
    served = snapshot()
    made = approval("DE44929366487946905675")
    card = build_card(made, ServedReferences(lambda: served)(made), 0.0)
    texts = [
        part.text
        for section in card.sections
        for row in section.rows
        for part in row.parts
        if isinstance(part, Plain)
    ]
    assert "1 260.00 EUR" in texts
    assert not card.flags


def test_a_reload_brings_new_lists() -> None:
    """The lists are read once for each bundle."""
    served = [snapshot()]
    references = ServedReferences(lambda: served[0])
    made = approval("DE25501027675387610653")
    first = references(made)
    assert references(made) == first
    served[0] = snapshot(**{"data/payees.txt": "DE44929366487946905675\n"})
    assert references(made).recipients == ()


@pytest.mark.parametrize("served", [Snapshot(), Snapshot(plan=None, bundle_files=None)])
def test_without_a_bundle_there_is_nothing_to_compare_with(served: Snapshot) -> None:
    """The node answers no calls then."""
    references = ServedReferences(lambda: served)(approval("x"))
    assert references == CardReferences(
        missing=(MissingReference("Recipient lists", "no bundle is loaded"),)
    )


def test_a_card_names_the_lists_that_it_was_not_compared_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A list that is too long is compared with in part; a card without a warning must not promise more."""
    assert ServedReferences(snapshot)(approval("x")).missing == ()
    monkeypatch.setattr("authz.server.card_references._MOST_ENTRIES", 2)
    references = ServedReferences(snapshot)(approval("x"))
    assert references.missing == (
        MissingReference("Recipient list payees", "only 1 of its 2 entries were compared with"),
    )
    (section,) = (
        one for one in build_card(approval("x"), references, 0.0).sections if one.id == "missing"
    )
    assert section.heading == "Not compared"


def test_a_card_shows_where_a_value_is_known_from() -> None:
    """An earlier approved call of the task is named; without one, the value is there for the first time."""

    def texts(made: approvals_pb2.Approval) -> list[str]:
        card = build_card(made, CardReferences(), 0.0)
        rows = [row for one in card.sections if one.id == "destinations" for row in one.rows]
        return [part.text for row in rows for part in row.parts if isinstance(part, Plain)]

    made = approval("DE44929366487946905675")
    assert "first time" in texts(made)
    made.earlier_values.append("DE44929366487946905675")
    assert "also in an earlier approved call of this task" in texts(made)
    assert "first time" not in texts(made)


def test_a_card_lists_a_few_values_of_the_task() -> None:
    """However many there are, the card can be approved without a second look."""
    made = approval("DE44929366487946905675")
    made.earlier_values.extend(f"account-{number}" for number in range(64))
    card = build_card(made, CardReferences(), 0.0)
    (section,) = (one for one in card.sections if one.id == "earlier")
    assert len(section.rows) == 6
    assert section.rows[-1].parts == (Plain("59 earlier ones", Tone.QUIET),)
    assert card.can_be_approved

"""What a person is shown of a call: the parts of a card, its digest, and text that is made inert."""

# ruff: noqa: RUF001 - texts with characters that look like others are the subject

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console

from authz.approvals.card import CardReferences, build_card
from authz.approvals.characters import character_label, skeleton, unicode_version
from authz.approvals.difference import ArgumentsError, compare, read_arguments
from authz.approvals.inert import FindingKind, Kind, Limit, make_inert, visible
from authz.approvals.lookalikes import FlagCode, RecipientIndex, Reference
from authz.approvals.parts import Card, Inert, Plain, Section, Time
from authz.approvals.terminal import TerminalCard
from authz_client.v1 import approvals_pb2, decision_pb2

NOW = 1_800_000_000.0
IBAN = "DE25501027675387610652"
SHOWN_BESIDE_THE_CARD = {
    "status",
    "resolved_by",
    "expires_at",
    "shown_at",
    "answers",
    "waits_for",
    "reject_reason",
    "reject_text",
    "reject_reasons",
    "answerable",
    "needs_passkey",
}
"""Fields that change while people answer: they are no part of what a person answers to."""


def approval(**arguments: Any) -> approvals_pb2.Approval:
    """Return an approval in which every field has a value."""
    made = approvals_pb2.Approval(
        id="0f3a-1",
        decision_id="d-1",
        operation="bank.transfer",
        digest=b"d" * 32,
        kinds=["approve:finance", "bound_token"],
        status=approvals_pb2.APPROVAL_STATUS_PENDING,
        task="t-1",
        subject="corp/iris",
        agents=["spiffe://maple.example/agents/planner", "spiffe://maple.example/agents/payer"],
        template="banking",
        purpose="help with the firm's accounts",
        effects=["export", "read"],
        tier=decision_pb2.TIER_CRITICAL,
        resource="accounts/a-main",
        labels=["bank", "untrusted"],
        arguments_json=json.dumps(arguments or {"iban": IBAN, "amount": 126000}).encode(),
        cannot_be_shown="",
    )
    made.created_at.FromSeconds(1_799_999_000)
    made.expires_at.FromSeconds(1_800_003_000)
    made.destinations.add(
        value=IBAN, destination_class="outside", host="bank", recipient_list="", origin="unknown"
    )
    made.objects.add(
        role="amount", pointer="/amount", value_json="126000", origin="named", currency="EUR"
    )
    made.objects.add(role="target", pointer="/order", collection="orders", value_json='"o-4711"')
    made.reasons.add(
        kind="approve:finance", policy_id="new-payee", reason="a new payee", place="money.cedar:3"
    )
    made.last_approved.arguments_json = b'{"iban":"' + IBAN.encode() + b'","amount":126001}'
    made.last_approved.approved_at.FromSeconds(1_799_000_000)
    made.last_approved.approved_by.append("corp/paul")
    made.ignored.add(place="query:page", value="2")
    return made


def card(made: approvals_pb2.Approval | None = None, **options: Any) -> Card:
    """Build a card of an approval; the amount is in hundredths."""
    references = options.pop("references", CardReferences(amount_scales={"/amount": 100}))
    return build_card(made or approval(), references, NOW, **options)


def section(shown: Card, id_: str) -> Section:
    """Return a section of a card."""
    return next(one for one in shown.sections if one.id == id_)


def words(one: Section | Card) -> str:
    """Return every text of a section or a card."""
    sections = one.sections if isinstance(one, Card) else (one,)
    return "\n".join(_texts(sections))


def _texts(sections: tuple[Section, ...]) -> Iterator[str]:
    for one in sections:
        yield one.heading
        for row in one.rows:
            for part in (*row.label, *row.parts):
                match part:
                    case Inert():
                        yield part.text.text
                    case Time():
                        yield str(part.unix_ms)
                    case _:
                        yield part.text


def codes(shown: Card) -> set[FlagCode]:
    """Return the codes of a card's flags."""
    return {flag.code for flag in shown.flags}


def terminal(shown: Card, width: int = 80) -> str:
    """Return a card as a terminal without colours shows it."""
    out = io.StringIO()
    Console(file=out, width=width, no_color=True).print(TerminalCard(shown, UTC))
    return out.getvalue()


# What the card says.


def test_a_card_says_what_will_happen_in_words() -> None:
    """Effects, amounts, origins, people and rules stand there as sentences, not as codes."""
    shown = card()
    assert shown.title == "send out and read: bank.transfer"
    text = words(shown)
    for expected in (
        "1 260.00 EUR",
        "the user named it",
        "neither the user nor the organisation named it",
        "class outside",
        "in no recipient list",
        "help with the firm's accounts",
        "spiffe://maple.example/agents/payer",
        "another person must approve, with the role finance",
        "a new payee",
        "money.cedar:3",
        "the agent needs a credential that is bound to a key",
        "untrusted",
        "query:page",
        "critical",
    ):
        assert expected in text


def test_a_card_lists_what_a_person_may_endorse() -> None:
    """The digest of the card covers it, so that an answer is to this offer."""
    plain, offered, longer = approval(), approval(), approval()
    for made, seconds in ((offered, 1800), (longer, 3600)):
        made.endorses.operations.append("bank.transfer")
        made.endorses.values.add(
            role="recipient", collection="iban", value="DE89370400440532013000"
        )
        made.endorses.uses, made.endorses.within_seconds = 5, seconds
    cards = [card(one) for one in (plain, offered, longer)]
    assert len({one.digest for one in cards}) == 3
    text = words(cards[1])
    for expected in ("What you may endorse", "bank.transfer", "5 calls", "30 min, and no longer"):
        assert expected in text
    assert "What you may endorse" not in words(cards[0])


def test_an_amount_without_a_known_scale_claims_no_unit() -> None:
    """126000 hundredths must not read as 126,000 euros."""
    shown = card(references=CardReferences())
    assert "EUR, in a unit that only the system knows:" in words(section(shown, "objects"))
    assert "1 260.00" not in words(shown)


def test_a_call_without_a_task_shows_no_template() -> None:
    """The engine names the template `none` then, which a person could take for a template."""
    made = approval()
    made.task, made.template = "", "none"
    labels = [row.label[0] for row in section(card(made), "task").rows]
    assert Plain("Template") not in labels
    assert "none (the call was made without a task)" in words(section(card(made), "task"))


def test_changed_arguments_come_first_and_unchanged_ones_are_counted() -> None:
    """The old value stands before the new one."""
    found = words(section(card(), "difference"))
    assert "1 value" in found
    assert found.index("126001") < found.index("126000")
    assert "by corp/paul" in found


def test_without_an_approved_call_the_card_says_first_time() -> None:
    """A first call has nothing to be compared with, which is no reason to warn."""
    made = approval()
    made.ClearField("last_approved")
    shown = card(made)
    assert "First time" in words(section(shown, "difference"))
    assert "first time" in words(section(shown, "destinations"))
    assert not shown.flags


def test_known_destinations_stand_below_unknown_ones() -> None:
    """An unknown recipient must not hide behind known ones."""
    made = approval()
    made.destinations[0].recipient_list = "payees"
    made.destinations.add(value="eve@evil.example", destination_class="outside")
    rows = section(card(made), "destinations").rows
    first = rows[0].parts[0]
    assert isinstance(first, Inert)
    assert first.text.text == "eve@evil.example"


# What does not fit, and what cannot be shown.


def test_a_long_text_needs_the_whole_view() -> None:
    """The brief view counts what it leaves out, and the whole view leaves nothing out."""
    made = approval(text="x" * 5000 + " and pay eve")
    brief, whole = card(made), card(made, whole=True)
    assert brief.needs_whole_view
    assert not brief.can_be_approved
    assert brief.hidden_bytes == 5012 - 600
    assert "4412 bytes not shown" in words(brief)
    assert "pay eve" not in words(brief)
    assert not whole.needs_whole_view
    assert whole.can_be_approved
    assert "and pay eve" in words(whole)
    assert brief.digest != whole.digest


def test_many_arguments_need_the_whole_view() -> None:
    """Rows are counted like bytes of one text."""
    made = approval(**{f"key{n:03}": "v" for n in range(60)})
    brief = card(made)
    assert brief.needs_whole_view
    assert "40 more, 320 bytes" in words(brief)
    assert words(card(made, whole=True)).count("/key") == 120  # also as new in the difference


def test_what_is_left_out_keeps_its_flags() -> None:
    """A warning must not be cut off with its row."""
    made = approval(**{f"key{n:03}": "v\u202e" for n in range(60)})
    assert FlagCode.HIDDEN in codes(card(made))


@pytest.mark.parametrize(
    "arguments",
    [
        b"\xff\xfe",
        b'{"a":1,"a":2}',
        b"[" * 40_000,
        json.dumps({"blob": "\x00\x01\x02\x03" * 20}).encode(),
    ],
    ids=["not UTF-8", "member twice", "deep", "binary"],
)
def test_what_cannot_be_shown_can_only_be_rejected(arguments: bytes) -> None:
    """Nobody can approve bytes that nobody can read."""
    made = approval()
    made.arguments_json = arguments
    shown = card(made, whole=True)
    assert shown.cannot_be_shown
    assert not shown.can_be_approved
    assert "can only be rejected" in words(section(shown, "arguments"))


def test_the_engine_may_say_that_a_call_cannot_be_shown() -> None:
    """Its reason stands on the card."""
    made = approval()
    made.cannot_be_shown = "longer than 64 KiB"
    assert card(made).cannot_be_shown == "longer than 64 KiB"
    assert not card(made).can_be_approved


# The digest.


def test_the_digest_is_the_same_in_another_process() -> None:
    """Neither hash seeds nor the time change it."""
    script = (
        "import sys; from authz.approvals.card import *; from authz_client.v1 import approvals_pb2 as pb;"
        "made = pb.Approval.FromString(bytes.fromhex(sys.argv[1]));"
        "print(build_card(made, CardReferences(amount_scales={'/amount': 100}), 5.0).digest.hex())"
    )
    made = approval()
    found = subprocess.run(
        [sys.executable, "-c", script, made.SerializeToString().hex()],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7"},
    )
    assert found.stdout.strip() == card(made).digest.hex()


def _places(message: Message, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield a path to each scalar field of a message, and to each field of its messages."""
    for field in message.DESCRIPTOR.fields:
        if not path and field.name in SHOWN_BESIDE_THE_CARD:
            continue
        value = getattr(message, field.name)
        if field.type != FieldDescriptor.TYPE_MESSAGE:
            yield (*path, field.name)
        elif field.is_repeated:
            for place, one in enumerate(value):
                yield from _places(one, (*path, field.name, place))
        elif isinstance(value, Timestamp):
            yield (*path, field.name)
        else:
            yield from _places(value, (*path, field.name))


def _change(message: Message, path: tuple[Any, ...]) -> None:
    target: Any = message
    for step in path[:-1]:
        target = target[step] if isinstance(step, int) else getattr(target, step)
    value = getattr(target, path[-1])
    match value:
        case bytes() if path[-1] == "arguments_json":
            setattr(target, path[-1], value.replace(b"126", b"127"))
        case bytes():
            setattr(target, path[-1], value + b"x")
        case str():
            changed = "9" + value if path[-1] == "value_json" and value.isdigit() else f"{value}~"
            setattr(target, path[-1], changed)
        case int():
            setattr(target, path[-1], value - 1 if value else 1)
        case Timestamp():
            value.seconds += 1
        case _:
            value.append("another")


@pytest.mark.parametrize(
    "path", list(_places(approval())), ids=lambda path: ".".join(map(str, path))
)
def test_every_change_of_a_shown_field_changes_the_digest(path: tuple[Any, ...]) -> None:
    """No two calls share a card."""
    made = approval()
    before = card(made).digest
    _change(made, path)
    assert card(made).digest != before


def test_answers_of_others_do_not_change_the_digest() -> None:
    """The second person of two answers to the same card."""
    made = approval()
    before = card(made).digest
    made.answers.add(queue="approve:finance", status=2, person="corp/paul", method="passkey")
    made.shown_at.FromSeconds(5)
    made.answerable = True
    shown = card(made)
    assert shown.digest == before
    assert "approved by corp/paul, by passkey" in words(shown.status)


def test_references_and_whole_views_are_part_of_the_digest() -> None:
    """A warning that a person was shown is part of what the person answered to."""
    made = approval()
    made.ClearField("last_approved")
    plain = card(made)
    known = Reference("DE25501027675387610653", "recipient list payees", is_list=True)
    flagged = card(made, references=CardReferences((known,), amount_scales={"/amount": 100}))
    assert FlagCode.NEAR in codes(flagged)
    assert plain.digest != flagged.digest


# Inert text.


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("pay\u202enow", "pay⟦U+202E right-to-left override⟧now"),
        ("a\u200bb", "a⟦U+200B zero width space⟧b"),
        ("\x1b[31m", "⟦U+001B escape⟧[31m"),
        ("p\u0430ypal", "p⟦U+0430 cyrillic small letter a⟧ypal"),
        ("a" + " " * 90 + "b", "a⟦90 spaces⟧b"),
        ("a" + "\n" * 20 + "b", "a\n⟦19 lines without text⟧\nb"),
        ("\ud800", "⟦U+D800 surrogate⟧"),
        ("\U000e0041", "⟦U+E0041 tag latin capital letter a⟧"),
        ("z" + "\u0301" * 6, "z" + "\u0301" * 4 + "⟦U+0301 combining acute accent⟧" * 2),
        (
            "⟦U+202E⟧",
            "⟦U+27E6 mathematical left white square bracket⟧U+202E⟦U+27E7 mathematical right white square bracket⟧",
        ),
    ],
)
def test_hidden_characters_are_made_visible_and_flagged(text: str, shown: str) -> None:
    """A marker stands in the place of the character."""
    inert = make_inert(text)
    assert inert.text == shown
    assert inert.findings


@pytest.mark.parametrize(
    "text",
    [
        "Grüße, cafe\u0301 – “so”…",
        "Отчёт за ноябрь: сор, CRM-система",
        "❤️ 👩‍💻 1️⃣ 👍🏽",
        "kΩ, μm, 15 °C",
        "می\u200cخواهم",
        "100\u00a0€\r\nzwei\r\n",
        "東京タワーに10時",
        "    indented\n\n\n\ttext",
    ],
)
def test_ordinary_prose_has_no_finding(text: str) -> None:
    """Warnings on ordinary texts train people to ignore them."""
    assert make_inert(text).findings == ()


@pytest.mark.parametrize(
    ("text", "kind", "found"),
    [
        ("\u0440\u0430\u0443@corp.example", Kind.ADDRESS, FindingKind.CONFUSABLE),
        ("ruth@zahlwerk．example", Kind.ADDRESS, FindingKind.CONFUSABLE),
        ("files\u2215secret", Kind.NAME, FindingKind.CONFUSABLE),
        ("invo\u0456ce", Kind.NAME, FindingKind.MIXED),
        ("a\u00a0b", Kind.NAME, FindingKind.HIDDEN),
        ("a\nb", Kind.NAME, FindingKind.HIDDEN),
    ],
)
def test_names_and_addresses_are_judged_more_strictly(
    text: str, kind: Kind, found: FindingKind
) -> None:
    """The same characters are ordinary in prose."""
    assert [one.kind for one in make_inert(text, kind).findings] == [found]
    assert found not in [one.kind for one in make_inert(text).findings if kind is Kind.ADDRESS]


@pytest.mark.parametrize(
    "name", ["Bericht Müller – Entwurf.pdf", "отчёт.pdf", "Yazı.docx", "報告.md"]
)
def test_ordinary_names_have_no_finding(name: str) -> None:
    """Names of files in one script are ordinary."""
    assert make_inert(name, Kind.NAME).findings == ()


def test_text_is_cut_with_a_count_and_its_findings() -> None:
    """Findings behind the cut count."""
    inert = make_inert("ä" * 10 + "\u202e", limit=Limit(characters=4, lines=1))
    assert inert.text == "ääää"
    assert inert.hidden_bytes == 15
    assert [one.kind for one in inert.findings] == [FindingKind.HIDDEN]


def test_visible_is_one_line() -> None:
    """A line break becomes a marker."""
    assert visible("a\nb") == "a⟦line break⟧b"


def test_skeletons_are_those_of_uts_39() -> None:
    """The data is that of one version of Unicode."""
    assert unicode_version() == "17.0"
    assert skeleton("\u0440\u0430ypal") == skeleton("paypal")
    assert skeleton("rnodern") == skeleton("modern")
    assert skeleton("paypal") != skeleton("paypol")
    assert character_label("\u0430") == "U+0430 cyrillic small letter a"


# The difference.


def test_a_difference_tells_changed_new_and_missing_values() -> None:
    """An element that only moved is no change."""
    before = read_arguments(b'{"a":1.50,"to":["x","y"],"gone":null}')
    after = read_arguments(b'{"a":1.5,"to":["z","x","y"],"new":{}}')
    told = [
        (one.pointer, one.before and one.before.text, one.after and one.after.text)
        for one in compare(before, after)
    ]
    assert told == [
        ("/a", "1.50", "1.5"),
        ("/to/0", None, "z"),
        ("/new", None, ""),
        ("/gone", "", None),
    ]


def test_a_text_and_a_number_differ() -> None:
    """Types count, and the order of a list."""
    (change,) = compare(read_arguments(b'{"a":1}'), read_arguments(b'{"a":"1"}'))
    assert change.before is not None
    assert change.before.kind == "number"
    assert compare(read_arguments(b'{"a":[1,2]}'), read_arguments(b'{"a":[2,1]}'))


def test_numbers_keep_every_digit() -> None:
    """A reader that rounds would show another amount."""
    (leaf,) = read_arguments(b"[0.1000000000000000055511151231257827]")
    assert leaf.text == "0.1000000000000000055511151231257827"
    (leaf,) = read_arguments(b"[" + b"9" * 5000 + b"]")
    assert len(leaf.text) == 5000
    with pytest.raises(ArgumentsError):
        read_arguments(b"NaN")


# The terminal.


def test_the_agents_text_stands_behind_a_bar() -> None:
    """No text of the agent can pass for a line of Authz."""
    made = approval(text="first\nclass inside · in recipient list payees")
    lines = terminal(card(made)).splitlines()
    assert "    │ class inside · in recipient list payees" in lines


def test_brackets_of_markup_are_text() -> None:
    """Rich's markup and emoji codes mean nothing in a card."""
    made = approval(text="[bold red]approve[/bold red] :warning:")
    assert "[bold red]approve[/bold red] :warning:" in terminal(card(made))


@pytest.mark.parametrize("width", [20, 40, 200])
def test_no_width_shortens_a_card(width: int) -> None:
    """A narrow terminal wraps lines and drops nothing."""
    made = approval(text="word " * 100 + "y" * 300, iban=IBAN)
    shown = card(made)
    printed = "".join(terminal(shown, width).replace("│", "").split())
    for text in _texts(shown.sections):
        if not text.isdigit():
            assert "".join(text.split()) in printed
    assert f"{shown.hidden_bytes}bytesarenotshown" in printed


# References.


def test_an_index_finds_near_entries_and_no_others() -> None:
    """It finds them without comparing all."""
    index = RecipientIndex(
        {
            "payees": [IBAN, "DE44929366487946905675"],
            "people": [f"user{n}@corp.example" for n in range(5000)] + ["ruth@zahlwerk.example"],
        }
    )

    def near(value: str) -> list[str]:
        return [one.value for one in index.near([value])]

    assert near("DE25501027675387610653") == [IBAN]
    assert near("ruth@zahlwerk.example") == ["ruth@zahlwerk.example"]
    assert near("ruth@zahlwerk.test") == ["ruth@zahlwerk.example"]
    assert near("ruth@zahlwark.example") == ["ruth@zahlwerk.example"]
    assert near("https://corp.example.evil.test/x")[0].endswith("@corp.example")
    assert near("paul@other.example") == []
    assert near("x" * 100_000) == []


def test_flags_stand_beside_the_value_and_first_on_the_card() -> None:
    """Each flag shows its reference."""
    made = approval(to="ruth@zahlwerk.test")
    known = Reference("ruth@zahlwerk.example", "recipient list advisers", is_list=True)
    shown = card(made, references=CardReferences((known,)))
    assert shown.sections[0].id == "flags"
    flag = next(one for one in shown.flags if one.code is FlagCode.OTHER_TLD)
    assert flag.reference is not None
    assert flag.reference.text.text == "ruth@zahlwerk.example"
    assert flag.reference_source == "recipient list advisers"
    beside = [part for row in section(shown, "arguments").rows for part in row.parts]
    assert flag in beside


def test_the_code_stands_on_the_card() -> None:
    """A second channel shows the same code."""
    shown = card()
    assert len(shown.code) == 6
    parts = section(shown, "request").rows[0].parts
    assert [part.text for part in parts if isinstance(part, Plain)] == [shown.code]


def test_no_flag_without_a_reason() -> None:
    """The same call as last time has none."""
    made = approval()
    made.last_approved.arguments_json = made.arguments_json
    assert card(made).flags == ()

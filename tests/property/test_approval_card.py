"""Cards of calls that are made to deceive: nothing raw reaches a terminal or a page, and nothing is left out silently."""

import io
import re
from collections.abc import Iterator
from datetime import UTC
from html import escape
from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from authz.approvals.card import CardReferences, build_card
from authz.approvals.inert import Kind, Limit, make_inert, visible
from authz.approvals.lookalikes import RecipientIndex, Reference, likenesses
from authz.approvals.parts import Card, Flag, Inert, Part, Plain
from authz.approvals.terminal import TerminalCard
from authz.server.http.approvals_page.rendering import Renderer
from authz_client.v1 import approvals_pb2
from tests.support.effort import effort
from tests.support.hostile_approvals import TEXTS, approvals, is_raw

RENDERER = Renderer("")
ELEMENTS = {
    "html",
    "head",
    "meta",
    "title",
    "link",
    "script",
    "body",
    "a",
    "header",
    "p",
    "main",
    "div",
    "h1",
    "h2",
    "strong",
    "span",
    "section",
    "dl",
    "dt",
    "dd",
    "br",
    "b",
    "time",
    "form",
    "input",
    "fieldset",
    "legend",
    "label",
    "textarea",
    "button",
    "select",
    "option",
    "noscript",
}
ATTRIBUTES = {
    "lang",
    "charset",
    "name",
    "content",
    "rel",
    "href",
    "src",
    "defer",
    "data-base",
    "data-live",
    "class",
    "id",
    "role",
    "aria-live",
    "tabindex",
    "data-state",
    "data-words",
    "aria-labelledby",
    "datetime",
    "method",
    "action",
    "type",
    "value",
    "for",
    "rows",
    "maxlength",
}
CHARACTERS_OF_JSON = st.sampled_from('0123456789.eE-+"[]{},:truefalsn \\u')
EXAMPLES = effort(120, 1500)


def _shown(card: Card) -> Iterator[str]:
    yield card.title
    yield card.code
    yield card.cannot_be_shown
    for section in (*card.sections, card.status):
        yield section.heading
        for row in section.rows:
            for part in (*row.label, *row.parts):
                yield from _texts(part)


def _texts(part: Part) -> Iterator[str]:
    match part:
        case Plain():
            yield part.text
        case Inert():
            yield from (piece.text for line in part.text.lines for piece in line)
        case Flag():
            yield part.text
            yield part.reference_source
            if part.reference is not None:
                yield from _texts(part.reference)


def _card(made: approvals_pb2.Approval, *, whole: bool = False) -> Card:
    index = RecipientIndex({"people": ["ruth@corp.example", made.resource]})
    near = index.near([one.value for one in made.destinations])
    return build_card(made, CardReferences(recipients=near), 0.0, whole=whole)


@given(approvals(), st.booleans())
@settings(max_examples=EXAMPLES, deadline=None)
def test_no_part_has_a_character_that_a_reader_cannot_see(
    made: approvals_pb2.Approval,
    whole: bool,  # noqa: FBT001 - hypothesis
) -> None:
    """A page need only escape what HTML gives a meaning."""
    for text in _shown(_card(made, whole=whole)):
        assert not [hex(ord(one)) for one in text if is_raw(one)]
        assert not re.search("[<>]", escape(text))


@given(approvals(), st.booleans())
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_page_gets_no_raw_character_and_no_element(
    made: approvals_pb2.Approval,
    whole: bool,  # noqa: FBT001 - hypothesis
) -> None:
    """Every element of the page is the template's."""
    card = _card(made, whole=whole)
    html = _html(made, card)
    assert not [hex(ord(one)) for one in html if one != "\n" and is_raw(one)]
    elements = _Elements()
    elements.feed(html)
    assert elements.names <= ELEMENTS
    assert elements.attributes <= ATTRIBUTES


def _html(made: approvals_pb2.Approval, card: Card) -> str:
    context = {
        "approval": made,
        "card": card,
        "session": None,
        "path": "/",
        "csrf": "",
        "state": "",
        "is_open": True,
        "can_answer": True,
        "can_approve": card.can_be_approved,
        "by_passkey": False,
        "has_passkeys": False,
        "has_own_passkey": False,
        "needs_login": False,
    }
    return bytes(RENDERER.page("card", context).body).decode()


class _Elements(HTMLParser):
    """Names of elements and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}


@given(approvals(), st.integers(min_value=1, max_value=120), st.booleans())
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_terminal_gets_no_raw_character(
    made: approvals_pb2.Approval,
    width: int,
    colours: bool,  # noqa: FBT001 - hypothesis
) -> None:
    """Only rich's own colours are escape sequences."""
    out = io.StringIO()
    Console(
        file=out, width=width, force_terminal=colours, color_system="truecolor" if colours else None
    ).print(TerminalCard(_card(made), UTC))
    text = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()) if colours else out.getvalue()
    assert not [hex(ord(one)) for one in text if one != "\n" and is_raw(one)]


@given(st.binary(max_size=80), TEXTS.map(visible), st.text(CHARACTERS_OF_JSON, max_size=30))
@settings(max_examples=EXAMPLES, deadline=None)
def test_any_bytes_make_a_card(arguments: bytes, amount: str, value: str) -> None:
    """What cannot be read can only be rejected, and stops nobody from seeing the rest."""
    made = approvals_pb2.Approval(arguments_json=arguments)
    made.last_approved.arguments_json = arguments
    made.objects.add(role="amount", pointer="/amount", value_json=amount)
    made.objects.add(role="target", pointer="/id", value_json=value)
    scales = CardReferences(amount_scales={"/amount": 100})
    card = build_card(made, scales, 0.0, whole=True)
    assert card.can_be_approved == (not card.cannot_be_shown)


@given(approvals())
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_card_is_deterministic(made: approvals_pb2.Approval) -> None:
    """A copy of an approval has an equal card."""
    copy = approvals_pb2.Approval.FromString(made.SerializeToString())
    assert _card(made) == _card(copy)


@given(approvals())
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_whole_view_leaves_nothing_out(made: approvals_pb2.Approval) -> None:
    """A brief view of the same call either shows as much, or says how many bytes it leaves out."""
    brief, whole = _card(made), _card(made, whole=True)
    assert not whole.needs_whole_view
    assert brief.needs_whole_view or (brief.digest == whole.digest)
    if brief.needs_whole_view:
        assert any("not shown" in text or "bytes" in text for text in _shown(brief))


@given(TEXTS, TEXTS, st.sampled_from(Kind))
@settings(max_examples=EXAMPLES, deadline=None)
def test_two_texts_look_the_same_only_if_blanks_alone_differ(
    one: str, other: str, kind: Kind
) -> None:
    """Markers stand for what they replace, and no text imitates one."""
    if make_inert(one, kind).text == make_inert(other, kind).text:
        assert one == other or _without_empty_lines(one) == _without_empty_lines(other)


def _without_empty_lines(text: str) -> str:
    return "\n".join(line for line in text.replace("\r\n", "\n").split("\n") if line.strip(" "))


@given(TEXTS, st.integers(min_value=0, max_value=30), st.integers(min_value=1, max_value=4))
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_cut_text_counts_its_bytes(text: str, characters: int, lines: int) -> None:
    """What is shown and what is counted make up the whole."""
    inert = make_inert(text, limit=Limit(characters, lines))
    shown = text[:characters].split("\n")[:lines]
    left = len(text.encode("utf-8", "surrogatepass"))
    left -= len("\n".join(shown).encode("utf-8", "surrogatepass"))
    assert inert.hidden_bytes == left


@given(TEXTS, st.lists(TEXTS, max_size=5))
@settings(max_examples=EXAMPLES, deadline=None)
def test_an_index_leaves_out_no_likeness(value: str, entries: list[str]) -> None:
    """It finds what a comparison with every entry finds."""
    every = [Reference(one, "recipient list people", is_list=True) for one in sorted({*entries})]
    found = {one.code for one in likenesses(value, every)}
    near = RecipientIndex({"people": entries}).near([value])
    assert found == {one.code for one in likenesses(value, near)}


MAILBOXES = st.builds(
    "{}@{}{}.{}".format,
    st.sampled_from(["ruth", "info", "r.uth"]),
    st.sampled_from(["", "mail.", "corp.example."]),
    st.sampled_from(
        ["kestrel", "kestre1", "kesrtel", "kestrel-pay", "zahlwerkstatt", "zahlwerkstadt"]
    ),
    st.sampled_from(["example", "test", "co.uk"]),
)


@given(MAILBOXES, st.lists(MAILBOXES, max_size=6))
@settings(max_examples=EXAMPLES, deadline=None)
def test_an_index_leaves_out_no_likeness_of_mailboxes(value: str, entries: list[str]) -> None:
    """The same, of values that do resemble one another."""
    test_an_index_leaves_out_no_likeness.hypothesis.inner_test(value, entries)  # type: ignore[attr-defined]

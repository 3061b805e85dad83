"""The card: the description of one call that a person reads before approving or rejecting the call.

`build_card` is a pure function of an approval and of references.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from authz.approvals.difference import ArgumentsError, Change, Leaf, compare, read_arguments
from authz.approvals.inert import (
    WHOLE,
    FindingKind,
    Kind,
    Limit,
    is_binary,
    make_inert,
    visible,
)
from authz.approvals.lookalikes import (
    FlagCode,
    Likeness,
    Reference,
    ReferenceIndex,
    ValueKind,
    amount_likenesses,
    amount_text,
    decimal_of,
    is_address,
    is_currency,
    is_iban,
    kind_of,
    likenesses,
    same_value,
)
from authz.approvals.parts import (
    Card,
    Flag,
    Inert,
    Part,
    Plain,
    Row,
    Section,
    Source,
    Time,
    Tone,
    digest_of,
)
from authz_client.approval_code import binding_code
from authz_client.v1 import approvals_pb2, decision_pb2

__all__ = [
    "Card",
    "CardReferences",
    "Flag",
    "Inert",
    "MissingReference",
    "Part",
    "Plain",
    "Row",
    "Section",
    "Source",
    "Time",
    "Tone",
    "build_card",
    "compared_values",
]


_BRIEF_TEXT: Final = Limit(characters=600, lines=12)
_BRIEF_ROWS: Final = 20
"""Rows of one section in the brief view."""
_EARLIER_VALUES: Final = 5
"""Values of approved calls of the task that a card lists."""
_SAME_KIND: Final = 4
"""A destination is flagged if this many others are of one kind, and it is of another."""

EFFECTS: Final[Mapping[str, str]] = {
    "read": "read",
    "write": "change",
    "delete": "delete",
    "export": "send out",
    "execute": "run",
    "grant": "give access",
}
_WORST_FIRST: Final = ("delete", "execute", "grant", "export", "write", "read")
_NO_TEMPLATE: Final = "none"
"""Template of a call without a task."""
ORIGINS: Final[Mapping[str, str]] = {
    "named": "the user named it",
    "known": "it is in a list of the organisation",
    "made": "the agent made it in this session",
    "introduced": "a system returned it, in a field that outsiders do not fill",
    "claimed": "only the agent says that the user named it",
    "unknown": "neither the user nor the organisation named it",
}
"""Origins in words."""
_CHOSEN: Final = frozenset({"named", "known"})
_NAMING_ROLES: Final = frozenset({"recipient", "target"})
"""Roles whose values name somebody or something."""
_ADDRESS_TYPES: Final = frozenset({"email", "host", "url"})
"""Types of destinations that have a host."""
_TIERS: Final[Mapping[int, str]] = {
    decision_pb2.TIER_LOW: "low",
    decision_pb2.TIER_STANDARD: "standard",
    decision_pb2.TIER_HIGH: "high",
    decision_pb2.TIER_CRITICAL: "critical",
}
_ROLES: Final[Mapping[str, str]] = {
    "recipient": "Recipient",
    "target": "Target",
    "amount": "Amount",
    "command": "Command",
    "credential": "Credential",
}
_HOLDERS: Final = ("name", "payee", "holder", "beneficiary", "creditor", "recipient", "receiver")
_KINDS: Final[Mapping[str, str]] = {
    "confirm": "the user must confirm",
    "approve": "another person must approve",
    "two_person": "two people must approve",
    "reauth": "the user must log in again",
    "fresh_credential": "the agent needs a fresh credential",
    "bound_token": "the agent needs a credential that is bound to a key",
    "confidence": "a guard must vouch for the call",
}
_STATUSES: Final[Mapping[int, str]] = {
    approvals_pb2.APPROVAL_STATUS_PENDING: "open",
    approvals_pb2.APPROVAL_STATUS_APPROVED: "approved",
    approvals_pb2.APPROVAL_STATUS_REJECTED: "rejected",
    approvals_pb2.APPROVAL_STATUS_EXPIRED: "expired",
    approvals_pb2.APPROVAL_STATUS_CONSUMED: "used",
}
_METHODS: Final[Mapping[str, str]] = {
    "login": "by login",
    "passkey": "by passkey",
    "socket": "on the administration socket",
}
_FINDINGS: Final[Mapping[FindingKind, FlagCode]] = {
    FindingKind.HIDDEN: FlagCode.HIDDEN,
    FindingKind.MIXED: FlagCode.MIXED,
    FindingKind.CONFUSABLE: FlagCode.CONFUSABLE,
    FindingKind.PADDING: FlagCode.PADDING,
    FindingKind.MARKS: FlagCode.MARKS,
}
_FINDING_TEXTS: Final[Mapping[FindingKind, str]] = {
    FindingKind.HIDDEN: "Has characters that cannot be seen: {}.",
    FindingKind.MIXED: "A word mixes letters of {}.",
    FindingKind.CONFUSABLE: "Has characters that are made to be taken for others: {}.",
    FindingKind.PADDING: "Blanks push text out of sight: {}.",
    FindingKind.MARKS: "Marks pile up over one character: {}.",
}


@dataclass(frozen=True, slots=True)
class CardReferences:
    """Values that the values of a call are compared with."""

    recipients: tuple[Reference, ...] = ()
    """Entries of recipient lists near the call's values: `RecipientIndex.near`."""
    amount_scales: Mapping[str, int] = field(default_factory=dict)
    """Divisors of amounts (`scale` of `objects`, default 1), by JSON pointer. The unit of all other amounts is not known."""
    missing: tuple["MissingReference", ...] = ()
    """Values that the card cannot be compared with. The card names them."""


@dataclass(frozen=True, slots=True)
class MissingReference:
    """Values that a card would be compared with, if they were at hand."""

    name: str
    """For example `Recipient list payees`."""
    reason: str
    """Reason why they are missing, and the consequence."""


def build_card(
    approval: approvals_pb2.Approval,
    references: CardReferences,
    now: float,
    *,
    whole: bool = False,
) -> Card:
    """Build the card of an approval.

    Args:
        approval: The approval.
        references: Values to compare with.
        now: Unix time, for the status. The digest does not depend on it.
        whole: Show every value in full, without a limit of length.

    Returns:
        The same card for the same approval and references, in every process.
    """
    call = _Call.read(approval, references, whole=whole)
    answered = tuple(
        section
        for section in (
            _operation_section(call),
            _destinations_section(call),
            _objects_section(call),
            _difference_section(call),
            _earlier_section(call),
            _missing_section(call),
            _task_section(call),
            _rules_section(call),
            _labels_section(call),
            _endorsement_section(call),
            _ignored_section(call),
            _arguments_section(call),
            _request_section(call),
        )
        if section.rows
    )
    sections = (*_flags_section(answered), *answered)
    title, code = _title(approval), binding_code(approval.id)
    return Card(
        approval_id=visible(approval.id),
        title=title,
        code=code,
        sections=sections,
        status=_status_section(approval, now),
        flags=tuple(dict.fromkeys(flag for _, flag in _flagged(answered))),
        hidden_bytes=_hidden_bytes(answered),
        cannot_be_shown=call.cannot_be_shown,
        digest=digest_of(title, code, sections),
    )


def compared_values(approval: approvals_pb2.Approval) -> Iterator[str]:
    """Yield the values of a call that its card compares with known values, each once."""
    values = [one.value for one in approval.destinations]
    values += [_value_text(one) for one in approval.objects if one.role in _NAMING_ROLES]
    values.append(approval.resource.partition("/")[2])
    try:
        leaves = read_arguments(approval.arguments_json)
    except ArgumentsError:
        leaves = ()
    values += [leaf.text for leaf in leaves if leaf.kind == "text" and is_address(leaf.text)]
    yield from dict.fromkeys(filter(None, values))


def _hidden_bytes(sections: Iterable[Section]) -> int:
    """Return the number of bytes that a view leaves out.

    The difference repeats arguments, so it counts only if no other section leaves bytes out.
    """
    hidden = {section.id: section.hidden_bytes for section in sections}
    repeated = hidden.pop("difference", 0)
    return sum(hidden.values()) or repeated


@dataclass(frozen=True, slots=True)
class _Call:
    """A call, its arguments and those of the last approved call."""

    approval: approvals_pb2.Approval
    references: CardReferences
    text_limit: Limit
    row_limit: int
    leaves: tuple[Leaf, ...]
    before: tuple[Leaf, ...]
    """Arguments of the last approved call."""
    known_values: tuple[Reference, ...]
    """Values that the values of the call are compared with."""
    index: ReferenceIndex
    """Index of `known_values`, for lookups by likeness."""
    cannot_be_shown: str

    @classmethod
    def read(
        cls, approval: approvals_pb2.Approval, references: CardReferences, *, whole: bool
    ) -> "_Call":
        cannot_be_shown = visible(approval.cannot_be_shown)
        leaves: tuple[Leaf, ...] = ()
        before: tuple[Leaf, ...] = ()
        try:
            leaves = read_arguments(approval.arguments_json)
            before = read_arguments(approval.last_approved.arguments_json)
        except ArgumentsError as error:
            cannot_be_shown = cannot_be_shown or str(error)
        binary = next((leaf for leaf in leaves if is_binary(leaf.text)), None)
        if binary is not None and not cannot_be_shown:
            cannot_be_shown = f"the argument {visible(binary.pointer)} is binary data"
        last = (
            Reference(leaf.text, "the last approved call")
            for leaf in before
            if leaf.kind in ("text", "number")
        )
        earlier = (
            Reference(value, "an earlier approved call of this task")
            for value in approval.earlier_values
        )
        known = (*references.recipients, *earlier, *last)
        return cls(
            approval=approval,
            references=references,
            text_limit=WHOLE if whole else _BRIEF_TEXT,
            row_limit=WHOLE.lines if whole else _BRIEF_ROWS,
            leaves=leaves,
            before=before,
            known_values=known,
            index=ReferenceIndex(known),
            cannot_be_shown=cannot_be_shown,
        )

    @property
    def strict_kinds(self) -> Mapping[str, Kind]:
        """Kinds of the values that carry authority: destinations, objects that name something, and the resource."""
        values = [one.value for one in self.approval.destinations]
        values += [_value_text(one) for one in self.approval.objects if one.role in _NAMING_ROLES]
        values.append(self.approval.resource)
        return {value: kind_of(value).strictness for value in values if value}

    def inert(
        self, text: str, kind: Kind = Kind.PROSE, source: Source = Source.AGENT
    ) -> tuple[tuple[Part, ...], int]:
        """Return the parts that show a text, and the number of bytes that they leave out."""
        shown = make_inert(text, kind, self.text_limit)
        parts: list[Part] = [Inert(shown, source)]
        if shown.hidden_bytes:
            parts.append(Plain(f"{shown.hidden_bytes} bytes not shown", Tone.STRONG))
        for found, code in _FINDINGS.items():
            details = [one.detail for one in shown.findings if one.kind is found]
            if details:
                more = f" and {len(details) - 3} others" if len(details) > 3 else ""
                text = _FINDING_TEXTS[found].format(", ".join(details[:3]) + more)
                parts.append(Flag(code, text))
        return tuple(parts), shown.hidden_bytes


@dataclass(frozen=True, slots=True)
class _Draft:
    """A row, and the bytes that it leaves out."""

    row: Row
    hidden_bytes: int = 0
    """Bytes that the row leaves out."""
    size: int = 0
    """Bytes that are left out if the whole row is left out."""

    @property
    def is_flagged(self) -> bool:
        return any(isinstance(part, Flag) for part in self.row.parts)


def _section(
    id_: str,
    heading: str,
    drafts: Sequence[_Draft],
    call: _Call,
    *,
    is_agent_text: bool = False,
    head: Sequence[Row] = (),
) -> Section:
    """Make a section. If it has more rows than fit, flagged rows come first, and a last row counts the rows that are left out."""
    shown, left = list(drafts), []
    if len(shown) > call.row_limit:
        shown.sort(key=lambda draft: not draft.is_flagged)
        shown, left = shown[: call.row_limit], shown[call.row_limit :]
    rows = [*head, *(draft.row for draft in shown)]
    hidden = sum(draft.hidden_bytes for draft in shown)
    if left:
        size = sum(draft.size for draft in left)
        text = f"{len(left)} more, {size} bytes"
        rows.append(_row("Not shown", Plain(text, Tone.STRONG), *_flags_of(left)))
        hidden += max(size, 1)
    return Section(id_, heading, tuple(rows), is_agent_text, hidden)


def _flags_of(drafts: Iterable[_Draft]) -> tuple[Flag, ...]:
    """Return the flags of rows that are left out, each code once."""
    flags = (part for draft in drafts for part in draft.row.parts if isinstance(part, Flag))
    return tuple({flag.code: flag for flag in flags}.values())


def _row(label: str, *parts: Part) -> Row:
    return Row((Plain(label),), parts)


def _flagged(sections: Iterable[Section]) -> Iterator[tuple[Row, Flag]]:
    for section in sections:
        for row in section.rows:
            for part in row.parts:
                if isinstance(part, Flag):
                    yield row, part


def _flags_section(sections: Sequence[Section]) -> tuple[Section, ...]:
    """Return a section of all flags. Each flag also stands beside its value."""
    first: dict[Flag, Row] = {}
    for row, flag in _flagged(sections):
        first.setdefault(flag, row)
    if not first:
        return ()
    rows = tuple(Row(row.label, (flag,)) for flag, row in first.items())
    return (Section("flags", "Look twice", rows),)


# Operation and resource.


def _title(approval: approvals_pb2.Approval) -> str:
    operation = visible(approval.operation)
    effects = sorted(
        approval.effects,
        key=lambda effect: _WORST_FIRST.index(effect) if effect in _WORST_FIRST else -1,
    )
    words = " and ".join(EFFECTS.get(effect, visible(effect)) for effect in effects)
    return f"{words}: {operation}" if words else operation


def _operation_section(call: _Call) -> Section:
    approval = call.approval
    rows = [_Draft(_row("Operation", Plain(_title(approval), Tone.STRONG)))]
    if approval.resource:
        kind = call.strict_kinds[approval.resource]
        parts, hidden = call.inert(approval.resource, kind)
        # Arguments name the resource without its collection. A resource that is also an object is compared as an object.
        name = approval.resource.partition("/")[2]
        is_object = any(same_value(name, _value_text(one)) for one in approval.objects)
        found = () if is_object else _likeness_flags(call, name, kind=_id_kind(name))
        rows.append(_Draft(_row("Acts on", *parts, *found), hidden))
    if tier := _TIERS.get(approval.tier):
        rows.append(_Draft(_row("Possible damage", Plain(tier))))
    return _section("operation", "What will happen", rows, call)


def _likeness_flags(
    call: _Call, value: str, *, is_chosen: bool = False, kind: ValueKind | None = None
) -> tuple[Flag, ...]:
    found = likenesses(value, call.index.candidates(value), is_chosen=is_chosen, kind=kind)
    return tuple(map(_flag, found))


def _id_kind(value: str) -> ValueKind:
    """Return the kind of an id of a collection: names of files, such as `limits.py`, have the form of hosts."""
    kind = kind_of(value)
    return ValueKind.NAME if kind is ValueKind.HOST else kind


def _flag(likeness: Likeness) -> Flag:
    text = visible(likeness.text)
    if likeness.reference is None:
        return Flag(likeness.code, text)
    source = Source.LIST if likeness.reference.is_list else Source.EARLIER
    reference = make_inert(likeness.reference.value, Kind.ADDRESS, _BRIEF_TEXT)
    return Flag(likeness.code, text, Inert(reference, source), visible(likeness.reference.source))


# Destinations.


def _destinations_section(call: _Call) -> Section:
    odd = _odd_destinations(call.approval.destinations)
    drafts = [
        _destination_draft(call, place, odd) for place in range(len(call.approval.destinations))
    ]
    # A person must check the unlisted destinations, so listed ones come last.
    unlisted = [bool(one.recipient_list) for one in call.approval.destinations]
    order = sorted(range(len(drafts)), key=lambda at: (not drafts[at].is_flagged, unlisted[at]))
    return _section("destinations", "Where it goes", [drafts[at] for at in order], call)


def _destination_draft(call: _Call, place: int, odd: Mapping[int, str]) -> _Draft:
    one = call.approval.destinations[place]
    kind = kind_of(one.value)
    parts, hidden = call.inert(one.value, kind.strictness)
    notes: list[Part] = [Plain(f"class {visible(one.destination_class)}")]
    if one.host and not one.value.casefold().endswith(one.host.casefold()):
        host, left_out = call.inert(one.host, Kind.ADDRESS)
        notes += [Plain("host"), *host]
        hidden += left_out
    if one.recipient_list:
        notes.append(Plain(f"in recipient list {visible(one.recipient_list)}"))
    else:
        notes.append(Plain("in no recipient list"))
    if one.origin:
        notes.append(Plain(ORIGINS.get(one.origin, visible(one.origin))))
    notes += _seen(call, one.value, is_listed=bool(one.recipient_list))
    found = _likeness_flags(
        call, one.value, is_chosen=bool(one.recipient_list) or one.origin in _CHOSEN
    )
    found = (*found, *_account_flags(call, one.value))
    if place in odd:
        found = (*found, Flag(FlagCode.ODD_DESTINATION, odd[place]))
    row = _row("To", *parts, *notes, *found)
    return _Draft(row, hidden, len(one.value.encode("utf-8", "surrogatepass")))


def _account_flags(call: _Call, value: str) -> tuple[Flag, ...]:
    """Return a flag if an account differs from the earlier account of the same holder, as in a forged invoice."""
    if kind_of(value) is not ValueKind.IBAN or any(
        same_value(value, leaf.text) for leaf in call.before
    ):
        return ()
    accounts = [leaf for leaf in call.before if leaf.kind == "text" and is_iban(leaf.text)]
    names = {(leaf.pointer, leaf.text.casefold()) for leaf in call.before if _is_holder(leaf)}
    for leaf in call.leaves:
        if accounts and _is_holder(leaf) and (leaf.pointer, leaf.text.casefold()) in names:
            reference = Reference(accounts[0].text, "the last approved call")
            text = f"Another account than before under the name `{leaf.text}`:"
            return (_flag(Likeness(FlagCode.OTHER_ACCOUNT, text, reference)),)
    return ()


def _is_holder(leaf: Leaf) -> bool:
    """Return whether the name of an argument says that its value is the holder of an account."""
    name = leaf.pointer.rpartition("/")[2].casefold()
    return leaf.kind == "text" and bool(leaf.text) and any(word in name for word in _HOLDERS)


def _seen(call: _Call, value: str, *, is_listed: bool) -> list[Part]:
    """Return the other sources that know a value, or a note that the value occurs for the first time."""
    sources = dict.fromkeys(
        one.source for one in call.known_values if not one.is_list and same_value(one.value, value)
    )
    if sources:
        return [Plain("also in " + ", ".join(map(visible, sources)))]
    return [] if is_listed else [Plain("first time", Tone.STRONG)]


def _odd_destinations(
    destinations: Sequence[approvals_pb2.ApprovalDestination],
) -> Mapping[int, str]:
    """Return a text for each destination whose kind differs from that of nearly all others."""
    for differs, key in (
        ("in another class or list, or chosen by somebody else", _destination_group),
        ("at another host", _destination_host),
    ):
        groups = Counter(map(key, destinations))
        usual, count = groups.most_common(1)[0] if groups else (None, 0)
        others = [place for place, one in enumerate(destinations) if key(one) != usual]
        if others and count >= _SAME_KIND and len(others) * _SAME_KIND <= count:
            return dict.fromkeys(others, f"Unlike {count} other destinations: {differs}.")
    return {}


def _destination_group(one: approvals_pb2.ApprovalDestination) -> tuple[str, ...]:
    return (one.destination_class, str(bool(one.recipient_list)), str(one.origin in _CHOSEN))


def _destination_host(one: approvals_pb2.ApprovalDestination) -> tuple[str, ...]:
    return (one.host.casefold(),)


# Objects.


def _objects_section(call: _Call) -> Section:
    drafts = [_object_draft(call, one) for one in call.approval.objects]
    return _section("objects", "Important values", drafts, call)


def _value_text(one: approvals_pb2.ApprovalObject) -> str:
    """Return the value of an object without quotation marks."""
    try:
        leaves = read_arguments(one.value_json.encode("utf-8", "surrogatepass"))
    except ArgumentsError:
        return one.value_json
    return leaves[0].text if len(leaves) == 1 and not leaves[0].pointer else one.value_json


def _object_draft(call: _Call, one: approvals_pb2.ApprovalObject) -> _Draft:
    value = _value_text(one)
    role = _ROLES.get(one.role, visible(one.role))
    label = (Plain(role), Inert(make_inert(one.pointer, Kind.NAME), Source.REQUEST))
    size = len(value.encode("utf-8", "surrogatepass"))
    is_chosen = one.origin in _CHOSEN
    found: tuple[Flag, ...]
    notes: list[Part]
    if one.role == "amount":
        parts, hidden = call.inert(value, Kind.NAME)
        parts = (*_amount_words(call, one, value), *parts)
        found = _amount_flags(call, one, value)
        notes = []
    else:
        is_name = one.role in _NAMING_ROLES
        kind = kind_of(value).strictness if is_name else Kind.PROSE
        parts, hidden = call.inert(value, kind)
        is_id = one.collection not in _ADDRESS_TYPES
        like = _id_kind(value) if is_id else kind_of(value)
        found = _likeness_flags(call, value, is_chosen=is_chosen, kind=like) if is_name else ()
        notes = _seen(call, value, is_listed=is_chosen) if is_name else []
        if one.currency:
            notes.append(Plain(visible(one.currency)))
    if one.collection:
        notes.append(Plain(f"of {visible(one.collection)}"))
    if one.origin:
        notes.append(Plain(ORIGINS.get(one.origin, visible(one.origin))))
    return _Draft(Row(label, (*parts, *notes, *found)), hidden, size)


def _amount_words(call: _Call, one: approvals_pb2.ApprovalObject, value: str) -> tuple[Part, ...]:
    """Return an amount in the unit of its currency, if the unit is known. The value as written follows it."""
    currency = visible(one.currency)
    scale = call.references.amount_scales.get(one.pointer)
    number = decimal_of(value)
    if number is None or scale is None:
        unit = "in a unit that only the system knows"
        return (Plain(f"{currency}, {unit}:" if currency else f"{unit}:"),)
    text = f"{amount_text(number, scale)} {currency}".rstrip()
    written = f"written in units of 1/{scale}:" if scale > 1 else "written:"
    return (Plain(text, Tone.STRONG), Plain(written, Tone.QUIET))


def _amount_flags(call: _Call, one: approvals_pb2.ApprovalObject, value: str) -> tuple[Flag, ...]:
    before = [
        Reference(leaf.text, "the last approved call")
        for leaf in call.before
        if leaf.pointer == one.pointer and leaf.kind in ("text", "number")
    ]
    likes = amount_likenesses(
        value, one.currency, before, is_same_receiver=_has_same_receiver(call)
    )
    changed = [
        change
        for change in compare(call.before, call.leaves)
        if change.after is not None
        and change.before is not None
        and change.after.text == one.currency
        and is_currency(change.before.text)
    ]
    flags = [*map(_flag, likes)]
    flags += [_currency_flag(change) for change in changed]
    return tuple(flags)


def _currency_flag(change: Change) -> Flag:
    text = change.before.text if change.before is not None else ""
    reference = Reference(text, "the last approved call")
    return _flag(Likeness(FlagCode.CURRENCY, "Another currency than before:", reference))


def _has_same_receiver(call: _Call) -> bool:
    receivers = [one.value for one in call.approval.destinations]
    receivers += [_value_text(one) for one in call.approval.objects if one.role in _NAMING_ROLES]
    known = [leaf.text for leaf in call.before if leaf.kind in ("text", "number")]
    return bool(receivers) and all(
        any(same_value(receiver, text) for text in known) for receiver in receivers
    )


# Difference to the last approved call.


def _difference_section(call: _Call) -> Section:
    heading = "Compared with the last approved call"
    if not call.approval.HasField("last_approved"):
        text = "First time: no call of this operation by this agent for this subject was approved before."
        return _section("difference", heading, [_Draft(_row("Before", Plain(text)))], call)
    last = call.approval.last_approved
    people = ", ".join(map(visible, last.approved_by))
    head = [_row("Approved", _time(last.approved_at), *([Plain(f"by {people}")] if people else []))]
    changes = compare(call.before, call.leaves)
    if not changes:
        head.append(_row("Changed", Plain("nothing (the arguments are the same)")))
    else:
        same = len(call.leaves) - sum(change.after is not None for change in changes)
        head.append(_row("Unchanged", Plain("1 value" if same == 1 else f"{same} values")))
    drafts = [_change_draft(call, change) for change in changes]
    return _section("difference", heading, drafts, call, head=head, is_agent_text=True)


def _change_draft(call: _Call, change: Change) -> _Draft:
    parts: list[Part] = []
    hidden = size = 0
    for word, leaf, source in (
        ("was", change.before, Source.EARLIER),
        ("now", change.after, Source.AGENT),
    ):
        parts.append(Plain(word))
        if leaf is None:
            parts.append(Plain("missing"))
            continue
        shown, left_out = _leaf_parts(call, leaf, source)
        # The old value no longer takes effect, so it needs no warning.
        parts += [part for part in shown if not (leaf is change.before and isinstance(part, Flag))]
        hidden += left_out
        size += _leaf_size(leaf)
    if (
        change.before is not None
        and change.after is not None
        and change.pointer.casefold().endswith("currency")
        and is_currency(change.before.text)
    ):
        parts.append(_currency_flag(change))
    return _Draft(Row((_pointer(change.pointer),), tuple(parts)), hidden, size)


def _pointer(pointer: str) -> Inert:
    return Inert(make_inert(pointer or "/", Kind.NAME), Source.AGENT)


def _leaf_size(leaf: Leaf) -> int:
    return len((leaf.pointer + leaf.text).encode("utf-8", "surrogatepass"))


def _leaf_parts(
    call: _Call, leaf: Leaf, source: Source = Source.AGENT
) -> tuple[tuple[Part, ...], int]:
    if leaf.kind in ("number", "boolean"):
        return (Plain(leaf.kind, Tone.QUIET), Inert(make_inert(leaf.text), source)), 0
    if leaf.kind != "text":
        return (Plain(leaf.kind, Tone.QUIET),), 0
    if not leaf.text:
        return (Plain("empty text", Tone.QUIET),), 0
    return call.inert(leaf.text, call.strict_kinds.get(leaf.text, Kind.PROSE), source)


def _earlier_section(call: _Call) -> Section:
    """Return the values of the approved calls of the task, the latest first. They say what is usual, so a few of them suffice."""
    values = call.approval.earlier_values
    drafts = []
    for value in values[:_EARLIER_VALUES]:
        parts, _ = call.inert(value, kind_of(value).strictness, Source.EARLIER)
        plain = [part for part in parts if not isinstance(part, Flag)]
        drafts.append(_Draft(_row("Value", *plain)))
    if len(values) > _EARLIER_VALUES:
        text = f"{len(values) - _EARLIER_VALUES} earlier ones"
        drafts.append(_Draft(_row("And", Plain(text, Tone.QUIET))))
    return _section("earlier", "Approved earlier in this task", drafts, call)


def _missing_section(call: _Call) -> Section:
    """Return what the values of the call were not compared with, so that a card without a warning promises no more than it saw."""
    drafts = [
        _Draft(_row(visible(one.name), Plain(visible(one.reason), Tone.STRONG)))
        for one in call.references.missing
    ]
    return _section("missing", "Not compared", drafts, call)


# Task, rules and labels.


def _task_section(call: _Call) -> Section:
    approval = call.approval
    rows: list[Row] = []
    if approval.purpose:
        rows.append(_row("Purpose", Plain(visible(approval.purpose))))
    if approval.template not in ("", _NO_TEMPLATE):
        rows.append(_row("Template", Plain(visible(approval.template))))
    if approval.task:
        rows.append(_row("Task", Plain(visible(approval.task), Tone.QUIET)))
    else:
        rows.append(_row("Task", Plain("none (the call was made without a task)")))
    subject = visible(approval.subject) or "nobody (the agent acts for itself)"
    rows.append(_row("For", Plain(subject)))
    rows += [_row("Agent", Plain(visible(agent))) for agent in approval.agents]
    return _section("task", "Who asks", [_Draft(row) for row in rows], call)


def _rules_section(call: _Call) -> Section:
    approval = call.approval
    drafts = [
        _Draft(
            _row(
                _kind_words(one.kind),
                Plain(visible(one.reason) or "the rule states no reason"),
                Plain(visible(one.policy_id), Tone.QUIET),
                Plain(visible(one.place), Tone.QUIET),
            ),
            size=len(one.reason.encode()),
        )
        for one in approval.reasons
    ]
    explained_kinds = {one.kind for one in approval.reasons}
    drafts += [
        _Draft(_row(_kind_words(kind), Plain("also needed")))
        for kind in approval.kinds
        if kind not in explained_kinds
    ]
    return _section("rules", "Why a person must decide", drafts, call)


def _kind_words(kind: str) -> str:
    name, _, role = kind.partition(":")
    words = _KINDS.get(name, visible(kind))
    return f"{words}, with the role {visible(role)}" if role else words


def _labels_section(call: _Call) -> Section:
    drafts = [_Draft(_row("Label", Plain(visible(label)))) for label in call.approval.labels]
    return _section("labels", "What the session has read", drafts, call)


def _endorsement_section(call: _Call) -> Section:
    """Return what an answer with an endorsement would allow besides the call. Empty where nobody may endorse."""
    heading = "What you may endorse, beside this call"
    if not call.approval.HasField("endorses"):
        return _section("endorses", heading, (), call)
    offer = call.approval.endorses
    drafts = []
    for one in offer.values:
        parts, hidden = call.inert(one.value, kind_of(one.value).strictness)
        drafts.append(_Draft(_row(_ROLES.get(one.role, visible(one.role)), *parts), hidden))
    operations = ", ".join(visible(operation) for operation in offer.operations)
    labels = ", ".join(visible(label) for label in offer.labels) or "none"
    limits = (
        ("For the operations", operations),
        ("For each value", _times(offer.uses)),
        ("Longest time", f"{_span(offer.within_seconds)}, and no longer than the task"),
        ("Possible damage up to", _TIERS.get(offer.max_tier, "low")),
        ("Labels of the session", labels),
    )
    drafts += [_Draft(_row(name, Plain(text))) for name, text in limits]
    return _section("endorses", heading, drafts, call)


def _times(uses: int) -> str:
    return "1 call" if uses == 1 else f"{uses} calls"


def _span(seconds: int) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{seconds} s" if rest else f"{minutes} min"


# Exact text of the call.


def _ignored_section(call: _Call) -> Section:
    drafts = []
    for one in call.approval.ignored:
        parts, hidden = call.inert(one.value, Kind.PROSE, Source.REQUEST)
        label = (Inert(make_inert(one.place, Kind.NAME), Source.REQUEST),)
        size = len((one.place + one.value).encode("utf-8", "surrogatepass"))
        drafts.append(_Draft(Row(label, parts), hidden, size))
    heading = "Parts of the request that Authz does not interpret"
    return _section("ignored", heading, drafts, call, is_agent_text=True)


def _arguments_section(call: _Call) -> Section:
    heading = "Exact arguments"
    if call.cannot_be_shown:
        text = f"Cannot be shown: {call.cannot_be_shown}. The call can only be rejected."
        draft = _Draft(_row("Arguments", Plain(text, Tone.STRONG)))
        return _section("arguments", heading, [draft], call)
    if not call.leaves:
        draft = _Draft(_row("Arguments", Plain("none")))
        return _section("arguments", heading, [draft], call)
    drafts = []
    for leaf in call.leaves:
        parts, hidden = _leaf_parts(call, leaf)
        pointer = _pointer(leaf.pointer)
        flags = tuple(_pointer_flags(pointer))
        row = Row((pointer,), (*parts, *_address_flags(call, leaf), *flags))
        drafts.append(_Draft(row, hidden, _leaf_size(leaf)))
    return _section("arguments", heading, drafts, call, is_agent_text=True)


def _pointer_flags(pointer: Inert) -> Iterator[Flag]:
    details = ", ".join(one.detail for one in pointer.text.findings)
    if details:
        yield Flag(FlagCode.HIDDEN, f"The name of the argument can be misread: {details}.")


def _address_flags(call: _Call, leaf: Leaf) -> tuple[Flag, ...]:
    """Return the flags of an address that the bundle does not declare as a destination."""
    if leaf.kind != "text" or leaf.text in call.strict_kinds or not is_address(leaf.text):
        return ()
    return _likeness_flags(call, leaf.text)


def _request_section(call: _Call) -> Section:
    approval = call.approval
    rows = [
        _row("Code", Plain(binding_code(approval.id), Tone.STRONG)),
        _row("Asked", _time(approval.created_at)),
        _row("Approval", Plain(visible(approval.id), Tone.QUIET)),
        _row("Decision", Plain(visible(approval.decision_id), Tone.QUIET)),
        _row("Digest of the call", Plain(approval.digest.hex(), Tone.QUIET)),
    ]
    return _section("request", "This request", [_Draft(row) for row in rows], call)


def _time(timestamp: Timestamp) -> Time:
    return Time(timestamp.seconds * 1000 + timestamp.nanos // 1_000_000)


# Status. It changes while people answer, so it is not part of the digest.


def _status_section(approval: approvals_pb2.Approval, now: float) -> Section:
    status = _STATUSES.get(approval.status, "unknown")
    expires_ms = _time(approval.expires_at).unix_ms
    rows = [_row("Status", Plain(status, Tone.STRONG))]
    if approval.HasField("expires_at"):
        word = "Ended" if expires_ms <= now * 1000 else "Ends"
        rows.append(_row(word, Time(expires_ms)))
    rows += [_row("Still needed", Plain(_kind_words(queue))) for queue in approval.waits_for]
    for answer in approval.answers:
        method = _METHODS.get(answer.method, visible(answer.method))
        text = f"{_STATUSES.get(answer.status, 'answered')} by {visible(answer.person)}, {method}"
        parts: list[Part] = [Plain(text), _time(answer.answered_at)]
        if answer.comment:
            parts.append(Inert(make_inert(answer.comment), Source.PERSON))
        rows.append(_row(_kind_words(answer.queue), *parts))
    if approval.reject_text or approval.reject_reason:
        text = visible(approval.reject_text or approval.reject_reason)
        rows.append(_row("Reason", Plain(text)))
    return Section("status", "Status", tuple(rows))

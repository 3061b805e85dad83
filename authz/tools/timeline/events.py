"""Event of a session, read from its audit record.

Reading is lenient, since another version may have written the record: a missing member, or one of another type, reads as empty.
Every text is fit for one line of a terminal.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from authz.audit import is_node_record
from authz.audit.chain import read_link
from authz.tools.catalog.tool import plain

__all__ = ["Approval", "Place", "TimelineEvent", "end_of_approval", "read_event"]

_KINDS: Final = {
    "check": "call",
    "batch_check": "call",
    "ext_authz": "call",
    "report": "report",
    "access_log": "report",
    "approval_resolve": "answer",
    "approval_get": "approval read",
    "approval_list": "approvals listed",
    "task_start": "task start",
    "task_delegate": "delegation",
    "task_extend": "task extension",
    "task_end": "task end",
    "task_names": "names given",
    "revoke": "revocation",
    "record_erasure": "erasure of texts",
    "security_event": "security event",
    "credential_exchange": "credential exchange",
    "credential_issue": "credential issue",
    "credential_introspect": "credential read",
    "credential_revoke": "credential revocation",
}
_MOST_ITEMS: Final = 256
_MOST_TEXT: Final = 1_000
_MOST_ARGUMENTS: Final = 4_000


@dataclass(frozen=True, slots=True)
class Place:
    """Place of a record."""

    file: str
    """Path of the file."""
    line: int
    """Line, from 1."""
    segment: int = 0
    """Segment of the chain; 0 without a chain."""
    index: int = 0
    """Place in the segment."""

    @staticmethod
    def of(file: str, line: int, text: bytes) -> "Place":
        """Return the place of a line, with its place in the chain if it names one."""
        link = read_link(text.rstrip(b"\n"))
        # SQLite keeps integers of 64 bits.
        if link is None or max(link.segment, link.index) >= 2**63:
            return Place(file, line)
        return Place(file, line, link.segment, link.index)


@dataclass(frozen=True, slots=True)
class Approval:
    """Approval that a record is about."""

    id: str = ""
    event: str = ""
    """`made`, `repeated`, `consumed`, `refused`, `relied`, `answered`, `approved`, `rejected`, `expired` or `unused`."""
    by: list[str] = field(default_factory=list)
    """People who answered."""
    queues: list[str] = field(default_factory=list)
    """Queues; of an end by time, those that nobody answered for."""
    why: str = ""
    """Reason why people are asked again."""
    method: str = ""
    """`login`, `passkey` or `socket`; of an answer."""
    acr: str = ""
    passkey: str = ""
    """Id of the passkey that signed."""
    card_digest: str = ""
    """SHA-256 of the card that the person saw."""
    decided_in_ms: int | None = None
    """Milliseconds from the first look to the answer."""
    reject_reason: str = ""
    endorses: bool = False
    """The person endorsed the values of the call."""
    endorsed: list[str] = field(default_factory=list)
    """Values that count as named: role, collection and approval."""
    digest: str = ""
    """SHA-256 of the call that people answer."""
    card_digests: list[str] = field(default_factory=list)
    """SHA-256 of the cards that the approvers of a used approval saw."""


@dataclass(frozen=True, slots=True)
class TimelineEvent:
    """One record of a session."""

    at: str
    """Timestamp of the record; may be empty."""
    kind: str
    """`call`, `report`, `answer`, `task start`, `delegation`, `task end`, `task expiry`, `bundle load` and the like."""
    decision_id: str
    task: str
    """Id of the task; empty without one."""
    agent: str
    """Principal that acts: the last of the chain."""
    on_behalf_of: list[str]
    """Principals before it, the subject first."""
    operation: str
    resource: str
    destination_class: str
    outcome: str
    code: str
    message: str
    tier: str
    place: Place
    enforced: bool = True
    """False: `mode: observe` let the call through."""
    probe: bool = False
    """The request was a probe: nothing was to be done."""
    answered: bool = True
    """False: a later record of this id stands in its place, since this one could not be made durable."""
    assignee: str = ""
    """Agent of the task, of a start or a delegation."""
    template: str = ""
    depth: int = 0
    kinds: list[str] = field(default_factory=list)
    """Kinds of a step-up."""
    rules: list[str] = field(default_factory=list)
    """Rules that made a denial or a step-up; policies of a permit."""
    controls: list[str] = field(default_factory=list)
    carried: dict[str, str] = field(default_factory=dict)
    """Labels of the session before the call, each with the decision that brought it."""
    remembered: dict[str, str] = field(default_factory=dict)
    """Labels that the agent remembers from other tasks, each with the decision that brought it."""
    kept: dict[str, str] = field(default_factory=dict)
    """Labels that the resource keeps from its writers, each with the decision by which it was written."""
    joins: list[str] = field(default_factory=list)
    """Labels that join the session by this record."""
    uncleared: list[str] = field(default_factory=list)
    """Labels for which the destination is not cleared."""
    written: list[str] = field(default_factory=list)
    """Labels that the written object keeps."""
    arguments: str = ""
    """Arguments as JSON; texts are digests."""
    facts: str = ""
    """Facts that policies could read, as JSON."""
    origins: dict[str, list[str]] = field(default_factory=dict)
    """Origins of the values by role."""
    approval: Approval | None = None
    report_of: str = ""
    """Decision whose permit a report is about."""
    report_result: str = ""
    report_values: dict[str, int] = field(default_factory=dict)
    """Numbers of reported values, by result."""
    exceptions: list[str] = field(default_factory=list)
    breakglass: dict[str, str] = field(default_factory=dict)
    revoked: dict[str, str] = field(default_factory=dict)
    obligations: list[str] = field(default_factory=list)
    denials: str = ""
    """Change of the task's run of denials: `grows`, `ends` or `ends_task`."""
    credential: str = ""
    """Id of the task credential."""
    node: str = ""
    """Node that wrote the record, of a record that is not a decision."""
    ended_tasks: int = 0
    """Tasks that ended by time: the task and those below it."""
    loaded: dict[str, str] = field(default_factory=dict)
    """Bundle and trust that the node uses from then on: `bundle`, `revision`, `digest` and `trust`."""
    refused: dict[str, str] = field(default_factory=dict)
    """Load that the node refused: `digest` of the refused bundle, and digest of the bundle `in_use`."""
    refused_for: list[str] = field(default_factory=list)
    """Errors of that load, each with its place."""
    dropped: dict[str, str] = field(default_factory=dict)
    """Times of the `first` and the `last` decision of the node that was answered without a record."""
    dropped_count: int = 0
    """Number of these decisions."""

    def dumps(self) -> str:
        """Return the event as JSON of ASCII characters."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @staticmethod
    def loads(text: str) -> "TimelineEvent":
        """Read an event that `dumps` wrote."""
        fields = json.loads(text)
        fields["place"] = Place(**fields["place"])
        if fields["approval"] is not None:
            fields["approval"] = Approval(**fields["approval"])
        return TimelineEvent(**fields)

    def document(self) -> dict[str, Any]:
        """Return the event as JSON values, without empty members."""
        document: dict[str, Any] = _without_empty(asdict(self))
        return document

    def notes(self) -> Iterator[str]:
        """Yield the further facts of the event, one a line."""
        yield from self._notes_of_state()
        yield from self._notes_of_kind()
        yield from self._notes_of_outcome()
        yield from self._notes_of_history()
        if self.approval is not None:
            yield from _approval_notes(self.approval, self.kind)
        yield from self._notes_of_permit()

    def _notes_of_state(self) -> Iterator[str]:
        if not self.answered:
            yield "not answered: the record could not be made durable, and a later record stands in its place"
        if not self.enforced:
            yield "let through: `mode: observe` does not enforce the outcome"
        if self.probe:
            yield "a probe: nothing was to be done"

    def _notes_of_kind(self) -> Iterator[str]:
        if self.template:
            yield f"task {self.task} of the template {self.template} for {self.assignee}, depth {self.depth}"
        if self.report_of:
            yield f"result {self.report_result} of {self.report_of}"
        if self.report_values:
            counts = ", ".join(f"{name} {count}" for name, count in self.report_values.items())
            yield f"values of the result: {counts}"
        if self.revoked:
            known = self.revoked
            by = f" by {known['by']}" if known.get("by") else ""
            reason = f": {known['reason']}" if known.get("reason") else ""
            verb = "lifted the revocation of" if known.get("undo") else "revoked"
            yield f"{verb} {known.get('target', '')} {known.get('value', '')}{by}{reason}"
        if self.ended_tasks:
            yield f"the time of task {self.task} was over; tasks that ended with it, itself included: {self.ended_tasks}"
        if self.loaded:
            known = self.loaded
            yield (
                f"bundle {known.get('bundle', '')}, revision {known.get('revision', '')}, digest {known.get('digest', '')}, "
                f"trust {known.get('trust', '')}"
            )

        if self.refused_for:
            known = self.refused
            yield (
                f"refused bundle {known.get('digest', '(not read)')}; bundle {known.get('in_use', '(none)')} stays in use"
            )
            yield from self.refused_for
        if self.dropped_count:
            known = self.dropped
            yield (
                f"decisions of the node without records, since the audit queue was full: {self.dropped_count}, "
                f"from {known.get('first', '')} to {known.get('last', '')}"
            )

    def _notes_of_outcome(self) -> Iterator[str]:
        if self.kinds:
            yield f"held until: {', '.join(self.kinds)}"
        if self.outcome != "PERMIT":
            yield from (
                note
                for note, given in (
                    (f"by {'; '.join(self.rules)}", self.rules),
                    (f"controls: {', '.join(self.controls)}", self.controls),
                    (self.message, self.message),
                )
                if given
            )
        if self.denials:
            yield f"run of denials: {self.denials}"

    def _notes_of_history(self) -> Iterator[str]:
        yield from (
            f"{meaning}: {text}"
            for meaning, text in (
                ("labels join the session", ", ".join(self.joins)),
                ("session carries", _pairs(self.carried)),
                ("agent remembers from other tasks", _pairs(self.remembered)),
                ("resource keeps from its writers", _pairs(self.kept)),
                ("destination is not cleared for", ", ".join(self.uncleared)),
                ("written object keeps", ", ".join(self.written)),
            )
            if text
        )
        if self.arguments:
            yield f"arguments: {self.arguments}"
        if self.facts:
            yield f"facts that policies could read: {self.facts}"
        for role, origins in self.origins.items():
            yield f"origin of the {role}: {', '.join(origins)}"

    def _notes_of_permit(self) -> Iterator[str]:
        if self.exceptions:
            yield f"depends on the standing exception {', '.join(self.exceptions)}"
        if self.breakglass:
            known = self.breakglass
            yield (
                f"depends on break-glass {known.get('id', '')}, ticket {known.get('ticket', '')}, "
                f"opened by {known.get('opened_by', '')}, confirmed by {known.get('confirmed_by', '')}"
            )
        if self.obligations:
            yield f"obligations: {', '.join(self.obligations)}"
        if self.credential:
            yield f"task credential {self.credential}"


def _approval_notes(approval: Approval, kind: str) -> Iterator[str]:
    if kind == "approval expiry":
        yield f"approval {approval.id}: {end_of_approval(approval)}"
        return
    by = f" by {', '.join(approval.by)}" if approval.by else ""
    queues = f" in {', '.join(approval.queues)}" if approval.queues else ""
    why = f": {approval.why}" if approval.why else ""
    named = approval.id or "no approval"
    yield f"approval {named} {approval.event}{by}{queues}{why}"
    yield from _answer_notes(approval) if kind == "answer" else _call_notes(approval)


def _call_notes(approval: Approval) -> Iterator[str]:
    for value in approval.endorsed:
        yield f"counts as named: {value}"
    if approval.digest:
        yield f"digest of the call: {approval.digest}"
    if approval.card_digests:
        yield f"digests of the cards that the approvers saw: {', '.join(approval.card_digests)}"


def _answer_notes(approval: Approval) -> Iterator[str]:
    proof = ", ".join(
        part
        for part in (
            approval.method,
            f"acr {approval.acr}" if approval.acr else "",
            f"passkey {approval.passkey}" if approval.passkey else "",
        )
        if part
    )
    if proof:
        yield f"answered with {proof}"
    if approval.decided_in_ms is not None:
        yield f"decided {approval.decided_in_ms / 1000:g} s after the first look"
    if approval.card_digest:
        yield f"digest of the card that the person saw: {approval.card_digest}"
    if approval.reject_reason:
        yield f"reason: {approval.reject_reason}"
    if approval.endorses:
        yield "the person endorsed the values of the call"


def end_of_approval(approval: Approval) -> str:
    """Return why the time of an approval ended it."""
    queues = ", ".join(approval.queues)
    if approval.event == "unused":
        return "approved, and the call was not made in time"
    return f"nobody answered in time for {queues}" if queues else "nobody answered in time"


def read_event(
    fields: Mapping[str, Any], place: Place, task: str = "", *, answered: bool = True
) -> TimelineEvent:
    """Read the event of a record.

    Args:
        fields: Members of the record.
        place: Place of the record.
        task: Task that a record without one belongs to.
        answered: Whether no other record of the same id stands in its place.
    """
    if is_node_record(fields):
        return _read_node_event(fields, place, task)
    given, result, labels = _map(fields, "input"), _map(fields, "result"), _map(fields, "labels")
    task_of, session, changes = _map(given, "task"), _map(given, "session"), _map(result, "changes")
    report, surface = _map(given, "report"), _text(labels, "surface")
    chain = [_text(link, "id") for link in _list(given, "chain") if isinstance(link, dict)]
    kind = _KINDS.get(surface, surface or _text(fields, "path") or "record")
    begins = kind in {"task start", "delegation"}
    return TimelineEvent(
        at=_text(fields, "timestamp"),
        kind=kind,
        decision_id=_text(fields, "decision_id"),
        task=_text(task_of, "id") or plain(task, _MOST_TEXT),
        agent=chain[-1] if chain else "",
        on_behalf_of=chain[:-1],
        operation=_text(given, "operation") or _asked(_map(given, "asked")),
        resource=_text(given, "resource"),
        destination_class=_text(given, "destination_class"),
        outcome=_text(result, "outcome"),
        code=_text(result, "reason_code"),
        message=_text(result, "message"),
        tier=_text(result, "tier"),
        place=place,
        enforced=result.get("enforced") is not False,
        probe=given.get("mode") == "PROBE",
        answered=answered,
        assignee=_text(task_of, "assignee") if begins else "",
        template=_text(task_of, "template") if begins else "",
        depth=_count(task_of.get("depth")) if begins else 0,
        kinds=_texts(result, "step_up_kinds"),
        rules=_rules(result),
        controls=_texts(result, "controls"),
        carried=_pairs_of(session, "labels"),
        remembered=_pairs_of(session, "remembered"),
        kept=_pairs_of(session, "written"),
        joins=[*_texts(changes, "labels"), *_texts(report, "labels")],
        uncleared=_texts(given, "uncleared_labels"),
        written=_texts(changes, "written"),
        arguments=_json(given.get("arguments")),
        facts=_json(given.get("facts")),
        origins={
            plain(role, _MOST_TEXT): _texts(_map(result, "origins"), role)
            for role in list(_map(result, "origins"))[:_MOST_ITEMS]
        },
        approval=_approval(result.get("approval")),
        report_of=_text(report, "decision_id"),
        report_result=_text(report, "result"),
        report_values={
            name: _count(_map(report, "values").get(name))
            for name in ("kept", "unlifted", "invalid", "full")
            if name in _map(report, "values")
        },
        exceptions=_texts(result, "exceptions"),
        breakglass=_known(_map(result, "breakglass"), "id", "ticket", "opened_by", "confirmed_by"),
        revoked=_revoked(_map(given, "revoked")),
        obligations=_texts(result, "obligations"),
        denials=_text(changes, "denials"),
        credential=_text(_map(given, "credential"), "jti"),
    )


def _read_node_event(fields: Mapping[str, Any], place: Place, task: str) -> TimelineEvent:
    """Read the event of a record of the node, which is not a decision."""
    expired = _map(fields, "expired")
    approval = _expired_approval(expired)
    ended = _text(expired, "task")
    kind = "node record"
    if "loaded" in fields:
        kind = "bundle load"
    elif "refused" in fields:
        kind = "refused load"
    elif "dropped" in fields:
        kind = "dropped records"
    elif "expired" in fields:
        kind = "task expiry" if approval is None else "approval expiry"
    return TimelineEvent(
        at=_text(fields, "timestamp"),
        kind=kind,
        decision_id=_text(fields, "decision_id"),
        task=ended or plain(task, _MOST_TEXT),
        agent="",
        on_behalf_of=[],
        operation="",
        resource="",
        destination_class="",
        outcome="",
        code="",
        message="",
        tier="",
        place=place,
        approval=approval,
        node=_text(_map(fields, "labels"), "id"),
        ended_tasks=(_count(expired.get("tasks")) or 1) if ended else 0,
        loaded=_known(_map(fields, "loaded"), "bundle", "revision", "digest", "trust"),
        refused=_known(_map(fields, "refused"), "digest", "in_use"),
        refused_for=_load_errors(_map(fields, "refused")),
        dropped=_known(_map(fields, "dropped"), "first", "last"),
        dropped_count=_count(_map(fields, "dropped").get("count")),
    )


def _load_errors(refused: Mapping[str, Any]) -> list[str]:
    """Return the errors of a refused load, with their places."""
    errors = [error for error in _list(refused, "errors")[:_MOST_ITEMS] if isinstance(error, dict)]
    return [": ".join(filter(None, (_text(one, "at"), _text(one, "message")))) for one in errors]


def _expired_approval(expired: Mapping[str, Any]) -> Approval | None:
    name = _text(expired, "approval")
    if not name:
        return None
    event = "unused" if expired.get("was_approved") is True else "expired"
    return Approval(id=name, event=event, queues=_texts(expired, "queues"))


def _asked(asked: Mapping[str, Any]) -> str:
    if operation := _text(asked, "operation"):
        return operation
    return f"{_text(asked, 'method')} {_text(asked, 'host')}{_text(asked, 'path')}".strip()


def _json(arguments: object) -> str:
    """Return arguments as JSON; empty without any."""
    if not arguments:
        return ""
    try:
        return plain(json.dumps(arguments), _MOST_ARGUMENTS)
    except RecursionError:
        return "(they nest too deeply)"


def _rules(result: Mapping[str, Any]) -> list[str]:
    rules = []
    for rule in _list(result, "rules"):
        if not isinstance(rule, dict):
            continue
        file, line = _text(rule, "file"), rule.get("line")
        at = f" ({file}:{line})" if file and isinstance(line, int) else ""
        rules.append(f"{_text(rule, 'kind').replace('_', ' ')} {_text(rule, 'name')}{at}")
    return rules or [f"policy {name}" for name in _texts(result, "policies")]


def _approval(value: object) -> Approval | None:
    if not isinstance(value, dict):
        return None
    decided = value.get("decided_in_ms")
    is_count = isinstance(decided, int) and not isinstance(decided, bool)
    return Approval(
        id=_text(value, "id"),
        event=_text(value, "event"),
        by=_texts(value, "by"),
        queues=_texts(value, "queues"),
        why=_text(value, "why"),
        method=_text(value, "method"),
        acr=_text(value, "acr"),
        passkey=_text(value, "passkey"),
        card_digest=_text(value, "card_digest"),
        decided_in_ms=_count(decided) if is_count else None,
        reject_reason=_text(value, "reject_reason"),
        endorses=value.get("endorses") is True,
        endorsed=[
            f"{_text(item, 'role')} in {_text(item, 'collection')}, endorsed by approval {_text(item, 'approval_id')}"
            for item in _list(value, "endorsed")
            if isinstance(item, dict)
        ],
        digest=_text(value, "digest"),
        card_digests=_texts(value, "card_digests"),
    )


def _revoked(value: Mapping[str, Any]) -> dict[str, str]:
    known = _known(value, "target", "value", "reason", "by")
    return {**known, "undo": "true"} if known and value.get("undo") is True else known


def _known(value: Mapping[str, Any], *names: str) -> dict[str, str]:
    return {name: _text(value, name) for name in names if _text(value, name)}


def _pairs_of(fields: Mapping[str, Any], name: str) -> dict[str, str]:
    pairs = list(_map(fields, name).items())[:_MOST_ITEMS]
    return {
        plain(label, _MOST_TEXT): plain(decision, _MOST_TEXT)
        for label, decision in pairs
        if isinstance(decision, str)
    }


def _pairs(pairs: Mapping[str, str]) -> str:
    return ", ".join(f"{label} (from {decision})" for label, decision in pairs.items())


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        return 0
    return value if 0 <= value < 2**53 else 0


def _map(fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = fields.get(name)
    return value if isinstance(value, dict) else {}


def _list(fields: Mapping[str, Any], name: str) -> Sequence[Any]:
    value = fields.get(name)
    return value[:_MOST_ITEMS] if isinstance(value, list) else ()


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return plain(value, _MOST_TEXT) if isinstance(value, str) else ""


def _texts(fields: Mapping[str, Any], name: str) -> list[str]:
    return [plain(item, _MOST_TEXT) for item in _list(fields, name) if isinstance(item, str)]


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {name: _without_empty(item) for name, item in value.items()}
        return {name: item for name, item in kept.items() if item not in ("", [], {}, None)}
    return value

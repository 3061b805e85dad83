"""A decision, read from its audit record.

Reading is lenient, since another version may have written the record: a missing member, or one of another type, reads as empty.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

__all__ = [
    "ChainLink",
    "RecordedDecision",
    "RecordedRule",
    "RecordedTask",
    "UnresolvedRequest",
    "is_node_record",
    "read_decision",
]

_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_MAX_TEXT: Final = 4_096
_MAX_LIST: Final = 256
_MOST_TIMES: Final = 2**53


@dataclass(frozen=True, slots=True)
class ChainLink:
    """A verified principal."""

    kind: str
    """`Agent`, `User` or `Service`."""
    id: str
    """SPIFFE id, or `<issuer alias>/<sub>`."""
    roles: tuple[str, ...] | None
    """Roles in the bundle that judged; None if the record does not say."""
    claims: Mapping[str, Any]
    """Claims; strings are digests."""


@dataclass(frozen=True, slots=True)
class UnresolvedRequest:
    """Request for which no operation was found."""

    operation: str = ""
    """Operation id that is not in the catalog."""
    method: str = ""
    """Method of an HTTP request that no route matches."""
    host: str = ""
    """Its host."""
    path: str = ""
    """Form of its path, for example `/tickets/{digits}`."""
    query: tuple[str, ...] = ()
    """Names of the query parameters."""
    body: bool = False
    """It had a body."""


@dataclass(frozen=True, slots=True)
class RecordedTask:
    """The task of a call."""

    session: str
    """Id of its session, which all tasks below one root share."""
    kind: str
    """`root`, `child`, or `implicit` for an agent without tasks."""
    depth: int
    """Number of tasks above it."""


@dataclass(frozen=True, slots=True)
class RecordedRule:
    """A rule that determined an outcome."""

    kind: str
    """Kind, for example `policy` or `tier_cap`."""
    name: str
    """Name within its kind."""
    at: str
    """`file:line`; empty for a default and for a check of Authz."""

    def __str__(self) -> str:
        kind = self.kind.replace("_", " ")
        return f"{kind} {self.name} ({self.at})" if self.at else f"{kind} {self.name}"


@dataclass(frozen=True, slots=True)
class RecordedDecision:
    """One decision."""

    decision_id: str
    """Its id."""
    at: str
    """RFC 3339 in UTC with milliseconds, so that texts compare as times do; empty where the record has none."""
    node: str
    """The server."""
    surface: str
    """API method, for example `check` or `ext_authz`."""
    bundle: str
    """Name of the bundle."""
    revision: str
    """Its revision."""
    digest: str
    """Its digest."""
    enforcer: str
    """Enforcer that asked; empty if the caller asked about itself."""
    probe: bool
    """The request was a probe: nothing was to be done."""
    chain: tuple[ChainLink, ...]
    """Subject first, the caller last."""
    operation: str
    """Operation id; empty if the operation is not in the catalog."""
    unresolved: UnresolvedRequest | None
    """Request, if no operation was found for it."""
    resource: str
    """Resource that the operation acts on."""
    destination_class: str
    """Class of the destination."""
    arguments: Any
    """Arguments; strings are digests."""
    outcome: str
    """`PERMIT`, `STEP_UP` or `DENY`."""
    code: str
    """The reason code."""
    next_action: str
    """Next action of the caller."""
    retry: str
    """`never`, `later` or `after_change`."""
    enforced: bool
    """False if `mode: observe` let the call through."""
    step: str
    """The step that decided."""
    tier: str
    """The tier."""
    kinds: tuple[str, ...]
    """Kinds of a step-up."""
    endorsed: tuple[tuple[str, str, str], ...]
    """Role, collection and approval of each value that counts as named because a person endorsed it."""
    policies: tuple[str, ...]
    """Policies that determined the outcome."""
    places: tuple[str, ...]
    """`file:line` of each of these policies."""
    message: str
    """Message for people; programs must not read it."""
    trace_id: str
    """Trace id."""
    rules: tuple[RecordedRule, ...] = ()
    """Rules that determined a denial or a step-up, policies included; empty where the record does not tell."""
    without_permit: tuple[tuple[str, str], ...] = ()
    """Kind and id of each principal that no permit fired for; empty where the record does not tell."""
    times: int = 1
    """Number of refusals that the record stands for; more than one only in a sum."""
    is_sum: bool = False
    """The record is a sum of refusals that have no records of their own; a sum has no request."""
    task: RecordedTask | None = None
    """Task of the call; None without one."""
    session: str = ""
    """Id of the session of the call: that of its task, else the one that the call names; empty without one."""
    controls: tuple[str, ...] = ()
    """Ids of `@control` of the policies that determined the outcome."""
    observed: tuple[tuple[str, str, str], ...] = ()
    """Policies with `@mode("observe")` that would have changed the outcome: name, `file:line`, and the outcome."""

    @property
    def agent(self) -> str:
        """Id of the caller; empty if no credential was verified."""
        return self.chain[-1].id if self.chain else ""

    @property
    def unpermitted(self) -> tuple[ChainLink, ...]:
        """The principals that no permit fired for; the whole chain where the record does not tell."""
        links = tuple(link for link in self.chain if (link.kind, link.id) in self.without_permit)
        return links or self.chain

    @property
    def requested(self) -> str:
        """Operation id as requested, or method, host and path of a request without an operation."""
        if self.operation or self.unresolved is None:
            return self.operation
        if self.unresolved.operation:
            return self.unresolved.operation
        return f"{self.unresolved.method} {self.unresolved.host}{self.unresolved.path}"


def is_node_record(fields: Mapping[str, Any]) -> bool:
    """Return whether a record is not of decisions, but of the node itself: `loaded`, `refused`, `expired`, `heads` or `dropped`.

    A record without `result` and without `sum` is one, since a later version may write further kinds.
    """
    return "result" not in fields and "sum" not in fields


def read_decision(fields: Mapping[str, Any]) -> RecordedDecision:
    """Read a decision from the members of its record."""
    given, result, labels = _map(fields, "input"), _map(fields, "result"), _map(fields, "labels")
    bundles = _map(fields, "bundles")
    bundle = next(iter(bundles), "")
    stated = _map(bundles, bundle)
    moment = _text(fields, "timestamp")
    return RecordedDecision(
        decision_id=_text(fields, "decision_id"),
        at=moment if _MOMENT.fullmatch(moment) else "",
        node=_text(labels, "id"),
        surface=_text(labels, "surface"),
        bundle=str(bundle)[:_MAX_TEXT],
        revision=_text(stated, "revision"),
        digest=_text(stated, "digest"),
        enforcer=_enforcer(given.get("enforcer")),
        probe=given.get("mode") == "PROBE",
        chain=tuple(_link(item) for item in _list(given, "chain") if isinstance(item, dict)),
        operation=_text(given, "operation"),
        unresolved=_unresolved(given.get("asked")),
        resource=_text(given, "resource"),
        destination_class=_text(given, "destination_class"),
        arguments=given.get("arguments"),
        outcome=_text(result, "outcome"),
        code=_text(result, "reason_code"),
        next_action=_text(result, "next_action"),
        retry=_text(result, "retry"),
        enforced=result.get("enforced") is not False,
        step=_text(result, "step"),
        tier=_text(result, "tier"),
        kinds=_texts(result, "step_up_kinds"),
        endorsed=tuple(
            (_text(item, "role"), _text(item, "collection"), _text(item, "approval_id"))
            for item in _list(_map(result, "approval"), "endorsed")
            if isinstance(item, dict)
        ),
        policies=_texts(result, "policies"),
        places=_texts(result, "policies_at"),
        message=_text(result, "message"),
        trace_id=_text(fields, "trace_id"),
        rules=tuple(
            RecordedRule(_text(item, "kind"), _text(item, "name"), _place(item))
            for item in _list(result, "rules")
            if isinstance(item, dict)
        ),
        without_permit=tuple(
            (_text(item, "kind"), _text(item, "id"))
            for item in _list(result, "without_permit")
            if isinstance(item, dict)
        ),
        times=_times(fields),
        is_sum="sum" in fields,
        task=(task := _task(given.get("task"))),
        session=task.session if task is not None else _text(_map(given, "session"), "id"),
        controls=_texts(result, "controls"),
        observed=tuple(
            (_text(item, "policy"), _text(item, "at"), _text(item, "outcome"))
            for item in _list(result, "observed")
            if isinstance(item, dict)
        ),
    )


def _place(rule: Mapping[str, Any]) -> str:
    file, line = _text(rule, "file"), rule.get("line")
    return f"{file}:{line}" if file and isinstance(line, int) else file


def _task(value: object) -> RecordedTask | None:
    if not isinstance(value, dict) or not (session := _text(value, "session")):
        return None
    depth = value.get("depth")
    levels = depth if isinstance(depth, int) and not isinstance(depth, bool) else 0
    return RecordedTask(session, _text(value, "kind"), max(levels, 0))


def _times(fields: Mapping[str, Any]) -> int:
    count = _map(fields, "sum").get("count", 1)
    return count if isinstance(count, int) and 0 < count < _MOST_TIMES else 1


def _link(item: Mapping[str, Any]) -> ChainLink:
    roles = _texts(item, "roles") if isinstance(item.get("roles"), list) else None
    return ChainLink(_text(item, "kind"), _text(item, "id"), roles, _map(item, "claims"))


def _unresolved(value: object) -> UnresolvedRequest | None:
    if not isinstance(value, dict):
        return None
    return UnresolvedRequest(
        operation=_text(value, "operation"),
        method=_text(value, "method"),
        host=_text(value, "host"),
        path=_text(value, "path"),
        query=_texts(value, "query"),
        body=value.get("body") is True,
    )


def _enforcer(value: object) -> str:
    """Return the name of an entry: the text itself, or the member `name` of a later version's object."""
    if isinstance(value, dict):
        return _text(value, "name")
    return value[:_MAX_TEXT] if isinstance(value, str) else ""


def _map(fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = fields.get(name)
    return value if isinstance(value, dict) else {}


def _list(fields: Mapping[str, Any], name: str) -> Sequence[Any]:
    value = fields.get(name)
    return value[:_MAX_LIST] if isinstance(value, list) else ()


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return value[:_MAX_TEXT] if isinstance(value, str) else ""


def _texts(fields: Mapping[str, Any], name: str) -> tuple[str, ...]:
    return tuple(item[:_MAX_TEXT] for item in _list(fields, name) if isinstance(item, str))

"""A decision as its record tells it, read leniently: what another version wrote is kept, and what is no record of ours is empty."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["Asked", "Link", "Past", "past"]

_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_MAX_TEXT: Final = 4_096
_MAX_LIST: Final = 256
_MOST_TIMES: Final = 2**53


@dataclass(frozen=True, slots=True)
class Link:
    """A verified principal."""

    kind: str
    """`Agent`, `User` or `Service`."""
    id: str
    """SPIFFE id, or `<issuer alias>/<sub>`."""
    roles: tuple[str, ...] | None
    """In the bundle that judged; none where the record does not say."""
    claims: Mapping[str, Any]
    """Claims, texts as digests."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for, where no operation was found."""

    operation: str = ""
    """An operation that is not in the catalog."""
    method: str = ""
    """Of an HTTP request that no route matches."""
    host: str = ""
    """Its host."""
    path: str = ""
    """The form of its path: `/tickets/{digits}`."""
    query: tuple[str, ...] = ()
    """Names of the query's members."""
    body: bool = False
    """It had a body."""


@dataclass(frozen=True, slots=True)
class Past:
    """One decision."""

    decision_id: str
    """Its id."""
    at: str
    """RFC 3339 in UTC with milliseconds, so that texts compare as times do; empty where the record has none."""
    node: str
    """The server."""
    surface: str
    """By which protocol it was asked for."""
    bundle: str
    """Name of the bundle."""
    revision: str
    """Its revision."""
    digest: str
    """Its digest."""
    enforcer: str
    """Who asked; empty where the caller asked about itself."""
    probe: bool
    """Nothing was to be done."""
    chain: tuple[Link, ...]
    """Subject first, the caller last."""
    operation: str
    """As resolved; empty where it is not in the catalog."""
    asked: Asked | None
    """What was asked for, where no operation was found."""
    resource: str
    """What it would act on."""
    destination_class: str
    """Where its data would go."""
    arguments: Any
    """What policies could read, texts as digests."""
    outcome: str
    """What was judged: `PERMIT`, `STEP_UP` or `DENY`."""
    code: str
    """The reason code."""
    next_action: str
    """What the caller can do."""
    retry: str
    """Whether asking again helps."""
    enforced: bool
    """False where `mode: observe` let it through."""
    step: str
    """The step that decided."""
    tier: str
    """The tier."""
    kinds: tuple[str, ...]
    """What a step-up asks for."""
    policies: tuple[str, ...]
    """Policies that determined the outcome."""
    places: tuple[str, ...]
    """`file:line` of each, as far as the record says."""
    message: str
    """What happened, in one line."""
    trace_id: str
    """Of the trace that it belongs to."""
    without_permit: tuple[tuple[str, str], ...] = ()
    """Kind and id of each principal that no permit fired for; empty where the record does not tell."""
    times: int = 1
    """How many refusals the record is of; more than one only of a sum, which has no request."""
    is_sum: bool = False
    """It is the sum of refusals that have no record of their own."""

    @property
    def agent(self) -> str:
        """The caller's id; empty where nobody proved to be one."""
        return self.chain[-1].id if self.chain else ""

    @property
    def unpermitted(self) -> tuple[Link, ...]:
        """The principals that no permit fired for; the whole chain where the record does not tell."""
        links = tuple(link for link in self.chain if (link.kind, link.id) in self.without_permit)
        return links or self.chain

    @property
    def what(self) -> str:
        """The operation, or what was asked for instead of one."""
        if self.operation or self.asked is None:
            return self.operation
        if self.asked.operation:
            return self.asked.operation
        return f"{self.asked.method} {self.asked.host}{self.asked.path}"


def past(fields: Mapping[str, Any]) -> Past:
    """Read a decision from its record.

    Args:
        fields: The record.

    Returns:
        The decision; what the record does not say, or says in another form, is empty.
    """
    given, result, labels = _map(fields, "input"), _map(fields, "result"), _map(fields, "labels")
    bundles = _map(fields, "bundles")
    bundle = next(iter(bundles), "")
    stated = _map(bundles, bundle)
    moment = _text(fields, "timestamp")
    return Past(
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
        asked=_asked(given.get("asked")),
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
        policies=_texts(result, "policies"),
        places=_texts(result, "policies_at"),
        message=_text(result, "message"),
        trace_id=_text(fields, "trace_id"),
        without_permit=tuple(
            (_text(item, "kind"), _text(item, "id"))
            for item in _list(result, "without_permit")
            if isinstance(item, dict)
        ),
        times=_times(fields),
        is_sum="sum" in fields,
    )


def _times(fields: Mapping[str, Any]) -> int:
    count = _map(fields, "sum").get("count", 1)
    return count if isinstance(count, int) and 0 < count < _MOST_TIMES else 1


def _link(item: Mapping[str, Any]) -> Link:
    roles = _texts(item, "roles") if isinstance(item.get("roles"), list) else None
    return Link(_text(item, "kind"), _text(item, "id"), roles, _map(item, "claims"))


def _asked(value: object) -> Asked | None:
    if not isinstance(value, dict):
        return None
    return Asked(
        operation=_text(value, "operation"),
        method=_text(value, "method"),
        host=_text(value, "host"),
        path=_text(value, "path"),
        query=_texts(value, "query"),
        body=value.get("body") is True,
    )


def _enforcer(value: object) -> str:
    """Its name, or the name within what a later version says of it."""
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

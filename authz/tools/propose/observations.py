"""Recorded requests that the bundle does not cover, counted in bounded memory."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from authz.audit import ChainLink, RecordedDecision, UnresolvedRequest
from authz.model import system_of

__all__ = [
    "BoundedEntries",
    "Count",
    "MissingOperation",
    "Observations",
    "ObservedAgent",
    "ObservedSubjects",
    "UnpermittedOperation",
    "UnroutedRequest",
]

MOST: Final = 2_000
"""Entries of each kind at most; occurrences of further ones are only summed up."""
_MOST_STRANGE: Final = 200
_MOST_NAMES: Final = 64
_MOST_SUBJECTS: Final = 10_000

_OPERATION: Final = re.compile(
    r"(?=.{1,256}\Z)[a-z0-9][a-z0-9_-]{0,127}\.[A-Za-z0-9][A-Za-z0-9._/-]{0,200}"
)
_METHOD: Final = re.compile(r"[A-Z]{1,32}")
_LABEL: Final = r"[a-z0-9_-]{1,63}"
_HOST: Final = re.compile(
    rf"(?=[^:]{{1,253}}(?::|\Z))(?![_-]){_LABEL}(?:\.{_LABEL})*(?::([0-9]{{1,5}}))?"
)
_MOST_PORT: Final = 65_535
# No segment of a route ends in a dot.
_PIECE: Final = r"(?:[A-Za-z0-9._~-]{0,31}[A-Za-z0-9_~-]|\{(?:digits|uuid|hex|text)\})"
_PATH: Final = re.compile(rf"/(?:{_PIECE}/){{0,16}}{_PIECE}?")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9._~-]{0,31}")
_SPIFFE: Final = re.compile(
    r"(?=.{1,2048}\Z)spiffe://[a-z0-9._-]{1,255}(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]{1,255}){1,32}"
)
_ALIAS: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_ROLE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,255}")
_UNPERMITTED: Final = frozenset({"NOT_PERMITTED", "CHAIN_NOT_PERMITTED"})


@dataclass(slots=True)
class Count:
    """Number of occurrences, with the first and the last timestamp."""

    times: int = 0
    """Occurrences."""
    first: str = ""
    """First timestamp."""
    last: str = ""
    """Last timestamp."""

    def record(self, at: str) -> None:
        """Count one occurrence at a timestamp; empty: unknown."""
        self.times += 1
        if at:
            self.first = min(self.first or at, at)
            self.last = max(self.last, at)

    def merge(self, other: "Count") -> None:
        """Add the occurrences of another count."""
        self.times += other.times
        if other.first:
            self.first = min(self.first or other.first, other.first)
            self.last = max(self.last, other.last)


Key = TypeVar("Key")
Entry = TypeVar("Entry")


@dataclass(slots=True)
class BoundedEntries(Generic[Key, Entry]):
    """At most `most` entries by key; one caller brings at most half of the entries that the others leave."""

    make: Callable[[], Entry]
    """Makes an empty entry."""
    most: int = MOST
    """Entries at most."""
    entries: dict[Key, Entry] = field(default_factory=dict)
    """Entries by key."""
    left_out: int = 0
    """Occurrences beyond the limit."""
    shares: dict[str, int] = field(default_factory=dict)
    """Number of entries by caller."""

    def at(self, key: Key, caller: str = "") -> Entry | None:
        """Return the entry of a key, made if there is room; None otherwise.

        The share of a caller is bounded, so that no caller takes the room of all others.
        """
        if (found := self.entries.get(key)) is not None:
            return found
        share = self.shares.get(caller, 0)
        room = self.most - (len(self.entries) - share)
        if len(self.entries) >= self.most or (caller and share >= (room + 1) // 2):
            self.left_out += 1
            return None
        self.shares[caller] = share + 1
        entry = self.entries[key] = self.make()
        return entry


@dataclass(slots=True)
class UnroutedRequest:
    """An HTTP request that no route matches."""

    count: Count = field(default_factory=Count)
    """Occurrences."""
    query: set[str] = field(default_factory=set)
    """Names of the query parameters; `{…}` for one that is not a name."""
    body: bool = False
    """At least one request had a body."""


@dataclass(slots=True)
class MissingOperation:
    """An operation that is not in the catalog, or not reviewed."""

    count: Count = field(default_factory=Count)
    """Occurrences."""
    callers: set[str] = field(default_factory=set)
    """Callers that asked for it."""


@dataclass(slots=True)
class ObservedAgent:
    """An agent."""

    count: Count = field(default_factory=Count)
    """Its decisions."""
    roles: tuple[str, ...] | None = None
    """Roles in its last record; None if the records do not say."""


@dataclass(slots=True)
class ObservedSubjects:
    """Subjects of one issuer that have no role."""

    count: Count = field(default_factory=Count)
    """Decisions for one of the subjects."""
    ids: set[bytes] = field(default_factory=set)
    """Digests of their ids, up to a bound."""
    claims: dict[str, set[str]] = field(default_factory=dict)
    """Digests of values by claim."""


@dataclass(slots=True)
class UnpermittedOperation:
    """An operation that `mode: observe` let through although no policy permits it."""

    count: Count = field(default_factory=Count)
    """Occurrences."""
    callers: set[str] = field(default_factory=set)
    """Agents that asked for it."""


@dataclass(slots=True)
class Observations:
    """Everything that was counted."""

    all: Count = field(default_factory=Count)
    """Decisions."""
    requests: BoundedEntries[tuple[str, str, str], UnroutedRequest] = field(
        default_factory=lambda: BoundedEntries(UnroutedRequest)
    )
    """By method, host and form of the path."""
    unknown: BoundedEntries[str, MissingOperation] = field(
        default_factory=lambda: BoundedEntries(MissingOperation)
    )
    """Operations that are not in the catalog."""
    unreviewed: BoundedEntries[tuple[str, str], MissingOperation] = field(
        default_factory=lambda: BoundedEntries(MissingOperation)
    )
    """Operations that nobody reviewed, or that changed since: by code and id."""
    agents: BoundedEntries[str, ObservedAgent] = field(
        default_factory=lambda: BoundedEntries(ObservedAgent)
    )
    """By SPIFFE id."""
    subjects: BoundedEntries[tuple[str, str], ObservedSubjects] = field(
        default_factory=lambda: BoundedEntries(ObservedSubjects)
    )
    """By issuer and kind."""
    roles: BoundedEntries[str, Count] = field(default_factory=lambda: BoundedEntries(Count))
    """By role that a principal had."""
    refused: BoundedEntries[tuple[str, str, str], UnpermittedOperation] = field(
        default_factory=lambda: BoundedEntries(UnpermittedOperation)
    )
    """By kind of the principal without a permit, its role (or id, where it has none) and operation."""
    passed: BoundedEntries[tuple[str, str], Count] = field(
        default_factory=lambda: BoundedEntries(Count)
    )
    """Calls that `mode: observe` let through, by code and operation."""
    systems: set[str] = field(default_factory=set)
    """Systems that have an operation in the catalog."""
    strange: BoundedEntries[str, Count] = field(
        default_factory=lambda: BoundedEntries(Count, most=_MOST_STRANGE)
    )
    """Requests and operations of callers without a verified identity."""
    unreadable: Count = field(default_factory=Count)
    """Requests whose recorded form no bundle can contain."""

    def add(self, decision: RecordedDecision) -> None:
        """Count a decision."""
        # A sum has no request, and its callers proved nothing.
        if decision.probe or decision.is_sum:
            return
        self.all.record(decision.at)
        self._add_request(decision)
        for link in decision.chain:
            self._add_principal(link, decision.at)
        if decision.enforced:
            return
        if (passed := self.passed.at((decision.code, decision.operation))) is not None:
            passed.record(decision.at)
        if decision.code in _UNPERMITTED and _OPERATION.fullmatch(decision.operation):
            self._add_unpermitted(decision)

    def _add_request(self, decision: RecordedDecision) -> None:
        caller = decision.agent
        if _OPERATION.fullmatch(decision.operation) and len(self.systems) < MOST:
            self.systems.add(system_of(decision.operation))
        if decision.unresolved is not None and not decision.chain:
            self._add_stranger(decision.unresolved, decision.at)
        elif decision.unresolved is not None:
            self._add_missing(decision.unresolved, decision.at, caller)
        elif decision.code in {"UNREVIEWED_OPERATION", "CATALOG_DRIFT"}:
            if not _OPERATION.fullmatch(decision.operation):
                self.unreadable.record(decision.at)
            elif found := self.unreviewed.at((decision.code, decision.operation), caller):
                found.count.record(decision.at)
                _note(found.callers, caller)

    def _add_missing(self, request: UnresolvedRequest, at: str, caller: str) -> None:
        if not _fits(request):
            self.unreadable.record(at)
        elif request.operation:
            if found := self.unknown.at(request.operation, caller):
                found.count.record(at)
                _note(found.callers, caller)
        elif unrouted := self.requests.at((request.method, request.host, request.path), caller):
            unrouted.count.record(at)
            unrouted.body = unrouted.body or request.body
            for name in request.query:
                _note(unrouted.query, name if _NAME.fullmatch(name) else "{…}")

    def _add_stranger(self, request: UnresolvedRequest, at: str) -> None:
        """Count a request of a stranger apart: it must not change the proposals for verified callers."""
        if not _fits(request):
            self.unreadable.record(at)
            return
        name = request.operation or f"{request.method} {request.host}{request.path}"
        if (count := self.strange.at(name)) is not None:
            count.record(at)

    def _add_principal(self, link: ChainLink, at: str) -> None:
        for role in link.roles or ():
            if _ROLE.fullmatch(role) and (count := self.roles.at(role)) is not None:
                count.record(at)
        if link.kind == "Agent" and _SPIFFE.fullmatch(link.id):
            if (agent := self.agents.at(link.id)) is not None:
                agent.count.record(at)
                agent.roles = link.roles
            return
        if link.kind in {"User", "Service"} and link.roles == ():
            self._add_subject(link, at)

    def _add_subject(self, link: ChainLink, at: str) -> None:
        issuer, _, sub = link.id.partition("/")
        if not _ALIAS.fullmatch(issuer):
            return
        if (subjects := self.subjects.at((issuer, link.kind))) is None:
            return
        subjects.count.record(at)
        if len(subjects.ids) < _MOST_SUBJECTS:
            subjects.ids.add(hashlib.blake2b(sub.encode(errors="replace"), digest_size=8).digest())
        for name, value in link.claims.items():
            kept = name in subjects.claims or len(subjects.claims) < _MOST_NAMES
            if kept and _NAME.fullmatch(name):
                values = subjects.claims.setdefault(name, set())
                for text in value if isinstance(value, list) else [value]:
                    _note(values, str(text)[:80])

    def _add_unpermitted(self, decision: RecordedDecision) -> None:
        for link in decision.unpermitted:
            if link.kind not in {"Agent", "User", "Service"}:
                continue
            roles = [role for role in link.roles or () if _ROLE.fullmatch(role)]
            fits = _SPIFFE.fullmatch(link.id) or link.kind != "Agent"
            key = roles[0] if roles else link.id
            if not fits:
                continue
            kind = "Role" if roles else link.kind
            if found := self.refused.at((kind, key, decision.operation), decision.agent):
                found.count.record(decision.at)
                _note(found.callers, decision.agent)


def _fits(request: UnresolvedRequest) -> bool:
    """Return whether a bundle can contain the operation or the route of a request."""
    if request.operation:
        is_ours = request.operation.startswith("authz.")
        return _OPERATION.fullmatch(request.operation) is not None and not is_ours
    if not _METHOD.fullmatch(request.method) or not _PATH.fullmatch(request.path):
        return False
    host = _HOST.fullmatch(request.host)
    return not request.host or (host is not None and 0 < int(host[1] or _MOST_PORT) <= _MOST_PORT)


def _note(names: set[str], name: str) -> None:
    if name and len(names) < _MOST_NAMES:
        names.add(name)

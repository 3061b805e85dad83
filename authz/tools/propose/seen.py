"""What the audit saw that the bundle does not speak of: counted in bounded memory, whatever the length of the audit."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from authz.audit import Asked, Link, Past

__all__ = ["Caller", "Count", "Counted", "Missing", "Refused", "Request", "Seen", "Subjects"]

MOST: Final = 2_000
"""Entries of each kind that are counted; others are only counted together."""
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
    """How often something was seen, and when."""

    times: int = 0
    """How often."""
    first: str = ""
    """The first moment."""
    last: str = ""
    """The last."""

    def see(self, at: str) -> None:
        """Count it once more.

        Args:
            at: When; empty: unknown.
        """
        self.times += 1
        if at:
            self.first = min(self.first or at, at)
            self.last = max(self.last, at)

    def add(self, other: "Count") -> None:
        """Take another count in.

        Args:
            other: The other.
        """
        self.times += other.times
        if other.first:
            self.first = min(self.first or other.first, other.first)
            self.last = max(self.last, other.last)


Key = TypeVar("Key")
Entry = TypeVar("Entry")


@dataclass(slots=True)
class Counted(Generic[Key, Entry]):
    """Entries by key, no more than `most`, and of one caller no more than half of what the others leave."""

    make: Callable[[], Entry]
    """Makes an empty one."""
    most: int = MOST
    """Entries at most."""
    entries: dict[Key, Entry] = field(default_factory=dict)
    """Those that are kept."""
    left_out: int = 0
    """How often one was seen that is not."""
    shares: dict[str, int] = field(default_factory=dict)
    """How many entries each caller brought."""

    def at(self, key: Key, caller: str = "") -> Entry | None:
        """Find the entry of a key, or make it.

        Args:
            key: The key.
            caller: Who brings it. Nobody can take the room of all others.

        Returns:
            The entry; None where there is no more room.
        """
        if (found := self.entries.get(key)) is not None:
            return found
        share = self.shares.get(caller, 0)
        room = self.most - (len(self.entries) - share)
        if len(self.entries) >= self.most or (caller and share >= (room + 1) // 2):
            self.left_out += 1
            return None
        self.shares[caller] = share + 1
        made = self.entries[key] = self.make()
        return made


@dataclass(slots=True)
class Request:
    """An HTTP request that no route matches."""

    count: Count = field(default_factory=Count)
    """How often."""
    query: set[str] = field(default_factory=set)
    """Names of the query's members; what is no name stands as `{…}`."""
    body: bool = False
    """One of them had a body."""


@dataclass(slots=True)
class Missing:
    """An operation that the catalog does not have, or that nobody reviewed."""

    count: Count = field(default_factory=Count)
    """How often."""
    callers: set[str] = field(default_factory=set)
    """Who asked for it."""


@dataclass(slots=True)
class Caller:
    """An agent."""

    count: Count = field(default_factory=Count)
    """How often it asked."""
    roles: tuple[str, ...] | None = None
    """Those of its last record; none where records do not say."""


@dataclass(slots=True)
class Subjects:
    """Subjects of one issuer that hold no role."""

    count: Count = field(default_factory=Count)
    """How often one of them was acted for."""
    ids: set[bytes] = field(default_factory=set)
    """Digests of their ids, as far as they are kept."""
    claims: dict[str, set[str]] = field(default_factory=dict)
    """Names of claims, and the digests of their texts."""


@dataclass(slots=True)
class Refused:
    """An operation that observe let through although no policy permits it."""

    count: Count = field(default_factory=Count)
    """How often."""
    callers: set[str] = field(default_factory=set)
    """Agents that asked for it."""


@dataclass(slots=True)
class Seen:
    """Everything that was seen."""

    all: Count = field(default_factory=Count)
    """Decisions."""
    requests: Counted[tuple[str, str, str], Request] = field(
        default_factory=lambda: Counted(Request)
    )
    """By method, host and form of the path."""
    unknown: Counted[str, Missing] = field(default_factory=lambda: Counted(Missing))
    """Operations that are not in the catalog."""
    unreviewed: Counted[tuple[str, str], Missing] = field(default_factory=lambda: Counted(Missing))
    """Operations that nobody reviewed, or that changed since: by code and id."""
    agents: Counted[str, Caller] = field(default_factory=lambda: Counted(Caller))
    """By SPIFFE id."""
    subjects: Counted[tuple[str, str], Subjects] = field(default_factory=lambda: Counted(Subjects))
    """By issuer and kind."""
    roles: Counted[str, Count] = field(default_factory=lambda: Counted(Count))
    """Roles that were held."""
    refused: Counted[tuple[str, str, str], Refused] = field(
        default_factory=lambda: Counted(Refused)
    )
    """By kind of the principal without a permit, its role (or id, where it has none) and operation."""
    passed: Counted[tuple[str, str], Count] = field(default_factory=lambda: Counted(Count))
    """All that observe let through, by code and operation."""
    systems: set[str] = field(default_factory=set)
    """Systems that have an operation in the catalog."""
    strange: Counted[str, Count] = field(default_factory=lambda: Counted(Count, most=_MOST_STRANGE))
    """Requests and operations that callers of whom nothing was verified asked for."""
    unreadable: Count = field(default_factory=Count)
    """Requests of which the record holds no form that a bundle could have."""

    def see(self, decision: Past) -> None:
        """Take a decision in.

        Args:
            decision: The decision.
        """
        # A sum has no request, and its callers proved nothing.
        if decision.probe or decision.is_sum:
            return
        self.all.see(decision.at)
        self._asked(decision)
        for link in decision.chain:
            self._principal(link, decision.at)
        if decision.enforced:
            return
        if (passed := self.passed.at((decision.code, decision.operation))) is not None:
            passed.see(decision.at)
        if decision.code in _UNPERMITTED and _OPERATION.fullmatch(decision.operation):
            self._refused(decision)

    def _asked(self, decision: Past) -> None:
        caller = decision.agent
        if _OPERATION.fullmatch(decision.operation) and len(self.systems) < MOST:
            self.systems.add(decision.operation.partition(".")[0])
        if decision.asked is not None and not decision.chain:
            self._strange(decision.asked, decision.at)
        elif decision.asked is not None:
            self._missing(decision.asked, decision.at, caller)
        elif decision.code in {"UNREVIEWED_OPERATION", "CATALOG_DRIFT"}:
            if not _OPERATION.fullmatch(decision.operation):
                self.unreadable.see(decision.at)
            elif found := self.unreviewed.at((decision.code, decision.operation), caller):
                found.count.see(decision.at)
                _note(found.callers, caller)

    def _missing(self, asked: Asked, at: str, caller: str) -> None:
        if not _fits(asked):
            self.unreadable.see(at)
        elif asked.operation:
            if found := self.unknown.at(asked.operation, caller):
                found.count.see(at)
                _note(found.callers, caller)
        elif request := self.requests.at((asked.method, asked.host, asked.path), caller):
            request.count.see(at)
            request.body = request.body or asked.body
            for name in asked.query:
                _note(request.query, name if _NAME.fullmatch(name) else "{…}")

    def _strange(self, asked: Asked, at: str) -> None:
        """Count what a stranger asked for apart: it must change nothing of what is proposed for callers that are known."""
        if not _fits(asked):
            self.unreadable.see(at)
            return
        shown = asked.operation or f"{asked.method} {asked.host}{asked.path}"
        if (count := self.strange.at(shown)) is not None:
            count.see(at)

    def _principal(self, link: Link, at: str) -> None:
        for role in link.roles or ():
            if _ROLE.fullmatch(role) and (count := self.roles.at(role)) is not None:
                count.see(at)
        if link.kind == "Agent" and _SPIFFE.fullmatch(link.id):
            if (agent := self.agents.at(link.id)) is not None:
                agent.count.see(at)
                agent.roles = link.roles
            return
        if link.kind in {"User", "Service"} and link.roles == ():
            self._subject(link, at)

    def _subject(self, link: Link, at: str) -> None:
        issuer, _, sub = link.id.partition("/")
        if not _ALIAS.fullmatch(issuer):
            return
        if (subjects := self.subjects.at((issuer, link.kind))) is None:
            return
        subjects.count.see(at)
        if len(subjects.ids) < _MOST_SUBJECTS:
            subjects.ids.add(hashlib.blake2b(sub.encode(errors="replace"), digest_size=8).digest())
        for name, value in link.claims.items():
            kept = name in subjects.claims or len(subjects.claims) < _MOST_NAMES
            if kept and _NAME.fullmatch(name):
                values = subjects.claims.setdefault(name, set())
                for text in value if isinstance(value, list) else [value]:
                    _note(values, str(text)[:80])

    def _refused(self, decision: Past) -> None:
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
                found.count.see(decision.at)
                _note(found.callers, decision.agent)


def _fits(asked: Asked) -> bool:
    """Whether a bundle could hold what was asked for."""
    if asked.operation:
        is_ours = asked.operation.startswith("authz.")
        return _OPERATION.fullmatch(asked.operation) is not None and not is_ours
    if not _METHOD.fullmatch(asked.method) or not _PATH.fullmatch(asked.path):
        return False
    host = _HOST.fullmatch(asked.host)
    return not asked.host or (host is not None and 0 < int(host[1] or _MOST_PORT) <= _MOST_PORT)


def _note(names: set[str], name: str) -> None:
    if name and len(names) < _MOST_NAMES:
        names.add(name)

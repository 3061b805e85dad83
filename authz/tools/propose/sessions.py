"""Sessions of recorded work: which operations each session called, how often, and whether anything in it was refused.

A session is the session of a task, with the tasks below it. Calls without a task, and those of agents that work without tasks,
are divided where one pair of agent and subject paused. Everything is bounded: one agent gets at most half of the room that the
other agents leave.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from authz.audit import ChainLink, RecordedDecision
from authz.engine import effect_table
from authz.model import system_of
from authz.tools.propose.observations import BoundedEntries

__all__ = ["VARIES", "ObservedSession", "ObservedWork", "OperationUse"]

MOST_SESSIONS: Final = 20_000
MOST_OPERATIONS: Final = 64
"""Operations of one session; a session with more does not count."""
_MOST_ARGUMENTS: Final = 16
_MOST_SEGMENTS: Final = 8
_MOST_SHOWN: Final = 12
_MOST_CODES: Final = 8

_CALLS: Final = frozenset({"check", "batch_check", "ext_authz"})
"""Surfaces on which somebody asks about a call that is to be made now."""
_MISSING: Final = frozenset({"NOT_PERMITTED", "CHAIN_NOT_PERMITTED", "NO_TASK"})
"""Denials which say only that a permit or a task is missing."""
_OPERATION: Final = re.compile(
    r"(?=.{1,256}\Z)[a-z0-9][a-z0-9_-]{0,127}\.[A-Za-z0-9_][A-Za-z0-9._/-]{0,200}"
)
_RESOURCE: Final = re.compile(r'Resource::"[A-Za-z0-9._-]{1,256}/([A-Za-z0-9._@/-]{1,600})"')
_SEGMENT: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._@-]*[A-Za-z0-9])?")
_ARGUMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_DECISION: Final = re.compile(r"[0-9a-f-]{36}")


class _Varies:
    """Mark of an argument that had more than one value, or a value that is not a text, number or boolean."""


VARIES: Final = _Varies()


@dataclass(slots=True)
class OperationUse:
    """Calls of one operation in one session."""

    calls: int = 0
    """Calls that were let through."""
    held: int = 0
    """Calls that were, or would have been, held for a person."""
    tier: str = ""
    """Highest tier; empty if no record has one."""
    folder: tuple[str, ...] | None = None
    """Segments with which the id of every resource begins; None before the first call."""
    values: dict[str, tuple[int, object]] = field(default_factory=dict)
    """By argument: calls that had it, and its value, or `VARIES`."""


@dataclass(slots=True)
class ObservedSession:
    """One session."""

    first: datetime | None = None
    """Time of the first call."""
    last: datetime | None = None
    """Time of the last call."""
    began: str = ""
    """`first` as recorded."""
    decision_id: str = ""
    """Id of the decision about the first call."""
    subject: str = ""
    """Verified subject, or the agent if it acts for nobody."""
    has_subject: bool = False
    """The work is done for a subject."""
    subject_roles: frozenset[str] = frozenset()
    """Roles of the subject."""
    agent_roles: frozenset[str] = frozenset()
    """Roles of the first agent."""
    depth: int = 0
    """Greatest depth of its tasks."""
    operations: dict[str, OperationUse] = field(default_factory=dict)
    """Calls by operation."""
    order: list[str] = field(default_factory=list)
    """Operations in the order of the calls, up to a bound."""
    refusals: Counter[str] = field(default_factory=Counter)
    """Denials by reason code, up to a bound; would-be denials of `mode: observe`, too."""
    pending: set[str] = field(default_factory=set)
    """Operations that were held, and not let through since."""
    is_too_wide: bool = False
    """It had more operations than are kept."""

    @property
    def seconds(self) -> float:
        """Time from the first to the last call."""
        if self.first is None or self.last is None:
            return 0.0
        return (self.last - self.first).total_seconds()

    @property
    def is_clean(self) -> bool:
        """Nothing in it was refused or left held, and all of it is known."""
        return (
            bool(self.operations)
            and not self.refusals
            and not self.pending
            and not self.is_too_wide
        )


@dataclass(slots=True)
class ObservedWork:
    """Sessions of recorded decisions."""

    pause_seconds: float = 1_800
    """Pause that ends a session without a task."""
    learns_unpermitted: bool = False
    """A call that `mode: observe` let through, and that lacks only a permit or a task, does not count as a denial."""
    sessions: BoundedEntries[tuple[str, ...], ObservedSession] = field(
        default_factory=lambda: BoundedEntries(ObservedSession, most=MOST_SESSIONS)
    )
    """By id of the session; without a task by agent, subject and number."""
    decisions: int = 0
    """Decisions about calls."""
    _numbers: dict[tuple[str, str], int] = field(default_factory=dict)
    """Number of the current session of each pair without a task."""
    _current: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    """Session in which each pair was seen last."""

    def add(self, decision: RecordedDecision) -> None:
        """Count a decision."""
        if decision.probe or decision.is_sum or not decision.chain:
            return
        if decision.surface not in _CALLS or decision.retry == "later":
            return
        if system_of(decision.operation) == "authz" or _is_protocol(decision.operation):
            return
        self.decisions += 1
        at = _moment(decision.at)
        session = self._session(decision, at)
        if session is None:
            return
        _extend(session, decision, at)
        is_missing = self.learns_unpermitted and decision.code in _MISSING
        if not decision.operation or (
            decision.outcome == "DENY" and (decision.enforced or not is_missing)
        ):
            _refuse(session, decision.code)
        elif not _OPERATION.fullmatch(decision.operation):
            session.is_too_wide = True
        else:
            _count(session, decision)

    def _session(self, decision: RecordedDecision, at: datetime | None) -> ObservedSession | None:
        agent, subject = decision.agent, _subject(decision.chain)
        pair = (agent, subject.id if subject is not None else "")
        task = decision.task
        key: tuple[str, ...]
        if task is not None and task.kind in {"root", "child"}:
            key = (task.session,)
        elif not decision.operation and pair in self._current:
            # A request that resolves to no operation is refused before its task is known.
            key = self._current[pair]
        else:
            key = (*pair, str(self._number(pair, at)))
        if len(self._current) < MOST_SESSIONS or pair in self._current:
            self._current[pair] = key
        session = self.sessions.at(key, agent)
        if session is None:
            return None
        if not session.subject:
            session.subject = subject.id if subject is not None else agent
            session.has_subject = subject is not None
            session.subject_roles = frozenset((subject.roles if subject is not None else ()) or ())
            first = next((link for link in decision.chain if link.kind == "Agent"), None)
            session.agent_roles = frozenset((first.roles if first is not None else ()) or ())
        if task is not None:
            session.depth = max(session.depth, task.depth)
        return session

    def _number(self, pair: tuple[str, str], at: datetime | None) -> int:
        """Number the sessions of a pair: another one begins after a pause."""
        number = self._numbers.get(pair, 0)
        session = self.sessions.entries.get((*pair, str(number)))
        if session is not None and session.last is not None and at is not None:
            distance = (at - session.last).total_seconds()
            if distance > self.pause_seconds or -distance > session.seconds + self.pause_seconds:
                number += 1
        if pair in self._numbers or len(self._numbers) < MOST_SESSIONS:
            self._numbers[pair] = number
        return number


def _is_protocol(operation: str) -> bool:
    """Whether an operation is the protocol of an MCP server, which a scope holds with any operation of its system."""
    return operation.partition(".")[2] == "mcp"


def _subject(chain: tuple[ChainLink, ...]) -> ChainLink | None:
    return chain[0] if chain[0].kind != "Agent" else None


def _moment(at: str) -> datetime | None:
    try:
        return datetime.fromisoformat(at) if at else None
    except ValueError:
        return None


def _extend(session: ObservedSession, decision: RecordedDecision, at: datetime | None) -> None:
    if at is None:
        return
    if session.first is None or at < session.first:
        session.first, session.began = at, decision.at
        is_id = _DECISION.fullmatch(decision.decision_id)
        session.decision_id = decision.decision_id if is_id else ""
    if session.last is None or at > session.last:
        session.last = at


def _refuse(session: ObservedSession, code: str) -> None:
    if code in session.refusals or len(session.refusals) < _MOST_CODES:
        session.refusals[code] += 1


def _count(session: ObservedSession, decision: RecordedDecision) -> None:
    operation = decision.operation
    use = session.operations.get(operation)
    if use is None:
        if len(session.operations) >= MOST_OPERATIONS:
            session.is_too_wide = True
            return
        use = session.operations[operation] = OperationUse()
    if decision.outcome == "STEP_UP":
        use.held += 1
        if decision.enforced:
            session.pending.add(operation)
            return
    session.pending.discard(operation)
    use.calls += 1
    table = effect_table()
    if decision.tier in table.tiers:
        use.tier = max(use.tier or decision.tier, decision.tier, key=table.rank)
    if len(session.order) < _MOST_SHOWN:
        session.order.append(operation)
    folder = _folder(decision.resource)
    use.folder = folder if use.folder is None else _common(use.folder, folder)
    _note_arguments(use, decision.arguments)


def _folder(resource: str) -> tuple[str, ...]:
    """Segments of a resource's id, up to the first that a prefix in a bundle cannot hold."""
    match = _RESOURCE.fullmatch(resource)
    if match is None:
        return ()
    segments = match[1].split("/")
    kept = []
    # An id may begin with a slash, which is a part of it.
    for position, segment in enumerate(segments[:_MOST_SEGMENTS]):
        if not _SEGMENT.fullmatch(segment) and not (position == 0 and not segment):
            break
        kept.append(segment)
    return tuple(kept)


def _common(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    length = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        length += 1
    return one[:length]


def _note_arguments(use: OperationUse, arguments: Any) -> None:
    for name, value in arguments.items() if isinstance(arguments, dict) else ():
        if name not in use.values and len(use.values) >= _MOST_ARGUMENTS:
            continue
        if not isinstance(name, str) or not _ARGUMENT.fullmatch(name):
            continue
        seen, before = use.values.get(name, (0, value))
        is_same = type(before) is type(value) and before == value
        is_scalar = isinstance(value, str | int | bool)
        use.values[name] = (seen + 1, value if is_same and is_scalar else VARIES)

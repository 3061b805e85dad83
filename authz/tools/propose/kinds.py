"""Kinds of task: from sessions of recorded work to few sets of operations that belong together.

Nothing that one session, or one subject, did alone decides anything: each operation, each mixture of operations and each limit
needs the evidence of several sessions of several subjects. So an agent that follows an attacker's text can leave traces in the
log, but cannot widen a template with them. Sessions in which anything was refused count for nothing.

1. An operation counts if enough clean sessions called it; one that deletes, grants, executes or is unknown needs more of them.
2. A mixture of two operations of which one does more than read counts if enough clean sessions called both.
3. The sets of operations of clean sessions, most frequent first, join the most similar kind (Jaccard similarity of at least
   one half) if every mixture in the union counts; others begin a kind.
4. A session belongs to the smallest kind that has all its operations. An operation without enough evidence in the sessions of
   its kind leaves the kind.
5. Limits (uses, deadline, tier, prefix of ids, values) hold what enough sessions reached; sessions beyond are not covered.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

from authz.engine import effect_table
from authz.model import system_of
from authz.tools.propose.sessions import VARIES, ObservedSession, ObservedWork, OperationUse

__all__ = ["Evidence", "Example", "ScopeEntry", "TaskKind", "TaskKinds", "Uncovered", "task_kinds"]

SIMILARITY: Final = 0.5
"""Jaccard similarity from which on two sets of operations can be one kind."""
_MOST_SETS: Final = 500
_MOST_UNCOVERED: Final = 200
_MOST_EXAMPLES: Final = 2
_STRONG: Final = frozenset({"delete", "grant", "execute"})
_STRONG_FACTOR: Final = 3
_USES: Final = (1, 2, 3, 5, 10, 20, 30, 50)
_MINUTE: Final = 60
_DEADLINES: Final = tuple(_MINUTE * n for n in (5, 10, 15, 30, 60, 120, 240, 480, 1_440))
_PREFIX: Final = "proposed-"
_MOST_NAME: Final = 100
_MOST_NAMED: Final = 3
_MOST_DEPTH: Final = 6
"""Depth that a template can permit."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Number of clean sessions, and of distinct subjects in them, that a proposal needs."""

    sessions: int = 3
    """Sessions."""
    subjects: int = 2
    """Distinct subjects; an agent that acts for nobody counts as one."""

    @property
    def strong(self) -> "Evidence":
        """Evidence for an operation that deletes, grants, executes, or of which the bundle says nothing."""
        return Evidence(self.sessions * _STRONG_FACTOR, self.subjects * 2 - 1)

    def holds(self, subjects: Sequence[str]) -> bool:
        """Return whether sessions of these subjects, one for each session, suffice."""
        return len(subjects) >= self.sessions and len(set(subjects)) >= self.subjects


@dataclass(frozen=True, slots=True)
class ScopeEntry:
    """One operation of a kind, with its limits."""

    operation: str
    sessions: int
    """Sessions of the kind that called it."""
    most_calls: int
    """Most calls in one session, as far as enough sessions reached it."""
    uses: int = 0
    """Limit of calls; 0: none."""
    prefix: str = ""
    """Beginning of the ids of its resources; empty: none."""
    values: Mapping[str, str | bool] = field(default_factory=dict)
    """Argument → its only value."""
    fixed: tuple[str, ...] = ()
    """Arguments that had one value in all sessions, which the log does not hold in clear."""
    per_session: tuple[str, ...] = ()
    """Arguments that had one value in each session, and others in other sessions."""
    held: int = 0
    """Calls that were, or would have been, held for a person."""


@dataclass(frozen=True, slots=True)
class Example:
    """A session that a kind covers."""

    at: str
    """Time of its first call."""
    decision_id: str
    """Id of the decision about its first call."""
    operations: tuple[str, ...]
    """Its first operations, in their order."""


@dataclass(frozen=True, slots=True)
class TaskKind:
    """A kind of task."""

    name: str
    purpose: str
    operations: frozenset[str]
    entries: tuple[ScopeEntry, ...]
    tier_cap: str
    max_depth: int
    deadline_seconds: int
    longest_seconds: int
    """Longest session, as far as enough sessions reached it."""
    subject_roles: tuple[str, ...]
    """Roles of subjects for which the work was done."""
    agent_roles: tuple[str, ...]
    """Roles of agents that did it."""
    is_alone: bool
    """Some of it was done for no subject."""
    sessions: int = 0
    """Clean sessions that it covers, and that no kind with fewer operations covers."""
    subjects: int = 0
    """Distinct subjects of these sessions."""
    examples: tuple[Example, ...] = ()
    """Sessions that it covers."""

    def covers(self, session: ObservedSession) -> bool:
        """Return whether a task of this kind could do all that a session did."""
        return session.operations.keys() <= self.operations and not self.denied(session)

    def denied(self, session: ObservedSession) -> tuple[str, ...]:
        """Name the steps of a session that a task of this kind would refuse; empty if it covers the session."""
        steps = sorted(session.operations.keys() - self.operations)
        for entry in self.entries:
            if (use := session.operations.get(entry.operation)) is not None:
                steps += _beyond(entry, use)
        table = effect_table()
        for operation, use in sorted(session.operations.items()):
            if use.tier and table.rank(use.tier) > table.rank(self.tier_cap):
                steps.append(f"{operation} of tier {use.tier}")
        if session.seconds > self.deadline_seconds:
            steps.append("calls after the deadline")
        if session.depth > self.max_depth:
            steps.append("a task below the deepest one")
        return tuple(steps)


def _beyond(entry: ScopeEntry, use: OperationUse) -> list[str]:
    steps = []
    if entry.uses and use.calls > entry.uses:
        steps.append(f"more than {entry.uses} calls of {entry.operation}")
    prefix = tuple(entry.prefix.split("/")) if entry.prefix else ()
    if (use.folder or ())[: len(prefix)] != prefix:
        steps.append(f"{entry.operation} outside {entry.prefix}")
    steps += [
        f"{entry.operation} with another {name}"
        for name, value in entry.values.items()
        if _constant(use, name) != value
    ]
    return steps


@dataclass(frozen=True, slots=True)
class Uncovered:
    """Clean sessions with the same operations that no kind covers."""

    operations: tuple[str, ...]
    sessions: int
    nearest: str
    """Kind that covers most of them; empty without any."""
    denied: tuple[str, ...]
    """Steps that the nearest kind would refuse; all of them without any."""


@dataclass(frozen=True, slots=True)
class TaskKinds:
    """Kinds of task, and the calls that they leave out."""

    kinds: tuple[TaskKind, ...]
    uncovered: tuple[Uncovered, ...]
    observed: int
    """Sessions with at least one call."""
    clean: int
    """Sessions in which nothing was refused."""
    covered: int
    """Clean sessions that a kind covers."""
    subjects: int
    """Distinct subjects of clean sessions."""
    refusals: Mapping[str, int]
    """Sessions with denials, by reason code."""
    held: int
    """Sessions without a denial that left a held call behind."""
    too_wide: int
    """Sessions with more operations than are kept."""
    stopped: int
    """Sessions with denials of which each kind would refuse at least one step that was let through."""
    rare: tuple[tuple[str, int, int], ...]
    """Operations without enough evidence, each with its clean sessions and their subjects."""
    gone: tuple[str, ...]
    """Operations that the bundle no longer has."""
    dropped: int
    """Kinds that were left out because there were too many."""
    left_out: int
    """Decisions beyond the limit."""
    decisions: int
    """Decisions about calls."""


def task_kinds(
    work: ObservedWork,
    effects: Mapping[str, frozenset[str]] | None,
    evidence: Evidence,
    most: int,
) -> TaskKinds:
    """Derive kinds of task from sessions.

    Args:
        work: The sessions.
        effects: Effects of each operation of the bundle; None without a bundle.
        evidence: Evidence that a proposal needs.
        most: Kinds at most.
    """
    observed = [one for one in work.sessions.entries.values() if one.operations or one.refusals]
    clean = [one for one in observed if one.is_clean]
    mixtures = _Mixtures(clean, effects, evidence)
    groups, dropped = _groups(mixtures, most)
    taken: dict[str, frozenset[str]] = {}
    kinds = [
        _kind(operations, sessions, mixtures, evidence, taken) for operations, sessions in groups
    ]
    missed = [one for one in clean if not any(kind.covers(one) for kind in kinds)]
    refused = [one for one in observed if one.refusals]
    return TaskKinds(
        kinds=tuple(kinds),
        uncovered=_uncovered(missed, kinds),
        observed=len(observed),
        clean=len(clean),
        covered=len(clean) - len(missed),
        subjects=len({one.subject for one in clean}),
        refusals=Counter(code for one in refused for code in one.refusals),
        held=sum(bool(one.pending) and not one.refusals for one in observed),
        too_wide=sum(one.is_too_wide and not one.refusals for one in observed),
        stopped=sum(
            not any(kind.covers(one) for kind in kinds) for one in refused if one.operations
        ),
        rare=mixtures.rare,
        gone=mixtures.gone,
        dropped=dropped,
        left_out=work.sessions.left_out,
        decisions=work.decisions,
    )


class _Mixtures:
    """Sets of operations of clean sessions as numbers of bits, and which of them have enough evidence."""

    def __init__(
        self,
        sessions: Sequence[ObservedSession],
        effects: Mapping[str, frozenset[str]] | None,
        evidence: Evidence,
    ) -> None:
        self.operations = sorted({name for one in sessions for name in one.operations})
        self._bits = {name: 1 << at for at, name in enumerate(self.operations)}
        self.reads = {
            name
            for name in self.operations
            if effects is not None and effects.get(name) == frozenset({"read"})
        }
        self.sets: dict[int, list[ObservedSession]] = {}
        for one in sessions:
            self.sets.setdefault(self._mask(one.operations), []).append(one)
        by_operation: dict[str, list[str]] = {name: [] for name in self.operations}
        for one in sessions:
            for name in one.operations:
                by_operation[name].append(one.subject)
        self.gone = tuple(
            name for name in self.operations if effects is not None and name not in effects
        )
        self._evidence = evidence
        self._strong = {
            name
            for name in self.operations
            if not (known := (effects or {}).get(name, frozenset())) or known & _STRONG
        }
        self.rare = tuple(
            (name, len(subjects), len(set(subjects)))
            for name, subjects in by_operation.items()
            if not self._needed(name).holds(subjects)
        )
        self._excluded = self._mask([name for name, _, _ in self.rare]) | self._mask(self.gone)
        self._refused = self._refused_pairs(evidence)

    def _needed(self, operation: str) -> Evidence:
        return self._evidence.strong if operation in self._strong else self._evidence

    def _mask(self, names: Iterable[str]) -> int:
        mask = 0
        for name in names:
            mask |= self._bits[name]
        return mask

    def names(self, mask: int) -> list[str]:
        """Return the operations of a set, sorted."""
        return [name for name, bit in self._bits.items() if mask & bit]

    def _refused_pairs(self, evidence: Evidence) -> list[int]:
        """For each operation, the set of operations with which it may not stand in one kind."""
        counts: dict[tuple[int, int], list[int]] = {}
        subjects: dict[tuple[int, int], set[str]] = {}
        reads = self._mask(self.reads)
        for mask, sessions in self.sets.items():
            bits = [at for at in range(len(self.operations)) if mask >> at & 1]
            people = {one.subject for one in sessions}
            for place, low in enumerate(bits):
                for high in bits[place + 1 :]:
                    if reads >> low & 1 and reads >> high & 1:
                        continue
                    counts.setdefault((low, high), [0])[0] += len(sessions)
                    seen = subjects.setdefault((low, high), set())
                    if len(seen) < evidence.subjects:
                        seen |= people
        refused = []
        for at in range(len(self.operations)):
            others = 0
            for other in range(len(self.operations)):
                pair = (min(at, other), max(at, other))
                if at == other or (reads >> at & 1 and reads >> other & 1):
                    continue
                count = counts.get(pair, [0])[0]
                people = subjects.get(pair, set())
                if count < evidence.sessions or len(people) < evidence.subjects:
                    others |= 1 << other
            refused.append(others)
        return refused

    def holds(self, mask: int) -> bool:
        """Return whether every operation and every mixture of a set has enough evidence."""
        if mask & self._excluded:
            return False
        rest = mask
        while rest:
            if self._refused[(rest & -rest).bit_length() - 1] & mask:
                return False
            rest &= rest - 1
        return True

    def proved(self, mask: int, sessions: Sequence[ObservedSession]) -> int:
        """Return the operations of a set that have enough evidence in some sessions."""
        proved = 0
        for name in self.names(mask):
            subjects = [one.subject for one in sessions if name in one.operations]
            if self._needed(name).holds(subjects):
                proved |= self._bits[name]
        return proved

    @cached_property
    def proved_sets(self) -> list[tuple[int, list[ObservedSession]]]:
        """Sets with enough evidence, each with its sessions."""
        return [(mask, group) for mask, group in self.sets.items() if self.holds(mask)]

    def ranked(self) -> list[int]:
        """Return the sets with enough evidence, most frequent first."""
        good = [mask for mask, _ in self.proved_sets]
        good.sort(key=lambda mask: (-len(self.sets[mask]), self.names(mask)))
        return good[:_MOST_SETS]


def _similarity(one: int, other: int) -> float:
    return (one & other).bit_count() / (one | other).bit_count()


def _merge(mixtures: _Mixtures) -> list[int]:
    """Join sets of operations to kinds."""
    unions: list[int] = []
    for mask in mixtures.ranked():
        if (place := _closest(unions, mask, mixtures)) is None:
            unions.append(mask)
        else:
            unions[place] |= mask
    # A kind that grew can have become similar to another.
    place = 0
    while place < len(unions):
        mask = unions.pop(place)
        if (target := _closest(unions, mask, mixtures)) is None:
            unions.insert(place, mask)
            place += 1
        else:
            unions[target] |= mask
            place = 0
    return unions


def _closest(unions: Sequence[int], mask: int, mixtures: _Mixtures) -> int | None:
    best, best_place = 0.0, None
    for place, union in enumerate(unions):
        similarity = _similarity(union, mask)
        if similarity >= SIMILARITY and similarity > best and mixtures.holds(union | mask):
            best, best_place = similarity, place
    return best_place


def _groups(
    mixtures: _Mixtures, most: int
) -> tuple[list[tuple[list[str], list[ObservedSession]]], int]:
    """Give each kind its sessions, and drop the kinds without enough of them, or beyond the number."""
    unions, dropped = _merge(mixtures), 0
    # Each round makes a kind smaller or drops it.
    while True:
        sessions: dict[int, list[ObservedSession]] = {union: [] for union in unions}
        used: dict[int, int] = dict.fromkeys(unions, 0)
        for mask, group in mixtures.proved_sets:
            if wide := [union for union in unions if mask & ~union == 0]:
                home = min(wide, key=lambda union: (union.bit_count(), mixtures.names(union)))
                sessions[home] += group
                used[home] |= mask
        # What a kind holds needs evidence in the sessions of that kind, not only in all sessions.
        narrowed = [mixtures.proved(used[union], sessions[union]) for union in unions]
        if narrowed != unions:
            unions = [mask for mask in dict.fromkeys(narrowed) if mask]
            continue
        unions.sort(key=lambda union: (-len(sessions[union]), mixtures.names(union)))
        if len(unions) <= most:
            return [(mixtures.names(union), sessions[union]) for union in unions], dropped
        dropped += len(unions) - most
        del unions[most:]


def _kind(
    operations: Sequence[str],
    sessions: Sequence[ObservedSession],
    mixtures: _Mixtures,
    evidence: Evidence,
    taken: dict[str, frozenset[str]],
) -> TaskKind:
    entries = tuple(
        _entry(name, sessions, evidence, is_read=name in mixtures.reads) for name in operations
    )
    table = effect_table()
    tiers = [
        _reached(
            [(table.rank(use.tier), one.subject) for one, use in _uses(name, sessions) if use.tier],
            evidence,
        )
        for name in operations
    ]
    longest = _reached([(math.ceil(one.seconds), one.subject) for one in sessions], evidence)
    depth = _reached([(one.depth, one.subject) for one in sessions], evidence)
    changing = [name for name in operations if name not in mixtures.reads]
    ranked = sorted(changing, key=lambda name: (-len(_uses(name, sessions)), name))
    kind = TaskKind(
        name=_name(operations, ranked, taken),
        purpose=_purpose(operations, ranked),
        operations=frozenset(operations),
        entries=entries,
        tier_cap=table.tiers[max(tiers, default=0)],
        max_depth=min(depth, _MOST_DEPTH),
        deadline_seconds=next((one for one in _DEADLINES if one > longest), _DEADLINES[-1]),
        longest_seconds=longest,
        subject_roles=_roles(sessions, evidence, lambda one: one.subject_roles),
        agent_roles=_roles(sessions, evidence, lambda one: one.agent_roles),
        is_alone=any(not one.has_subject for one in sessions),
    )
    covered = [one for one in sessions if kind.covers(one)]
    return replace(
        kind,
        sessions=len(covered),
        subjects=len({one.subject for one in covered}),
        examples=_examples(covered),
    )


def _uses(
    operation: str, sessions: Sequence[ObservedSession]
) -> list[tuple[ObservedSession, OperationUse]]:
    return [(one, one.operations[operation]) for one in sessions if operation in one.operations]


def _reached(values: Sequence[tuple[int, str]], evidence: Evidence) -> int:
    """Return the highest number that enough sessions reached, each given with its subject; 0 if none did."""
    subjects: list[str] = []
    for value, subject in sorted(values, reverse=True):
        subjects.append(subject)
        if evidence.holds(subjects):
            return value
    return 0


def _entry(
    operation: str, sessions: Sequence[ObservedSession], evidence: Evidence, *, is_read: bool
) -> ScopeEntry:
    uses = _uses(operation, sessions)
    most_calls = _reached([(use.calls, one.subject) for one, use in uses], evidence)
    values, fixed, per_session = _limits(uses, evidence)
    return ScopeEntry(
        operation=operation,
        sessions=len(uses),
        most_calls=most_calls,
        uses=0 if is_read else _rounded(most_calls),
        prefix=_folder(uses, evidence),
        values=values,
        fixed=fixed,
        per_session=per_session,
        held=sum(use.held for _, use in uses),
    )


def _rounded(calls: int) -> int:
    """Round a number of calls up to a round number."""
    step = next((one for one in _USES if one >= calls), 0)
    return step or -(-calls // 50) * 50


def _folder(uses: Sequence[tuple[ObservedSession, OperationUse]], evidence: Evidence) -> str:
    """Return the longest beginning of ids that enough sessions share while the others are too few to count."""
    rest = [(one.subject, use.folder or ()) for one, use in uses]
    prefix: tuple[str, ...] = ()
    outside: list[str] = []
    while True:
        groups: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
        for subject, folder in rest:
            if len(folder) > len(prefix):
                groups.setdefault(folder[len(prefix)], []).append((subject, folder))
        if not groups:
            break
        segment, group = max(groups.items(), key=lambda item: (len(item[1]), item[0]))
        at = slice(len(prefix), len(prefix) + 1)
        others = [subject for subject, folder in rest if folder[at] != (segment,)]
        if not evidence.holds([subject for subject, _ in group]):
            break
        if evidence.holds([*outside, *others]):
            break
        outside += others
        prefix, rest = (*prefix, segment), group
    return "/".join(prefix) if any(prefix) else ""


def _constant(use: OperationUse, name: str) -> object:
    """Return the only value of an argument that each call had; `VARIES` otherwise."""
    calls, value = use.values.get(name, (0, VARIES))
    return value if calls == use.calls else VARIES


def _limits(
    uses: Sequence[tuple[ObservedSession, OperationUse]], evidence: Evidence
) -> tuple[dict[str, str | bool], tuple[str, ...], tuple[str, ...]]:
    """Find arguments with one value: in clear, as a digest, and one in each session."""
    values: dict[str, str | bool] = {}
    fixed, per_session = [], []
    repeated = [one.subject for one, use in uses if use.calls > 1]
    for name in sorted({name for _, use in uses for name in use.values}):
        groups: dict[tuple[type, object], list[str]] = {}
        for one, use in uses:
            value = _constant(use, name)
            # In Python, 1 equals true.
            groups.setdefault((type(value), value), []).append(one.subject)
        varying = groups.pop((type(VARIES), VARIES), [])
        if not groups:
            continue
        key, subjects = max(groups.items(), key=lambda item: (len(item[1]), str(item[0])))
        others = [who for other, listed in groups.items() if other != key for who in listed]
        is_only = evidence.holds(subjects) and not evidence.holds([*others, *varying])
        value = key[1]
        if is_only and isinstance(value, str) and value.startswith(("sha256:", "salted:")):
            fixed.append(name)
        elif is_only and isinstance(value, str | bool):
            values[name] = value
        elif not varying and len(groups) > 1 and evidence.holds(repeated):
            per_session.append(name)
    return values, tuple(fixed), tuple(per_session)


def _roles(
    sessions: Sequence[ObservedSession],
    evidence: Evidence,
    roles_of: Callable[[ObservedSession], frozenset[str]],
) -> tuple[str, ...]:
    """Choose few roles that together cover the sessions, the most frequent first; each has enough evidence."""
    chosen: list[str] = []
    rest = list(sessions)
    while True:
        counts = Counter(role for one in rest for role in roles_of(one))
        candidates = [
            role
            for role in counts
            if evidence.holds([one.subject for one in sessions if role in roles_of(one)])
        ]
        if not candidates:
            return tuple(chosen)
        best = min(candidates, key=lambda role: (-counts[role], role))
        chosen.append(best)
        rest = [one for one in rest if best not in roles_of(one)]


def _name(
    operations: Sequence[str], ranked: Sequence[str], taken: dict[str, frozenset[str]]
) -> str:
    """Name a kind after its most frequent operation that changes something, or after the systems that it reads.

    A second kind with that name is told apart by an operation that the others lack.

    Args:
        operations: Its operations.
        ranked: Those that do more than read, most frequent first.
        taken: Operations of the kinds that have a name already, by name.
    """
    systems = sorted({system_of(name) for name in operations})
    reads = f"read-{'-and-'.join(systems) if len(systems) <= _MOST_NAMED else 'many-systems'}"
    base = _PREFIX + (_word(ranked[0]) if ranked else reads)[:_MOST_NAME]
    if base in taken:
        others = [listed for name, listed in taken.items() if name.startswith(base)]
        own = [
            name
            for name in (*ranked[1:], *operations)
            if name not in ranked[:1] and not any(name in listed for listed in others)
        ]
        base = f"{base}-and-{_word(own[0])}"[: 2 * _MOST_NAME] if own else base
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    taken[name] = frozenset(operations)
    return name


def _word(operation: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", operation).strip("-").lower()


def _purpose(operations: Sequence[str], ranked: Sequence[str]) -> str:
    """Say in one line what a kind does, from the ids of its operations alone."""
    systems = sorted({system_of(name) for name in operations if name not in ranked})
    parts = []
    if systems:
        parts.append(f"read {_listed(systems)}")
    if ranked:
        parts.append(f"call {_listed(ranked)}")
    return "; ".join(parts)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def _examples(sessions: Sequence[ObservedSession]) -> tuple[Example, ...]:
    """Take the first session of each of the most frequent sets of operations."""
    groups: dict[frozenset[str], list[ObservedSession]] = {}
    for one in sessions:
        groups.setdefault(frozenset(one.operations), []).append(one)
    ranked = sorted(
        groups.values(), key=lambda group: (-len(group), min(one.began for one in group))
    )
    firsts = [min(group, key=lambda one: one.began) for group in ranked[:_MOST_EXAMPLES]]
    return tuple(Example(one.began, one.decision_id, tuple(one.order)) for one in firsts)


def _uncovered(
    sessions: Sequence[ObservedSession], kinds: Sequence[TaskKind]
) -> tuple[Uncovered, ...]:
    counts: Counter[tuple[tuple[str, ...], str, tuple[str, ...]]] = Counter()
    for one in sessions:
        operations = tuple(sorted(one.operations))
        nearest, denied = "", operations
        for kind in kinds:
            # A kind that has none of the operations is not near, however few they are.
            if kind.operations.isdisjoint(operations):
                continue
            steps = kind.denied(one)
            if not nearest or len(steps) < len(denied):
                nearest, denied = kind.name, steps
        counts[operations, nearest, denied] += 1
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(
        Uncovered(operations, number, nearest, denied)
        for (operations, nearest, denied), number in ranked[:_MOST_UNCOVERED]
    )

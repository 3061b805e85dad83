"""What must be true of a server after it was killed, by its client's journal alone."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product

from tests.crash.journal import Entry
from tests.support.working import LIMITS

__all__ = ["Expected", "Issued", "expected", "living", "violations"]


@dataclass(frozen=True)
class Issued:
    """A credential that was answered."""

    task: str
    operation: str
    #: When it ends by itself, Unix time.
    expires_at: float
    #: The token; empty where a secret was leased.
    token: str = ""
    #: The parts of the leased secret.
    parts: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Expected:
    """What a journal says."""

    #: Every task that was answered, and its parent.
    parents: dict[str, str] = field(default_factory=dict)
    #: Tasks whose end was answered, and where in the journal.
    ended: dict[str, int] = field(default_factory=dict)
    #: Tasks that may have been ended: the end was asked for, and nobody answered.
    maybe_ended: set[str] = field(default_factory=set)
    #: Permits of operations that are counted, by task and operation: answered, and perhaps more.
    permits: Counter[tuple[str, str]] = field(default_factory=Counter)
    maybe: Counter[tuple[str, str]] = field(default_factory=Counter)
    #: Decisions that change state, and were answered.
    decisions: set[str] = field(default_factory=set)
    #: Credentials that were answered.
    issued: list["Issued"] = field(default_factory=list)
    #: Permits without a task, by agent: answered, and perhaps more.
    tallies: Counter[str] = field(default_factory=Counter)
    maybe_tallies: Counter[str] = field(default_factory=Counter)
    #: Permits that were asked for after the end of their task was answered.
    late: list[str] = field(default_factory=list)

    def under(self, task: str) -> Iterator[str]:
        """A task and every task above it."""
        while task:
            yield task
            task = self.parents.get(task, "")

    def is_dead(self, task: str) -> bool:
        """It, or one above it, was ended."""
        return any(one in self.ended for one in self.under(task))

    def is_alive(self, task: str) -> bool:
        """Neither it nor one above it was ended, or may have been."""
        return not any(one in self.ended or one in self.maybe_ended for one in self.under(task))


def expected(entries: list[Entry]) -> Expected:
    """Reads a journal. Entries are in the order in which they were asked."""
    found = Expected()
    for entry in entries:
        _task(found, entry)
    for entry in entries:
        if entry.asked["kind"] == "check":
            _check(found, entry)
        elif entry.asked["kind"] == "issue":
            _issue(found, entry)
        elif entry.asked["kind"] == "tally":
            _tally(found, entry)
    return found


def _task(found: Expected, entry: Entry) -> None:
    kind, answer = entry.asked["kind"], entry.answered
    if kind == "end" and answer is None:
        found.maybe_ended.add(entry.asked["task"])
    elif kind == "end" and answer and "ended" in answer:
        found.ended.setdefault(entry.asked["task"], entry.answered_at)
    elif answer and "task" in answer:
        found.parents[answer["task"]] = entry.asked.get("parent", "")


def _check(found: Expected, entry: Entry) -> None:
    task, operation = entry.asked["task"], entry.asked["operation"]
    if entry.answered is None:
        found.maybe[task, operation] += 1
        return
    if not entry.answered["permit"]:
        return
    decision = entry.answered["decision"]
    found.permits[task, operation] += 1
    if operation in LIMITS:
        found.decisions.add(decision)
    ends = (found.ended.get(one) for one in found.under(task))
    if any(end is not None and end < entry.asked_at for end in ends):
        found.late.append(decision)


def _tally(found: Expected, entry: Entry) -> None:
    agent = entry.asked["agent"]
    if entry.answered is None:
        found.maybe_tallies[agent] += 1
    elif entry.answered["permit"]:
        found.tallies[agent] += 1
        found.decisions.add(entry.answered["decision"])


def _issue(found: Expected, entry: Entry) -> None:
    task, operation, answer = entry.asked["task"], entry.asked["operation"], entry.answered
    if answer is None:
        found.maybe[task, operation] += 1
        return
    if "refused" in answer:
        # The permit itself may have been answered before: its use is given back when nothing comes of it.
        found.maybe[task, operation] += 1
        return
    # What a token was issued for counts until it ends without having been used.
    found.permits[task, operation] += 1
    expires = float(answer["expires_at"])
    issued = Issued(task, operation, expires, answer["token"], answer["parts"])
    found.issued.append(issued)
    ends = (found.ended.get(one) for one in found.under(task))
    if any(end is not None and end < entry.asked_at for end in ends):
        found.late.append(f"of a credential for {operation}")


def living(
    wanted: Expected, found: Mapping[str, tuple[bool, float]], *, margin: float = 5.0
) -> Iterator[str]:
    """Holds credentials against the tasks that they were issued in.

    Args:
        wanted: What the journal says.
        found: Whether each can be used, by its token or by the name of the leased role, and the Unix time at which that
            was found out: with many, the last is asked about a minute after the first.
        margin: Seconds around its end in which either is well.

    Yields:
        One line for each that lives in a dead task, or is dead in a live one.
    """
    for one in wanted.issued:
        name = one.parts.get("username", one.token)
        what = f"a credential for {one.operation} of task {one.task}"
        alive, at = found[name]
        if alive and wanted.is_dead(one.task):
            yield f"{what}, which has ended, is alive"
        elif alive and one.expires_at < at - margin:
            yield f"{what} is alive after its time"
        elif not alive and wanted.is_alive(one.task) and one.expires_at > at + margin:
            yield f"{what} was answered and is lost"


def violations(
    wanted: Expected,
    statuses: dict[str, str],
    counted: dict[tuple[str, str], int],
    recorded: set[str],
    tallied: Mapping[str, int] | None = None,
) -> list[str]:
    """Holds what a server says against what it must say.

    Args:
        wanted: What the journal says.
        statuses: How each task stands by the server; missing where it does not know it.
        counted: How often an operation was used in a task, and those below it, as far as that was found out.
        recorded: Decisions that have a record in the audit.
        tallied: What each agent did without a task, by the server, as far as that was found out.

    Returns:
        One line for each thing that is not so.
    """
    return [
        *(f"decision {one} permits in a task that had ended" for one in wanted.late),
        *_standing(wanted, statuses),
        *_uses(wanted, counted),
        *_tallies(wanted, tallied or {}),
        *(f"decision {one} has no record" for one in sorted(wanted.decisions - recorded)),
    ]


def _standing(wanted: Expected, statuses: dict[str, str]) -> Iterator[str]:
    for task in wanted.parents:
        status = statuses.get(task)
        if status is None:
            yield f"task {task} was answered and is lost"
        elif wanted.is_dead(task) and status == "ACTIVE":
            yield f"task {task} has ended and is alive"
        elif wanted.is_alive(task) and status != "ACTIVE":
            yield f"task {task} is {status}, and nobody ended it"


def _uses(wanted: Expected, counted: dict[tuple[str, str], int]) -> Iterator[str]:
    below: dict[str, list[str]] = defaultdict(list)
    for task in wanted.parents:
        for above in wanted.under(task):
            below[above].append(task)
    for (task, operation), used in counted.items():
        least = sum(wanted.permits[one, operation] for one in below[task])
        most = least + sum(wanted.maybe[one, operation] for one in below[task])
        if not least <= used <= most:
            yield f"{operation} in {task} was used {least} to {most} times, counted {used}"
    for task, operation in product(below, LIMITS):
        total = sum(wanted.permits[one, operation] for one in below[task])
        if total > LIMITS[operation]:
            most = LIMITS[operation]
            yield f"{operation} in {task} was permitted {total} times, at most {most} may be"


def _tallies(wanted: Expected, tallied: Mapping[str, int]) -> Iterator[str]:
    for agent, count in tallied.items():
        least = wanted.tallies[agent]
        most = least + wanted.maybe_tallies[agent]
        if not least <= count <= most:
            yield f"{agent} did {least} to {most} tallies without a task, counted {count}"

"""Timeline of one session, collected from audit files in two passes.

The first pass finds the records that name the session, and every line that is not a record. The second pass finds the records
that are linked to these by an id: answers of people to the approvals of the session, reports of its permits, and revocations
that end its tasks, ends of its approvals by time, bundles that its nodes loaded or refused, and records that they dropped meanwhile. The records
of the session are kept in a database on disk.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from authz.audit import Record, is_node_record, read
from authz.audit.scratch import scratch_database
from authz.errors import UsageError
from authz.model import Diagnostic
from authz.tools.catalog.tool import plain
from authz.tools.timeline.events import Place, TimelineEvent, read_event

__all__ = ["ApprovalHistory", "Damage", "JoinedLabel", "Summary", "Timeline", "collect"]

_SCHEMA: Final = (
    "CREATE TABLE events (id TEXT, replaces INT, at TEXT, segment INT, place INT, file INT, line INT, approval TEXT, event TEXT, UNIQUE (id, replaces))",
    "CREATE TABLE decisions (id TEXT PRIMARY KEY, task TEXT) WITHOUT ROWID",
    "CREATE TABLE approvals (id TEXT PRIMARY KEY, task TEXT) WITHOUT ROWID",
    "CREATE TABLE tasks (id TEXT PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE principals (id TEXT PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE nodes (id TEXT PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE labels (label TEXT, decision TEXT, carried INT, PRIMARY KEY (label, decision)) WITHOUT ROWID",
    "CREATE TABLE damage (file TEXT, line INT, defect TEXT)",
)
_ORDER: Final = "ORDER BY at, segment, place, file, line"
# Tasks live at most 24 hours, so a later revocation ended none of the session.
_LONGEST_TASK: Final = timedelta(hours=24)
# Events of an approval whose id is that of the call itself. `refused` can name an approval of an earlier task.
_OWN_APPROVAL: Final = frozenset({"made", "repeated", "consumed", "relied"})
_LINKED: Final = (b'"report"', b'"approval"', b'"revoked"', b'"loaded"', b'"refused"', b'"dropped"')


@dataclass(frozen=True, slots=True)
class Damage:
    """A line that is not a record, or a file that ends within one."""

    file: str
    line: int
    """Line, from 1."""
    defect: str


@dataclass(frozen=True, slots=True)
class JoinedLabel:
    """A label of the session, and the call that brought it."""

    label: str
    decision_id: str
    carried: bool
    """A later record shows that the session carries the label from this decision."""
    event: TimelineEvent | None
    """Record of the decision; None if it is not in the files."""


@dataclass(frozen=True, slots=True)
class ApprovalHistory:
    """Outcome of one approval."""

    id: str
    asked: TimelineEvent | None = None
    """Call that made it; None if its record is not in the files."""
    repeated: int = 0
    """Calls that found it without a final answer."""
    seen_at: str = ""
    """First look of a person, by the first answer: its time minus `decided_in_ms`."""
    answers: list[TimelineEvent] = field(default_factory=list)
    used: list[TimelineEvent] = field(default_factory=list)
    """Permits that used it up, or rely on its endorsed values."""
    ended: TimelineEvent | None = None
    """Record that its time ended it; only a chained log has such records."""

    @property
    def outcome(self) -> str:
        """The last event that counts: `used`, `rejected`, `unused`, `expired`, `approved`, `answered`, or `no answer in these files`."""
        if self.used:
            return "used"
        known = [*self.answers, *([self.ended] if self.ended is not None else [])]
        events = [one.approval.event for one in known if one.approval is not None]
        for event in ("rejected", "unused", "expired", "approved", "answered"):
            if event in events:
                return event
        return "no answer in these files"

    def document(self) -> dict[str, Any]:
        """Return the history as JSON values."""
        return {
            "id": self.id,
            "outcome": self.outcome,
            "asked_by": self.asked.decision_id if self.asked else "",
            "asked_at": self.asked.at if self.asked else "",
            "repeated": self.repeated,
            "seen_at": self.seen_at,
            "answers": [one.document() for one in self.answers],
            "used_by": [one.decision_id for one in self.used],
            "ended_at": self.ended.at if self.ended else "",
        }


@dataclass(frozen=True, slots=True)
class Summary:
    """Extent of a timeline."""

    session: str
    """Id of the session; empty if only a task was asked for."""
    task: str
    """Only this task; empty: all tasks of the session."""
    files: tuple[str, ...]
    records: int
    """Records of the timeline."""
    repeated: int
    """Records that stand twice, as at a rotation; each is shown once."""
    damaged: int
    """Lines that are not records."""
    first: str
    last: str
    tasks: tuple[str, ...]
    """At most 100."""
    principals: tuple[str, ...]
    """At most 100."""


class Timeline:
    """Timeline that was collected.

    Args:
        database: Database with the records.
        summary: Extent.
    """

    def __init__(self, database: sqlite3.Connection, summary: Summary) -> None:
        self._database = database
        self.summary = summary

    def events(self) -> Iterator[TimelineEvent]:
        """Yield the events by time; events of one millisecond by their place in the chain, or in the files."""
        for (event,) in self._database.execute(f"SELECT event FROM events {_ORDER}"):  # noqa: S608 - a constant
            yield TimelineEvent.loads(event)

    def labels(self) -> Iterator[JoinedLabel]:
        """Yield the labels that joined, with the call that brought each."""
        rows = self._database.execute(
            "SELECT label, decision, carried, (SELECT event FROM events WHERE id = decision ORDER BY replaces LIMIT 1)"
            " FROM labels ORDER BY decision, label"
        )
        for label, decision, carried, event in rows:
            known = TimelineEvent.loads(event) if event else None
            yield JoinedLabel(label, decision, bool(carried), known)

    def approvals(self) -> Iterator[ApprovalHistory]:
        """Yield the approvals that the calls asked for, in the order of their ids."""
        rows = self._database.execute(
            "SELECT approval, event FROM events WHERE approval IN (SELECT id FROM approvals)"
            " ORDER BY approval, at, segment, place, file, line"
        )
        for name, events in groupby(rows, key=lambda row: str(row[0])):
            yield _history(plain(name, 1_000), (TimelineEvent.loads(event) for _, event in events))

    def damage(self) -> Iterator[Damage]:
        """Yield the lines that are not records, in the order of the files."""
        for row in self._database.execute("SELECT file, line, defect FROM damage ORDER BY rowid"):
            yield Damage(*row)

    def json(self) -> Iterator[str]:
        """Yield the timeline as one JSON document, in pieces."""
        yield '{\n"summary": ' + json.dumps(_summary_document(self.summary))
        sections: tuple[tuple[str, Iterator[dict[str, Any]]], ...] = (
            ("events", (one.document() for one in self.events())),
            ("labels", (_label_document(one) for one in self.labels())),
            ("approvals", (one.document() for one in self.approvals())),
            ("damaged_lines", (asdict(one) for one in self.damage())),
        )
        for name, documents in sections:
            yield f',\n"{name}": ['
            for number, document in enumerate(documents):
                yield ("," if number else "") + "\n  " + json.dumps(document)
            yield "\n]"
        yield "\n}\n"


def _summary_document(summary: Summary) -> dict[str, Any]:
    return {"format": "authz.session-timeline.v1", **asdict(summary)}


def _label_document(joined: JoinedLabel) -> dict[str, Any]:
    known = joined.event
    return {
        "label": joined.label,
        "decision_id": joined.decision_id,
        "carried": joined.carried,
        "operation": known.operation if known else "",
        "at": known.at if known else "",
    }


def _history(name: str, events: Iterator[TimelineEvent]) -> ApprovalHistory:
    asked: TimelineEvent | None = None
    ended: TimelineEvent | None = None
    repeated, seen_at = 0, ""
    answers: list[TimelineEvent] = []
    used: list[TimelineEvent] = []
    for event in events:
        approval = event.approval
        if approval is None:
            continue
        if event.kind == "answer":
            answers.append(event)
            seen_at = seen_at or _seen_at(event.at, approval.decided_in_ms)
        elif approval.event in {"expired", "unused"}:
            ended = event
        elif approval.event == "made":
            asked = asked or event
        elif approval.event == "repeated":
            repeated += 1
        elif approval.event in {"consumed", "relied"} and event.answered:
            used.append(event)
    return ApprovalHistory(name, asked, repeated, seen_at, answers, used, ended)


def _seen_at(at: str, decided_in_ms: int | None) -> str:
    if decided_in_ms is None:
        return ""
    try:
        seen = datetime.fromisoformat(at) - timedelta(milliseconds=decided_in_ms)
        return seen.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError):
        return ""


@contextmanager
def collect(
    files: Sequence[Path], session: str, task: str = "", torn: Sequence[Path] = ()
) -> Iterator[Timeline]:
    """Collect the timeline of a session.

    Args:
        files: Audit files; `.gz` is unpacked on the way.
        session: Id of the session. Empty: that of `task`.
        task: Id of a task of the session. Empty: all tasks.
        torn: Files with lines that a crash left unfinished. They are listed as damaged.

    Yields:
        The timeline, which can be read until the end of the block.

    Raises:
        UsageError: No record names the session.
        UnavailableError: A file cannot be read.
    """
    with scratch_database() as database:
        for statement in _SCHEMA:
            database.execute(statement)
        collection = _Collection(database, session, task)
        collection.find_session(files)
        collection.find_linked(files)
        for file in torn:
            collection.take_damage(Diagnostic("a crash left this line unfinished.", str(file), 1))
        yield Timeline(database, collection.summary(files))


@dataclass(frozen=True, slots=True)
class _Bounds:
    """Timestamps of the records that name the session."""

    first: str
    last: str
    end: str
    """Until then a revocation of an agent can end a task of the session."""


class _Collection:
    """Fills the database."""

    def __init__(self, database: sqlite3.Connection, session: str, task: str) -> None:
        self._database = database
        self._session = session
        self._task = task
        self._repeated = 0
        self._damaged = 0

    def find_session(self, files: Sequence[Path]) -> None:
        """Take the records that name the session."""
        for number, file in enumerate(files):
            for record in read(file, self.take_damage):
                given = _named_session(record)
                if self._is_of_session(given):
                    self._take_own(number, file, record, given)
        if not self._count():
            named = f"session {plain(self._session, 80)}" if self._session else ""
            task = f"task {plain(self._task, 80)}" if self._task else ""
            raise UsageError(f"no record of {' and '.join(filter(None, (named, task)))}")

    def _is_of_session(self, given: Mapping[str, Any]) -> bool:
        task = _map(given.get("task"))
        if self._task and task.get("id") != self._task:
            return False
        if not self._session:
            return True
        # The session of a call without a task stands in `input.session`.
        return self._session in {_id(task, "session"), _id(_map(given.get("session")), "id")}

    def _take_own(self, number: int, file: Path, record: Record, given: Mapping[str, Any]) -> None:
        task = _id(_map(given.get("task")), "id")
        event = self._take(number, file, record)
        if event is None:
            return
        execute = self._database.execute
        if not is_node_record(record.fields):
            row = (_key(record.decision_id), _key(task))
            execute("INSERT OR IGNORE INTO decisions VALUES (?, ?)", row)
        if task:
            execute("INSERT OR IGNORE INTO tasks VALUES (?)", (_key(task),))
        if node := _id(_map(record.fields.get("labels")), "id"):
            execute("INSERT OR IGNORE INTO nodes VALUES (?)", (_key(node),))
        for link in given.get("chain") or ():
            if name := _id(_map(link), "id"):
                execute("INSERT OR IGNORE INTO principals VALUES (?)", (_key(name),))
        for label, decision in event.carried.items():
            self._take_label(label, decision, carried=True)
        for label in event.joins:
            self._take_label(label, event.decision_id, carried=False)
        approval = _map(_map(record.fields.get("result")).get("approval"))
        if approval.get("event") in _OWN_APPROVAL and (name := _id(approval, "id")):
            execute("INSERT OR IGNORE INTO approvals VALUES (?, ?)", (_key(name), _key(task)))

    def _take_label(self, label: str, decision: str, *, carried: bool) -> None:
        self._database.execute(
            "INSERT INTO labels VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET carried = max(carried, excluded.carried)",
            (label, decision, carried),
        )

    def find_linked(self, files: Sequence[Path]) -> None:
        """Take the records that are linked to those of the session."""
        bounds = self._bounds()

        def is_linked(text: bytes) -> bool:
            return any(member in text for member in _LINKED)

        for number, file in enumerate(files):
            for record in read(file, _ignore, is_linked):
                task = self._linked_task(record, _named_session(record), bounds)
                if task is None:
                    continue
                event = self._take(number, file, record, task)
                if event is None:
                    continue
                for label in event.joins:
                    # The labels of a report join by the permit that it is about.
                    self._take_label(label, event.report_of, carried=False)

    def _linked_task(self, record: Record, given: Mapping[str, Any], bounds: _Bounds) -> str | None:
        """Return the task of a linked record; None: the record is not linked."""
        if self._is_of_session(given):
            return None
        if is_node_record(record.fields):
            return self._linked_node_record(record, bounds)
        if _map(given.get("task")):
            return self._revoked(record, given, bounds)
        if report := _map(given.get("report")):
            return self._find("decisions", _id(report, "decision_id"))
        surface = _map(record.fields.get("labels")).get("surface")
        approval = _map(_map(record.fields.get("result")).get("approval"))
        if surface == "approval_resolve" and approval:
            return self._find("approvals", _id(approval, "id"))
        return self._revoked(record, given, bounds)

    def _linked_node_record(self, record: Record, bounds: _Bounds) -> str | None:
        expired = _map(record.fields.get("expired"))
        if approval := _id(expired, "approval"):
            task = self._find("approvals", approval)
            is_of_session = not self._task and _id(expired, "session") == self._session
            return "" if task is None and is_of_session else task
        at = record.fields.get("timestamp")
        first = last = at
        if "dropped" in record.fields:
            # The record comes after the decisions whose records are missing.
            dropped = _map(record.fields.get("dropped"))
            first, last = dropped.get("first"), dropped.get("last")
        elif "loaded" not in record.fields and "refused" not in record.fields:
            return None
        if not isinstance(first, str) or not isinstance(last, str):
            return None
        node = _id(_map(record.fields.get("labels")), "id")
        known = self._database.execute("SELECT 1 FROM nodes WHERE id = ?", (_key(node),))
        return "" if first <= bounds.last and last >= bounds.first and known.fetchone() else None

    def _revoked(self, record: Record, given: Mapping[str, Any], bounds: _Bounds) -> str | None:
        revoked = _map(given.get("revoked"))
        target, value = _id(revoked, "target"), _id(revoked, "value")
        if not value:
            return None
        if target == "session":
            return "" if value == self._session else None
        if target == "task":
            known = self._database.execute("SELECT 1 FROM tasks WHERE id = ?", (_key(value),))
            return value if known.fetchone() else None
        at = record.fields.get("timestamp")
        if target not in {"agent", "subject"} or not isinstance(at, str):
            return None
        if not bounds.first <= at <= bounds.end:
            return None
        known = self._database.execute("SELECT 1 FROM principals WHERE id = ?", (_key(value),))
        return "" if known.fetchone() else None

    def _find(self, table: str, name: str) -> str | None:
        row = self._database.execute(
            f"SELECT task FROM {table} WHERE id = ?",  # noqa: S608 - names of this module
            (_key(name),),
        ).fetchone()
        return None if row is None or not name else str(row[0])

    def _bounds(self) -> _Bounds:
        first, last = self._database.execute(
            "SELECT min(at), max(at) FROM events WHERE at != ''"
        ).fetchone()
        try:
            end = datetime.fromisoformat(last) + _LONGEST_TASK
            return _Bounds(
                first, last, end.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            )
        except (TypeError, ValueError, OverflowError):
            return _Bounds("", "", "")

    def _take(
        self, number: int, file: Path, record: Record, task: str = ""
    ) -> TimelineEvent | None:
        """Keep the event of a record. Returns None if the record was taken before."""
        result = _map(record.fields.get("result"))
        replaces = "instead_of" in result
        event = read_event(record.fields, Place.of(str(file), record.line, record.text), task)
        place = event.place
        expired = _map(record.fields.get("expired")) if is_node_record(record.fields) else {}
        approval = _key(_id(_map(result.get("approval")), "id") or _id(expired, "approval"))
        # A record without an id is unlike every other.
        key = _key(record.decision_id) or f"{number}:{record.line}"
        is_new = self._database.execute(
            "INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                key,
                replaces,
                event.at,
                place.segment,
                place.index,
                number,
                place.line,
                approval,
                event.dumps(),
            ),
        ).rowcount
        if not is_new:
            self._repeated += 1
            return None
        self._mark_unanswered(key)
        return event

    def _mark_unanswered(self, key: str) -> None:
        """Mark the record in whose place a later one stands."""
        rows = self._database.execute(
            "SELECT event FROM events WHERE id = ? ORDER BY replaces", (key,)
        ).fetchall()
        if len(rows) > 1:
            event = json.loads(rows[0][0])
            event["answered"] = False
            self._database.execute(
                "UPDATE events SET event = ? WHERE id = ? AND replaces = 0",
                (json.dumps(event), key),
            )

    def take_damage(self, diagnostic: Diagnostic) -> None:
        """Keep the place of a line that is not a record."""
        self._damaged += 1
        self._database.execute(
            "INSERT INTO damage VALUES (?, ?, ?)",
            (_key(diagnostic.file), diagnostic.line, diagnostic.what),
        )

    def _count(self) -> int:
        (count,) = self._database.execute("SELECT count(*) FROM events").fetchone()
        return int(count)

    def summary(self, files: Sequence[Path]) -> Summary:
        """Return the extent of the timeline."""
        first, last = self._database.execute("SELECT min(at), max(at) FROM events").fetchone()
        return Summary(
            session=plain(self._session, 200),
            task=plain(self._task, 200),
            files=tuple(str(file) for file in files),
            records=self._count(),
            repeated=self._repeated,
            damaged=self._damaged,
            first=first or "",
            last=last or "",
            tasks=self._names("tasks"),
            principals=self._names("principals"),
        )

    def _names(self, table: str) -> tuple[str, ...]:
        rows = self._database.execute(f"SELECT id FROM {table} LIMIT 100")  # noqa: S608 - names of this module
        return tuple(plain(str(name), 400) for (name,) in rows)


def _named_session(record: Record) -> Mapping[str, Any]:
    """Return the members that name task and session, in the form of `input`; empty for the end of an approval, which names no task."""
    if not is_node_record(record.fields):
        return _map(record.fields.get("input"))
    expired = _map(record.fields.get("expired"))
    if not _id(expired, "task"):
        return {}
    return {"task": {"id": expired["task"], "session": expired.get("session")}}


def _ignore(_: Diagnostic) -> None:
    """Ignore a damaged line: the first pass told it."""


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _id(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def _key(text: str) -> str:
    """Return a text that SQLite can keep: JSON can have halves of surrogate pairs."""
    return text.encode("utf-8", "backslashreplace").decode()

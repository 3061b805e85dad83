"""Records of a period in a database on disk, each decision once.

A decision can have two records: a permit that could not be made durable, and the denial in its place, which has `instead_of`. The
second one counts. A record that was written at the moment of a rotation can stand in two files, and counts once. Records of a node that
are not decisions have tables of their own.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from authz.audit import Record, RecordedDecision, is_node_record, read_decision
from authz.tools.audit_report.members import count_of, mapping, shown, text_of, texts
from authz.tools.audit_report.node_records import NODE_SCHEMA, NodeRecord, insert_node_record
from authz.tools.audit_report.period import Period

__all__ = ["Count", "ReportDatabase"]

_SCHEMA: Final = (
    """CREATE TABLE kinds (kind INTEGER PRIMARY KEY, node, surface, outcome, code, tier, enforced, probe, is_sum,
    UNIQUE (node, surface, outcome, code, tier, enforced, probe, is_sum))""",
    "CREATE TABLE bundles (bundle INTEGER PRIMARY KEY, name, revision, digest, UNIQUE (name, revision, digest))",
    """CREATE TABLE records (id PRIMARY KEY, at, kind INT, bundle INT, times INT, file INT, line INT, inside INT,
    replaces INT) WITHOUT ROWID""",
    """CREATE TABLE approvals (record, approval, event, at, person, method, decided_ms INT, reject_reason, is_answer INT,
    inside INT)""",
    "CREATE TABLE grounds (record, form, name, PRIMARY KEY (record, form, name)) WITHOUT ROWID",
    "CREATE TABLE exceptions (record, name, PRIMARY KEY (record, name)) WITHOUT ROWID",
    "CREATE TABLE breakglass_uses (record PRIMARY KEY, id) WITHOUT ROWID",
    """CREATE TABLE breakglass (record PRIMARY KEY, action, id, system, agent, ticket, reason, opened_by, confirmed_by,
    ended_by, ends_at) WITHOUT ROWID""",
    "CREATE TABLE acts (record PRIMARY KEY, target, value, person, reason, undo INT) WITHOUT ROWID",
    "CREATE TABLE damage (file INT, line INT, defect)",
    "CREATE INDEX approvals_of ON approvals (approval, event)",
    # Records of the period. Judged calls are no probes and no sums.
    """CREATE TEMP VIEW period AS SELECT r.id AS id, at, substr(at, 1, 10) AS day, times, file, line, node, surface, outcome,
    code, tier, enforced, probe, is_sum, b.name AS bundle, revision, digest, outcome = 'PERMIT' OR NOT enforced AS passed,
    NOT probe AND NOT is_sum AND surface IN ('check', 'batch_check', 'ext_authz') AS is_call
    FROM records r JOIN kinds USING (kind) JOIN bundles b USING (bundle) WHERE inside""",
)
_DETAILS: Final = ("approvals", "grounds", "exceptions", "breakglass_uses", "breakglass", "acts")
_MOST_CACHED: Final = 10_000
_ADMINISTRATION: Final = frozenset(
    {
        "revoke",
        "forget",
        "record_erasure",
        "task_names",
        "breakglass_open",
        "breakglass_confirm",
        "breakglass_end",
        "security_event",
    }
)
_EARLIER: Final = (b'"approval"', b'"loaded"')
_ACTORS: Final = {"open": "opened_by", "confirm": "confirmed_by", "end": "ended_by"}


@dataclass(slots=True)
class Count:
    """Numbers of the read records."""

    records: int = 0
    """Records of all files."""
    undated: int = 0
    """Records without a valid timestamp. They are in no period."""
    outside: int = 0
    """Records outside the period."""
    repeated: int = 0
    """Records of the period that stand twice."""
    replaced: int = 0
    """Decisions of the period with a second record, which replaces a record that was not answered."""
    damaged: int = 0
    """Lines that are not records."""
    first: str = ""
    """First timestamp of all files."""
    last: str = ""
    """Last timestamp of all files."""


class _Names:
    """Numbers of rows that many records share."""

    def __init__(self, database: sqlite3.Connection, table: str, columns: Sequence[str]) -> None:
        self._database = database
        self._known: dict[tuple[Any, ...], int] = {}
        values = ", ".join("?" for _ in columns)
        self._insert = f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({values})"  # noqa: S608 - constants
        equal = " AND ".join(f"{column} = ?" for column in columns)
        self._select = f"SELECT rowid FROM {table} WHERE {equal}"  # noqa: S608 - constants

    def number(self, row: tuple[Any, ...]) -> int:
        known = self._known.get(row)
        if known is None:
            if len(self._known) >= _MOST_CACHED:
                self._known.clear()
            self._database.execute(self._insert, row)
            (known,) = self._database.execute(self._select, row).fetchone()
            self._known[row] = known
        return int(known)


class ReportDatabase:
    """The records of a period.

    Args:
        database: An empty database.
        period: The period.
    """

    def __init__(self, database: sqlite3.Connection, period: Period) -> None:
        self.database = database
        self.period = period
        self.count = Count()
        for statement in (*_SCHEMA, *NODE_SCHEMA):
            database.execute(statement)
        self._kinds = _Names(
            database,
            "kinds",
            ("node", "surface", "outcome", "code", "tier", "enforced", "probe", "is_sum"),
        )
        self._bundles = _Names(database, "bundles", ("name", "revision", "digest"))

    def rows(self, query: str) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query."""
        yield from self.database.execute(query)

    def numbers(self, query: str) -> list[int]:
        """Return the numbers of a query with one row; a sum of nothing is 0."""
        return [int(number or 0) for number in self.database.execute(query).fetchone()]

    def take_damage(self, file: int, line: int, defect: str) -> None:
        """Keep the place of a line that is not a record."""
        self.count.damaged += 1
        self.database.execute("INSERT INTO damage VALUES (?, ?, ?)", (file, line, defect))

    def take(self, file: int, record: Record) -> None:
        """Take a record.

        Args:
            file: Number of its file.
            record: The record.
        """
        count, decision = self.count, read_decision(record.fields)
        count.records += 1
        at = decision.at
        if not at:
            count.undated += 1
            return
        count.first = min(count.first or at, at)
        count.last = max(count.last, at)
        inside = self.period.holds(at)
        if not inside:
            count.outside += 1
            # Earlier records tell which rule an answer of the period is about, and when a bundle was loaded.
            is_earlier = at < self.period.since and any(name in record.text for name in _EARLIER)
            if not is_earlier:
                return
        key = shown(decision.decision_id) or f"{file}:{record.line}"
        if is_node_record(record.fields):
            node = shown(decision.node)
            of_node = NodeRecord(key, at, node, file, record.line, inside)
            is_new = insert_node_record(self.database, of_node, record.fields)
            count.repeated += inside and not is_new
            return
        replaces = "instead_of" in mapping(record.fields.get("result"))
        if self._insert(key, decision, file, record.line, inside=inside, replaces=replaces):
            self._take_details(key, decision, record.fields, inside=inside)

    def _insert(
        self,
        key: str,
        decision: RecordedDecision,
        file: int,
        line: int,
        *,
        inside: bool,
        replaces: bool,
    ) -> bool:
        """Insert a record. Returns False if another record of the same decision stands."""
        before = self.database.execute(
            "SELECT replaces FROM records WHERE id = ?", (key,)
        ).fetchone()
        if before is not None:
            if replaces == bool(before[0]):
                self.count.repeated += inside
                return False
            self.count.replaced += inside
            if not replaces:
                return False
            for table in _DETAILS:
                self.database.execute(f"DELETE FROM {table} WHERE record = ?", (key,))  # noqa: S608 - constants
        kind = self._kinds.number(
            (
                shown(decision.node),
                shown(decision.surface),
                shown(decision.outcome),
                shown(decision.code),
                shown(decision.tier),
                decision.enforced,
                decision.probe,
                decision.is_sum,
            )
        )
        bundle = self._bundles.number(
            (shown(decision.bundle), shown(decision.revision), shown(decision.digest))
        )
        self.database.execute(
            "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (key, decision.at, kind, bundle, decision.times, file, line, inside, replaces),
        )
        return True

    def _take_details(
        self, key: str, decision: RecordedDecision, fields: Mapping[str, Any], *, inside: bool
    ) -> None:
        given, result = mapping(fields.get("input")), mapping(fields.get("result"))
        approval = mapping(result.get("approval"))
        if approval:
            self._take_approval(key, decision, approval, inside=inside)
        if decision.outcome in {"STEP_UP", "DENY"} and not decision.is_sum:
            self._take_grounds(key, decision, result)
        if not inside:
            return
        execute = self.database.execute
        for name in texts(result.get("exceptions")):
            execute("INSERT OR IGNORE INTO exceptions VALUES (?, ?)", (key, name))
        if uses := mapping(result.get("breakglass")):
            execute("INSERT INTO breakglass_uses VALUES (?, ?)", (key, text_of(uses, "id")))
        if breakglass := mapping(given.get("breakglass")):
            names = (
                "action",
                "id",
                "system",
                "agent",
                "ticket",
                "reason",
                "opened_by",
                "confirmed_by",
                "ended_by",
                "ends_at",
            )
            values = [text_of(breakglass, name) for name in names]
            execute(
                "INSERT INTO breakglass VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (key, *values)
            )
        if decision.surface in _ADMINISTRATION:
            self._take_act(key, decision, given)

    def _take_approval(
        self, key: str, decision: RecordedDecision, approval: Mapping[str, Any], *, inside: bool
    ) -> None:
        people = texts(approval.get("by"))
        self.database.execute(
            "INSERT INTO approvals VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                key,
                text_of(approval, "id"),
                text_of(approval, "event"),
                decision.at,
                people[0] if people else shown(decision.agent),
                text_of(approval, "method"),
                count_of(approval.get("decided_in_ms")),
                text_of(approval, "reject_reason"),
                decision.surface == "approval_resolve",
                inside,
            ),
        )

    def _take_grounds(
        self, key: str, decision: RecordedDecision, result: Mapping[str, Any]
    ) -> None:
        rules = [f"{rule.kind.replace('_', ' ')} {rule.name}" for rule in decision.rules]
        rules = rules or [f"policy {name}" for name in decision.policies]
        grounds = [
            *(("rule", shown(rule)) for rule in rules),
            *(("control", control) for control in texts(result.get("controls"))),
            ("all", ""),
        ]
        self.database.executemany(
            "INSERT OR IGNORE INTO grounds VALUES (?, ?, ?)",
            [(key, form, name) for form, name in grounds],
        )

    def _take_act(self, key: str, decision: RecordedDecision, given: Mapping[str, Any]) -> None:
        act = _act_of(given)
        self.database.execute(
            "INSERT INTO acts VALUES (?, ?, ?, ?, ?, ?)",
            (
                key,
                act.target,
                act.value,
                act.by or shown(decision.agent),
                act.reason,
                act.is_undo,
            ),
        )


@dataclass(frozen=True, slots=True)
class _Act:
    """An administrative act, or an event of an identity provider that acted like an administrator."""

    target: str = ""
    value: str = ""
    by: str = ""
    reason: str = ""
    is_undo: bool = False


def _act_of(given: Mapping[str, Any]) -> _Act:
    """Read the act of a record from its `input`."""
    if breakglass := mapping(given.get("breakglass")):
        by = text_of(breakglass, _ACTORS.get(text_of(breakglass, "action"), ""))
        return _Act("system", text_of(breakglass, "system"), by, text_of(breakglass, "reason"))
    if event := mapping(given.get("security_event")):
        # The event says what happened at the identity provider; the action, what Authz did.
        parts = [text_of(event, name) for name in ("action", "event", "reason")]
        reason = " ".join(part for part in parts if part)
        return _Act("subject", text_of(event, "subject"), text_of(event, "transmitter"), reason)
    if erasure := mapping(given.get("erasure")):
        words = text_of(erasure, "selection")
        return _Act("texts", words, text_of(erasure, "by"), text_of(erasure, "reason"))
    named = mapping(given.get("revoked")) or mapping(given.get("forgotten"))
    return _Act(
        text_of(named, "target"),
        text_of(named, "value"),
        text_of(named, "by"),
        text_of(named, "reason"),
        named.get("undo") is True,
    )

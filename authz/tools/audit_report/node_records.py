"""Records of a node that are not decisions: bundles that it loaded or refused, ends by time, heads of other nodes' logs, and dropped records."""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from authz.tools.audit_report.members import count_of, mapping, text_of

__all__ = ["NODE_SCHEMA", "NodeRecord", "insert_node_record"]

NODE_SCHEMA: Final = (
    "CREATE TABLE notes (record PRIMARY KEY, at, node, kind, inside INT, file INT, line INT) WITHOUT ROWID",
    "CREATE TABLE loads (record PRIMARY KEY, bundle, revision, digest, trust) WITHOUT ROWID",
    "CREATE TABLE refused_loads (record PRIMARY KEY, digest, in_use, place, error, errors INT, unrecorded INT) WITHOUT ROWID",
    "CREATE TABLE drops (record PRIMARY KEY, times INT) WITHOUT ROWID",
    "CREATE TABLE task_ends (record PRIMARY KEY, tasks INT) WITHOUT ROWID",
    "CREATE TABLE approval_ends (approval, was_approved INT, PRIMARY KEY (approval, was_approved)) WITHOUT ROWID",
)
"""Tables of these records."""
_KINDS: Final = ("loaded", "refused", "expired", "heads", "dropped")


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A record of a node."""

    key: str
    """Id, or its place if it has none."""
    at: str
    node: str
    file: int
    line: int
    inside: bool
    """It is in the period."""


def insert_node_record(
    database: sqlite3.Connection, record: NodeRecord, fields: Mapping[str, Any]
) -> bool:
    """Insert a record of a node. Returns False if it stands there already."""
    kind = next((name for name in _KINDS if name in fields), "other")
    row = (record.key, record.at, record.node, kind, record.inside, record.file, record.line)
    inserted = database.execute("INSERT OR IGNORE INTO notes VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    if not inserted.rowcount:
        return False
    if kind == "loaded":
        loaded = mapping(fields.get("loaded"))
        members = [text_of(loaded, name) for name in ("bundle", "revision", "digest", "trust")]
        database.execute("INSERT INTO loads VALUES (?, ?, ?, ?, ?)", (record.key, *members))
    elif kind == "refused":
        database.execute(
            "INSERT INTO refused_loads VALUES (?, ?, ?, ?, ?, ?, ?)",
            (record.key, *_refused_row(mapping(fields.get("refused")))),
        )
    elif kind == "dropped":
        times = count_of(mapping(fields.get("dropped")).get("count")) or 1
        database.execute("INSERT INTO drops VALUES (?, ?)", (record.key, times))
    elif kind == "expired":
        expired = mapping(fields.get("expired"))
        if approval := text_of(expired, "approval"):
            was_approved = expired.get("was_approved") is True
            database.execute(
                "INSERT OR IGNORE INTO approval_ends VALUES (?, ?)", (approval, was_approved)
            )
        elif text_of(expired, "task"):
            tasks = count_of(expired.get("tasks")) or 1
            database.execute("INSERT INTO task_ends VALUES (?, ?)", (record.key, tasks))
    return True


def _refused_row(refused: Mapping[str, Any]) -> tuple[object, ...]:
    errors = refused.get("errors")
    listed = errors if isinstance(errors, list) else []
    first = mapping(listed[0]) if listed else {}
    return (
        text_of(refused, "digest"),
        text_of(refused, "in_use"),
        text_of(first, "at"),
        text_of(first, "message"),
        len(listed) + (count_of(refused.get("omitted")) or 0),
        count_of(refused.get("unrecorded")) or 0,
    )

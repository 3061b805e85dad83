"""Reads the audit: JSON lines, one record a decision."""

from authz.audit.decision import (
    ChainLink,
    RecordedDecision,
    RecordedRule,
    RecordedTask,
    UnresolvedRequest,
)
from authz.audit.history import Span, decisions, rotated, span
from authz.audit.reader import Lines, Record, read, read_stream

__all__ = [
    "ChainLink",
    "Lines",
    "Record",
    "RecordedDecision",
    "RecordedRule",
    "RecordedTask",
    "Span",
    "UnresolvedRequest",
    "decisions",
    "read",
    "read_stream",
    "rotated",
    "span",
]

"""Reads the audit: JSON lines, one record a decision."""

from authz.audit.decision import (
    ChainLink,
    RecordedDecision,
    RecordedRule,
    RecordedTask,
    UnresolvedRequest,
)
from authz.audit.heads import HeadError, HeadKeys, Jwks
from authz.audit.history import Span, decisions, rotated, span
from authz.audit.reader import Lines, Record, read, read_stream
from authz.audit.verify import Finding, Verification, verify

__all__ = [
    "ChainLink",
    "Finding",
    "HeadError",
    "HeadKeys",
    "Jwks",
    "Lines",
    "Record",
    "RecordedDecision",
    "RecordedRule",
    "RecordedTask",
    "Span",
    "UnresolvedRequest",
    "Verification",
    "decisions",
    "read",
    "read_stream",
    "rotated",
    "span",
    "verify",
]

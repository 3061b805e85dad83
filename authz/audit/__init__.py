"""Reads the audit: JSON lines, one record a decision, and records of the node itself.

This package exports the reading and verifying of logs. Receipts have modules of their own: `receipt` is the form, `receipt_writing`
makes one from a log, and `receipt_verification` verifies one, with `answer_proof` for the signatures of passkeys.
"""

from authz.audit.decision import (
    ChainLink,
    RecordedDecision,
    RecordedRule,
    RecordedTask,
    UnresolvedRequest,
    is_node_record,
    read_decision,
)
from authz.audit.heads import HeadError, HeadKeys, Jwks
from authz.audit.history import (
    ReadCounts,
    Span,
    decision_records,
    decisions,
    rotated,
    span,
    torn,
)
from authz.audit.reader import Lines, Record, read, read_stream
from authz.audit.verify import Finding, Verification, verify, verify_delivered
from authz.audit.witness import witnessed_heads

__all__ = [
    "ChainLink",
    "Finding",
    "HeadError",
    "HeadKeys",
    "Jwks",
    "Lines",
    "ReadCounts",
    "Record",
    "RecordedDecision",
    "RecordedRule",
    "RecordedTask",
    "Span",
    "UnresolvedRequest",
    "Verification",
    "decision_records",
    "decisions",
    "is_node_record",
    "read",
    "read_decision",
    "read_stream",
    "rotated",
    "span",
    "torn",
    "verify",
    "verify_delivered",
    "witnessed_heads",
]

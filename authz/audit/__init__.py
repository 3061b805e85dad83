"""Reads the audit: JSON lines, one record a decision."""

from authz.audit.history import Span, decisions, rotated, span
from authz.audit.past import Asked, Link, Past
from authz.audit.reader import Lines, Record, read, read_stream

__all__ = [
    "Asked",
    "Lines",
    "Link",
    "Past",
    "Record",
    "Span",
    "decisions",
    "read",
    "read_stream",
    "rotated",
    "span",
]

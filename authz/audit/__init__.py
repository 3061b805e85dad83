"""Reads the audit: JSON lines, one record a decision."""

from authz.audit.reader import Record, read

__all__ = ["Record", "read"]

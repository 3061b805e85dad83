"""Facts about the extension: how it was built, and its table of reason codes."""

import json
from typing import Any

from authz import _native

__all__ = ["build_profile", "reason_table"]


def build_profile() -> str:
    """Return how the extension was built: `release`, `guided` (PGO), or `debug`, whose speed says nothing."""
    return _native.build_profile()


def reason_table() -> list[dict[str, Any]]:
    """Return one row for each reason code: its public code, next action, retry advice and messages."""
    rows: list[dict[str, Any]] = json.loads(_native.reason_table())
    return rows

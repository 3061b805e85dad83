"""The table of reason codes, also for tests that run where the engine is not installed."""

import json
import os
from pathlib import Path
from typing import Any

VARIABLE = "AUTHZ_REASON_TABLE"
"""Variable that names a file with the table, which `write_reason_rows` wrote."""


def reason_rows() -> dict[str, dict[str, Any]]:
    """The engine's rows by their names."""
    path = os.environ.get(VARIABLE)
    if path is not None:
        rows: list[dict[str, Any]] = json.loads(Path(path).read_text())
    else:
        from authz.engine import reason_table  # noqa: PLC0415 - the client's own tests run without it

        rows = [dict(row) for row in reason_table()]
    return {row["name"]: row for row in rows}


def write_reason_rows(path: Path) -> None:
    """Writes the table for a process without the engine."""
    path.write_text(json.dumps(list(reason_rows().values())))

"""Loads of bundles, refused loads, and tasks that ended by time, of a report."""

from collections.abc import Sequence
from pathlib import Path

from authz.tools.audit_report.database import ReportDatabase
from authz.tools.audit_report.documents import ReportFolder

__all__ = ["write_node_records"]


def write_node_records(folder: ReportFolder, data: ReportDatabase, files: Sequence[Path]) -> None:
    """Write `loads.csv`, `refused_loads.csv` and `expired_tasks.csv`."""
    loads = data.rows(
        """SELECT at, node, bundle, revision, digest, trust, record, file, line FROM loads JOIN notes USING (record)
        WHERE inside ORDER BY at, record"""
    )
    folder.write_csv(
        "loads.csv",
        ("at", "node", "bundle", "revision", "digest", "trust", "record", "file", "line"),
        ((*row[:7], str(files[row[7]]), row[8]) for row in loads),
    )
    refused = data.rows(
        """SELECT at, node, digest, in_use, place, error, errors, unrecorded, record, file, line
        FROM refused_loads JOIN notes USING (record) WHERE inside ORDER BY at, record"""
    )
    folder.write_csv(
        "refused_loads.csv",
        (
            *("at", "node", "digest", "in_use", "place", "error", "errors", "unrecorded_before"),
            *("record", "file", "line"),
        ),
        ((*row[:9], str(files[row[9]]), row[10]) for row in refused),
    )
    folder.write_csv(
        "expired_tasks.csv",
        ("day", "node", "ends", "tasks"),
        data.rows(
            """SELECT substr(at, 1, 10), node, count(*), sum(tasks) FROM task_ends JOIN notes USING (record)
            WHERE inside GROUP BY 1, 2 ORDER BY 1, 2"""
        ),
    )

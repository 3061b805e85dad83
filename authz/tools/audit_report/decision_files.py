"""Bundles and decisions of a report."""

from collections.abc import Iterator, Sequence
from typing import Final

from authz.tools.audit_report.database import ReportDatabase
from authz.tools.audit_report.documents import Cell, ReportFolder, markdown_table
from authz.tools.audit_report.inputs import GivenBundle

__all__ = ["BUNDLE_COLUMNS", "bundle_rows", "write_decisions"]

BUNDLE_COLUMNS: Final = (
    "bundle",
    "revision",
    "digest",
    "first_record",
    "last_record",
    "records",
    "folder",
)
"""Columns of `bundle_rows`."""
_CALLS: Final = """count(*), sum(outcome = 'PERMIT'), sum(outcome = 'STEP_UP'), sum(outcome = 'DENY'), sum(NOT enforced)
FROM period WHERE is_call GROUP BY 1 ORDER BY 1"""
_CALL_TABLES: Final = (
    ("outcome", f"SELECT outcome, {_CALLS}"),
    ("reason code", f"SELECT code, {_CALLS}"),
    ("tier", f"SELECT tier, {_CALLS}"),
    ("day", f"SELECT day, {_CALLS}"),
)


def bundle_rows(data: ReportDatabase, bundles: Sequence[GivenBundle]) -> Iterator[tuple[Cell, ...]]:
    """Yield the bundles that judged, by their first records."""
    known = {bundle.digest: str(bundle.folder) for bundle in bundles}
    rows = data.rows(
        """SELECT bundle, revision, digest, min(at), max(at), count(*) FROM period WHERE NOT is_sum
        GROUP BY bundle, revision, digest ORDER BY min(at), digest"""
    )
    for name, revision, digest, first, last, count in rows:
        yield name, revision, digest, first, last, count, known.get(digest, "")


def write_decisions(folder: ReportFolder, data: ReportDatabase) -> None:
    """Write `decisions.csv` and `decisions.md`."""
    rows = data.rows(
        """SELECT day, CASE WHEN is_sum THEN 'sum' ELSE surface END, outcome, code, tier, enforced, probe, count(*), sum(times)
        FROM period GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 1, 2, 3, 4, 5, 6, 7"""
    )
    columns = (
        "day",
        "surface",
        "outcome",
        "reason_code",
        "tier",
        "enforced",
        "probe",
        "records",
        "decisions",
    )
    folder.write_csv(
        "decisions.csv",
        columns,
        ((*row[:5], bool(row[5]), bool(row[6]), *row[7:]) for row in rows),
    )
    folder.write("decisions.md", _decision_text(data))


def _decision_text(data: ReportDatabase) -> Iterator[str]:
    yield "# Decisions\n\n"
    yield (
        "Judged calls (`check`, `batch_check`, `ext_authz`) without probes. `decisions.csv` has the other records, too.\n"
        "A call that `mode: observe` let through counts by its judged outcome, and stands in the column of observed calls.\n"
    )
    for title, query in _CALL_TABLES:
        yield f"\n## By {title}\n\n"
        columns = (title, "calls", "permitted", "held", "denied", "observed")
        yield from markdown_table(columns, data.rows(query))
    yield "\n## Other records by surface\n\n"
    rows = data.rows(
        """SELECT CASE WHEN is_sum THEN 'sum of refusals' WHEN probe THEN 'probe' ELSE surface END, count(*), sum(times)
        FROM period WHERE NOT is_call GROUP BY 1 ORDER BY 1"""
    )
    yield from markdown_table(("surface", "records", "decisions"), rows)

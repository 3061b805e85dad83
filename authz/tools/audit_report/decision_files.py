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
    "node",
    "first_load",
    "last_load",
    "loads",
    "first_record",
    "last_record",
    "records",
    "folder",
)
"""Columns of `bundle_rows`."""
_CALLS: Final = """count(*), sum(outcome = 'PERMIT'), sum(outcome = 'STEP_UP'), sum(outcome = 'DENY'), sum(NOT enforced)
FROM period WHERE is_call GROUP BY 1 ORDER BY 1"""
# Loads before the period count, too: the bundle in force at its start was loaded then.
_BUNDLES: Final = """WITH judged AS (SELECT bundle, revision, digest, node, min(at) AS first, max(at) AS last, count(*) AS records
  FROM period WHERE NOT is_sum GROUP BY 1, 2, 3, 4),
loaded AS (SELECT bundle, revision, digest, node, min(at) AS first_load, max(at) AS last_load, count(*) AS loads, max(inside) AS inside
  FROM loads JOIN notes USING (record) GROUP BY 1, 2, 3, 4),
named AS (SELECT bundle, revision, digest, node FROM judged UNION SELECT bundle, revision, digest, node FROM loaded WHERE inside)
SELECT bundle, revision, digest, node, first_load, last_load, coalesce(loads, 0), first, last, coalesce(records, 0)
FROM named LEFT JOIN judged USING (bundle, revision, digest, node) LEFT JOIN loaded USING (bundle, revision, digest, node)
ORDER BY min(coalesce(first, first_load)) OVER (PARTITION BY bundle, revision, digest), digest, node"""
_CALL_TABLES: Final = (
    ("outcome", f"SELECT outcome, {_CALLS}"),
    ("reason code", f"SELECT code, {_CALLS}"),
    ("tier", f"SELECT tier, {_CALLS}"),
    ("day", f"SELECT day, {_CALLS}"),
)


def bundle_rows(data: ReportDatabase, bundles: Sequence[GivenBundle]) -> Iterator[tuple[Cell, ...]]:
    """Yield the bundles that judged or were loaded, by node, in the order of their first records or loads."""
    known = {bundle.digest: str(bundle.folder) for bundle in bundles}
    for row in data.rows(_BUNDLES):
        yield *(cell if cell is not None else "" for cell in row), known.get(row[2], "")


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

"""Exceptions, break-glass and acts of administrators of a report."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from authz.tools.audit_report.database import ReportDatabase
from authz.tools.audit_report.decision_files import bundle_rows
from authz.tools.audit_report.documents import Cell, ReportFolder
from authz.tools.audit_report.inputs import GivenBundle
from authz.tools.audit_report.period import timestamp

__all__ = ["write_acts", "write_exceptions"]


def write_exceptions(
    folder: ReportFolder, data: ReportDatabase, bundles: Sequence[GivenBundle]
) -> None:
    """Write `exceptions.csv` and `breakglass.csv`."""
    folder.write_csv(
        "exceptions.csv",
        (
            "exception",
            "bundle_revision",
            "bundle_digest",
            "permitted",
            "not_permitted",
            "first_use",
            "last_use",
            "who",
            "owner",
            "ticket",
            "reason",
            "expires",
        ),
        _exceptions(data, bundles),
    )
    folder.write_csv(
        "breakglass.csv",
        (
            "id",
            "system",
            "agent",
            "ticket",
            "reason",
            "opened_at",
            "opened_by",
            "confirmed_at",
            "confirmed_by",
            "ends_at",
            "ended_at",
            "ended_by",
            "refused_attempts",
            "permitted",
            "not_permitted",
        ),
        _breakglass(data),
    )


def _exceptions(data: ReportDatabase, bundles: Sequence[GivenBundle]) -> Iterator[tuple[Cell, ...]]:
    """Yield uses by exception and bundle, also of declared exceptions without uses."""
    declared = {(one.name, bundle.digest): one for bundle in bundles for one in bundle.exceptions}
    in_force = {row[2]: row[1] for row in bundle_rows(data, bundles)}
    uses = {
        (row[0], row[2]): row
        for row in data.rows(
            """SELECT name, revision, digest, sum(passed), sum(NOT passed), min(at), max(at)
            FROM exceptions JOIN period ON id = record WHERE NOT probe GROUP BY name, revision, digest"""
        )
    }
    for name, digest in sorted({*uses, *(key for key in declared if key[1] in in_force)}):
        use = uses.get((name, digest))
        counted = use[3:] if use is not None else (0, 0, "", "")
        row: tuple[Cell, ...] = (name, in_force.get(digest, ""), digest, *counted)
        if (one := declared.get((name, digest))) is None:
            yield *row, "", "", "", "", ""
            continue
        expires = timestamp(datetime.fromtimestamp(one.expires_ms / 1000, UTC))
        yield *row, one.who, one.owner, one.ticket, one.reason, expires


def _breakglass(data: ReportDatabase) -> Iterator[tuple[Cell, ...]]:
    rows = data.rows(
        """WITH acts AS (SELECT b.*, at, outcome = 'PERMIT' AS done FROM breakglass b JOIN period p ON p.id = b.record
          WHERE b.id != ''),
        uses AS (SELECT u.id, sum(passed) AS passed, sum(NOT passed) AS refused FROM breakglass_uses u
          JOIN period p ON p.id = u.record WHERE NOT probe GROUP BY u.id),
        ids AS (SELECT id FROM acts UNION SELECT id FROM uses)
        SELECT id, max(system), max(agent), max(ticket), max(reason),
          min(CASE WHEN done AND action = 'open' THEN at END), max(opened_by),
          min(CASE WHEN done AND action = 'confirm' THEN at END), max(CASE WHEN done THEN confirmed_by END),
          max(CASE WHEN done THEN ends_at END),
          min(CASE WHEN done AND action = 'end' THEN at END), max(CASE WHEN done THEN ended_by END),
          sum(NOT done), max(passed), max(refused)
        FROM ids LEFT JOIN acts USING (id) LEFT JOIN uses USING (id) GROUP BY id ORDER BY 6, id"""
    )
    for row in rows:
        yield (
            *(cell if cell is not None else "" for cell in row[:12]),
            *(cell or 0 for cell in row[12:]),
        )


def write_acts(folder: ReportFolder, data: ReportDatabase, files: Sequence[Path]) -> None:
    """Write `administration.csv`."""
    rows = data.rows(
        """SELECT at, surface, target, value, person, reason, undo, outcome, code, id, file, line
        FROM acts JOIN period ON id = record ORDER BY at, id"""
    )
    folder.write_csv(
        "administration.csv",
        (
            "at",
            "act",
            "target",
            "value",
            "by",
            "reason",
            "undo",
            "outcome",
            "reason_code",
            "decision_id",
            "file",
            "line",
        ),
        ((*row[:6], bool(row[6]), *row[7:10], str(files[row[10]]), row[11]) for row in rows),
    )

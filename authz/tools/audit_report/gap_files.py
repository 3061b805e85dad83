"""Missing and damaged records, in a report."""

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from authz.audit import Verification
from authz.tools.audit_report.database import ReportDatabase
from authz.tools.audit_report.documents import ReportFolder, markdown
from authz.tools.audit_report.inputs import ReportInput

__all__ = ["write_gaps"]

_MOST_IN_TEXT: Final = 200


def write_gaps(folder: ReportFolder, data: ReportDatabase, given: ReportInput) -> None:
    """Write `gaps.md`, `verification.json`, `damaged_lines.csv` and `refusal_sums.csv`."""
    files = given.files
    results = [{"node": log.node, **log.verification.document()} for log in given.logs]
    folder.write("verification.json", [json.dumps(results, indent=2), "\n"])
    folder.write_csv(
        "damaged_lines.csv",
        ("file", "line", "defect"),
        (
            (str(files[file]), line, defect)
            for file, line, defect in data.rows(
                "SELECT file, line, defect FROM damage ORDER BY rowid"
            )
        ),
    )
    folder.write_csv(
        "refusal_sums.csv",
        ("day", "reason_code", "records", "refusals"),
        data.rows(
            """SELECT day, code, count(*), sum(times) FROM period WHERE is_sum GROUP BY 1, 2 ORDER BY 1, 2"""
        ),
    )
    folder.write("gaps.md", _gap_text(data, given))


def _gap_text(data: ReportDatabase, given: ReportInput) -> Iterator[str]:
    count = data.count
    yield "# Gaps\n"
    for log in given.logs:
        name = f" of node {markdown(log.node)}" if log.node else ""
        yield f"\n## Verification of the whole log{name}\n\n"
        yield from _verification_text(log.verification, keys_given=given.keys_given)
    (unrecorded,) = data.numbers("SELECT sum(times) FROM period WHERE code = 'AUDIT_FULL'")
    (dropped,) = data.numbers("SELECT sum(times) FROM drops JOIN notes USING (record) WHERE inside")
    sums = data.numbers("SELECT count(*), sum(times) FROM period WHERE is_sum")
    yield (
        "\n## Records\n\n"
        f"- {count.damaged} lines are not records: `damaged_lines.csv`\n"
        f"- {len(given.torn)} files with a line that a crash left unfinished: {_names(given.torn)}\n"
        f"- {count.undated} records without a valid timestamp, which are in no period\n"
        f"- {count.repeated} records of the period stand twice; each counts once\n"
        f"- {count.replaced} decisions have a second record, since the first could not be made durable and was not answered;"
        " the second counts\n"
        f"- {unrecorded} calls denied because they could not be recorded (`AUDIT_FULL`)\n"
        f"- {dropped} decisions answered without a record, since the audit queue was full (`audit.on_full: drop`)\n"
        f"- {sums[1]} refusals without records of their own, in {sums[0]} sums: `refusal_sums.csv`\n"
    )
    for node, silent in _silent_days(data):
        days = ", ".join(silent[:_MOST_IN_TEXT]) or "none"
        more = f" and {len(silent) - _MOST_IN_TEXT} more" if len(silent) > _MOST_IN_TEXT else ""
        of = f" of node {markdown(node)}" if node else ""
        yield f"- days of the period without a record{of}: {days}{more}\n"


def _verification_text(result: Verification, *, keys_given: bool) -> Iterator[str]:
    if not result.lines:
        yield "The log has no chain (`audit.chain`): nothing here proves that no record was changed or removed.\n\n"
    yield (
        f"- {result.lines} lines in the chain, in {result.segments} segments; {result.proved} of them proved by heads\n"
        f"- {result.unproved} lines after the newest head, which nothing proves\n"
        f"- {result.before} lines from before the chain\n"
        f"- {result.dropped} older segments that are not here\n"
    )
    if keys_given:
        keys = markdown(", ".join(result.keys)) or "no key"
        yield f"- {result.signatures} of {result.heads} heads signed by {keys}\n"
    else:
        yield f"- signatures of {result.heads} heads not checked: no keys were given\n"
    yield f"- {len(result.findings)} findings, {len(result.notes)} notes; `verification.json` has all of them\n"
    for finding in result.findings[:_MOST_IN_TEXT]:
        yield f"  - {markdown(str(finding))}\n"
    for note in result.notes[:_MOST_IN_TEXT]:
        yield f"  - note: {markdown(note)}\n"


def _names(files: Sequence[Path]) -> str:
    return markdown(", ".join(str(file) for file in files[:_MOST_IN_TEXT]) or "none")


def _silent_days(data: ReportDatabase) -> Iterator[tuple[str, list[str]]]:
    """Yield the days without a record by node; all days without a node if the period has no record."""
    days = data.period.days()
    rows = data.rows(
        """SELECT node, day FROM period UNION SELECT node, substr(at, 1, 10) FROM notes WHERE inside ORDER BY 1, 2"""
    )
    seen = {
        node: {day for _, day in group} for node, group in groupby(rows, key=lambda row: row[0])
    }
    for node, with_record in (seen or {"": set()}).items():
        yield node, [day for day in days if day not in with_record]

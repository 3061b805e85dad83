"""Folder for an auditor: numbers of a period, counted from the audit log, and a sample of its records."""

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from authz.audit import Lines, read_stream
from authz.audit.reader import open_log
from authz.audit.scratch import scratch_database
from authz.errors import UnavailableError
from authz.model import Diagnostic
from authz.tools.audit_report.approval_files import write_approvals
from authz.tools.audit_report.database import ReportDatabase
from authz.tools.audit_report.decision_files import BUNDLE_COLUMNS, bundle_rows, write_decisions
from authz.tools.audit_report.documents import Cell, ReportFolder, markdown_table
from authz.tools.audit_report.exception_files import write_acts, write_exceptions
from authz.tools.audit_report.gap_files import write_gaps
from authz.tools.audit_report.inputs import ReportInput
from authz.tools.audit_report.node_files import write_node_records
from authz.tools.audit_report.period import timestamp
from authz.tools.audit_report.sample_files import write_samples
from authz.tools.audit_report.samples import Sample, sample
from authz.tools.audit_report.statistics import ApprovalGroup, approval_groups, approvers, prepare

__all__ = ["ReportResult", "write_report"]


@dataclass(frozen=True, slots=True)
class ReportResult:
    """Numbers to print."""

    records: int
    """Records of the period."""
    damaged: int
    """Lines that are not records."""
    findings: int
    """Defects that the verification found."""
    sampled: int
    """Decisions of the sample."""
    receipts: int
    """Receipts of these decisions."""


@dataclass(frozen=True, slots=True)
class _ReadFile:
    """A file of the log, as it was read."""

    path: Path
    bytes_read: int
    sha256: str


class _HashedLines:
    """Lines of a stream, hashed while they are read."""

    def __init__(self, stream: Lines) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self.count = 0

    def readline(self, size: int, /) -> bytes:
        line = self._stream.readline(size)
        self._digest.update(line)
        self.count += len(line)
        return line

    def sha256(self) -> str:
        return self._digest.hexdigest()


def write_report(folder: ReportFolder, given: ReportInput) -> ReportResult:
    """Write the files of a report. `README.md` comes last, so that a folder with it is complete.

    Args:
        folder: An empty folder.
        given: What the report is made from.

    Raises:
        UnavailableError: A file of the log cannot be read, or the temporary folder is full.
    """
    try:
        with scratch_database() as database:
            return _Report(folder, given, ReportDatabase(database, given.period)).write()
    except sqlite3.Error as error:
        raise UnavailableError(f"the records cannot be counted: {error}") from error


class _Report:
    def __init__(self, folder: ReportFolder, given: ReportInput, data: ReportDatabase) -> None:
        self.folder = folder
        self.given = given
        self.data = data
        self.files: list[_ReadFile] = []

    def write(self) -> ReportResult:
        for number, file in enumerate(self.given.files):
            self.files.append(self._read(number, file))
        prepare(self.data)
        groups, people = list(approval_groups(self.data)), list(approvers(self.data))
        chosen = sample(self.data, self.given.sample_size)
        folder, given, data = self.folder, self.given, self.data
        folder.write_csv("bundles.csv", BUNDLE_COLUMNS, bundle_rows(data, given.bundles))
        write_decisions(folder, data)
        write_approvals(folder, groups, people)
        write_exceptions(folder, data, given.bundles)
        write_acts(folder, data, given.files)
        write_node_records(folder, data, given.files)
        write_gaps(folder, data, given)
        receipts = write_samples(folder, given, chosen)
        folder.write("README.md", self._readme(chosen, receipts, groups))
        return ReportResult(
            records=self._inside(),
            damaged=data.count.damaged,
            findings=sum(len(log.verification.findings) for log in given.logs),
            sampled=len(chosen.decisions),
            receipts=receipts,
        )

    def _read(self, number: int, file: Path) -> _ReadFile:
        def damaged(diagnostic: Diagnostic) -> None:
            self.data.take_damage(number, diagnostic.line, diagnostic.what)

        with open_log(file) as stream:
            lines = _HashedLines(stream)
            for record in read_stream(lines, str(file), damaged):
                self.data.take(number, record)
        return _ReadFile(file, lines.count, lines.sha256())

    def _inside(self) -> int:
        return self.data.numbers("SELECT count(*) FROM period")[0]

    def _readme(
        self, chosen: Sample, receipts: int, groups: Sequence[ApprovalGroup]
    ) -> Iterator[str]:
        period, count = self.given.period, self.data.count
        made_at = timestamp(self.given.made_at or datetime.now(UTC))
        yield "# Audit report\n\n"
        yield (
            f"Period: {period.since} up to, and without, {period.until} (UTC). A record is in the period by its timestamp.\n"
            f"Made at {made_at} by `authz audit report`, version {self.given.version or 'unknown'}, from the files below and"
            " nothing else.\n"
        )
        yield "\n## Files of this folder\n\n"
        yield from markdown_table(("file", "content"), _CONTENTS)
        yield "\n## Logs\n\nSHA-256 and bytes are those that were read, unpacked if the file is packed.\n\n"
        yield from markdown_table(
            ("file", "bytes", "SHA-256"),
            ((str(file.path), file.bytes_read, file.sha256) for file in self.files),
        )
        yield "\n## Denominators\n\n"
        yield from markdown_table(("number", "of"), self._denominators(chosen))
        yield "\n## Nodes\n\n"
        yield from markdown_table(
            ("node", "records of decisions", "records of the node", "first", "last"),
            self.data.rows(
                """SELECT node, sum(decisions), sum(others), min(at), max(at)
                FROM (SELECT node, 1 AS decisions, 0 AS others, at FROM period UNION ALL SELECT node, 0, 1, at FROM notes WHERE inside)
                GROUP BY node ORDER BY node"""
            ),
        )
        yield "\n## Bundles in force\n\n"
        yield from markdown_table(BUNDLE_COLUMNS, bundle_rows(self.data, self.given.bundles))
        yield (
            "\nThe log names the bundle that judged each record. Nodes with `audit.chain` also record when they loaded a bundle:"
            " `first_load`, `last_load` and `loads` count those records up to the end of the period, and `loads.csv` has those of the"
            " period. A node that loads new keys or trust domains records a load of the same bundle. The log does not name who signed"
            " or changed a bundle.\n"
            f"The logs begin at {count.first or '(no record)'} and end at {count.last or '(no record)'}.\n"
        )
        yield _DEFINITIONS
        yield _expired_text(groups)
        yield (
            "\n## Sample\n\n"
            f"{len(chosen.decisions)} of {chosen.population} judged calls. The seed is the SHA-256 of the ids of these calls in"
            f" ascending order, each with a line feed: `{chosen.seed}`.\n"
            "The rank of a call is the SHA-256 of the seed, a space and the id; the calls with the smallest ranks are the sample.\n"
            "So the ids decide, and the person who makes the report cannot choose. `samples/ID.json` is the line of the log as it stands there.\n"
            f"{receipts} of the decisions have a receipt, `samples/ID.receipt.json`: `authz audit receipt --verify` verifies it with a key of"
            " heads alone. `samples.csv` says why another decision has none.\n"
        )

    def _denominators(self, chosen: Sample) -> Iterator[tuple[Cell, ...]]:
        count = self.data.count
        probes, sums, refusals = self.data.numbers(
            "SELECT sum(probe), sum(is_sum), sum(CASE WHEN is_sum THEN times END) FROM period"
        )
        yield count.records, "records of all files"
        yield count.damaged, "lines of all files that are not records"
        yield count.undated, "records without a valid timestamp, which are in no period"
        yield count.outside, "records outside the period"
        yield count.repeated, "records of the period that stand twice"
        yield (
            count.replaced,
            "decisions of the period with a second record, of which the second counts",
        )
        yield self._inside(), "records of decisions of the period, each decision once"
        yield chosen.population, "judged calls among them, without probes"
        yield probes, "probes among them"
        yield sums, "sums of refusals among them"
        yield refusals, "refusals that the sums stand for"
        loads, refused, ends, heads, drops, others, tasks, dropped = self.data.numbers(
            """SELECT sum(kind = 'loaded'), sum(kind = 'refused'), sum(kind = 'expired'), sum(kind = 'heads'), sum(kind = 'dropped'), sum(kind = 'other'),
            sum(tasks), sum(times) FROM notes LEFT JOIN task_ends USING (record) LEFT JOIN drops USING (record) WHERE inside"""
        )
        yield loads, "records of the period that a node loaded a bundle or trust"
        yield refused, "records of the period that a node refused a load"
        yield ends, "records of the period that a task or an approval ended by time"
        yield tasks, "tasks that ended so, with those below them"
        yield heads, "records of the period with heads of other nodes' logs"
        yield drops, "records of the period that a node dropped records of decisions"
        yield dropped, "decisions that were answered without a record so"
        yield others, "records of the period of other kinds, which are not decisions"


def _expired_text(groups: Sequence[ApprovalGroup]) -> str:
    """Return the definition of an expired approval, with the numbers of each way in which its end is known."""
    whole = [one for one in groups if one.form == "all"]
    recorded = sum(one.expired_recorded for one in whole)
    inferred = sum(one.expired for one in whole) - recorded
    return (
        "- **Expired**: an approval without a final answer whose time was over. A node with `audit.chain` records the end (`expired`);"
        f" {recorded} of the expired approvals have such a record and count in `expired_recorded`. An approval without one counts as"
        f" expired 24 hours after it was asked for, which is the longest wait; {inferred} of the expired approvals count by this rule."
        " Either their node writes no chain, or a newer approval replaced them, or these files lack the record. Until the 24 hours"
        " are over, such an approval counts as open, although its task may have ended.\n"
        "- **Unused**: approved, and the call was not made in time. Only nodes with `audit.chain` record it.\n"
    )


_CONTENTS: Final[Sequence[tuple[str, str]]] = (
    (
        "bundles.csv",
        "bundles that judged or were loaded, by node: revision, digest, loads, first and last record",
    ),
    ("loads.csv", "each load of a bundle or of trust by a node with audit.chain"),
    (
        "refused_loads.csv",
        "each load of a bundle or of trust that a node with audit.chain refused, with its first error",
    ),
    ("expired_tasks.csv", "tasks that ended by time, by day and node, of nodes with audit.chain"),
    ("decisions.csv, decisions.md", "records by day, surface, outcome, reason code and tier"),
    ("controls.csv", "judged calls that each control and rule denied or held"),
    ("approvals.csv, approvals.md", "step-ups and approvals by control and rule"),
    ("approvers.csv", "answers by person, control and rule"),
    ("exceptions.csv", "standing exceptions: uses, owner and end"),
    ("breakglass.csv", "requests for break-glass: people, times and uses"),
    (
        "administration.csv",
        "revocations, removed records, names of tasks, and acts of break-glass, refused ones too",
    ),
    (
        "gaps.md, verification.json",
        "result of authz audit verify over the whole log, and what is missing",
    ),
    ("damaged_lines.csv", "lines that are not records, of all files"),
    ("refusal_sums.csv", "refusals of unauthenticated callers without records of their own"),
    (
        "samples.csv, samples/",
        "decisions that were chosen by their ids, with their records and receipts",
    ),
)

_DEFINITIONS: Final = """
## Definitions

- **Judged call**: a record of `check`, `batch_check` or `ext_authz`. Other records of decisions are of tasks, reports, credentials, approvals and administration.
- **Record of the node**: a record that is not a decision: a load, an end by time, or heads of other nodes' logs. No number of decisions counts it.
- **Asked**: approvals that calls of the period made. `approved`, `rejected`, `expired`, `open`, `used` and `unused` tell what became of these by the end of the period. An approval under two rules counts in both.
- **Answers** of `approvers.csv`: answers given in the period, also to approvals that were asked for before. `refused`: answers that Authz did not accept.
- **Time to decide**: from the first look of a person at the card to the answer (`decided_in_ms`). Percentiles are values of the sample, by the nearest rank.
- **Owner and end of an exception** come from the bundle folders that were given with `--bundle`; without the folder of the bundle that judged, they are empty.
- Texts are cut at 1,000 characters. A cell of a CSV file that begins with `=`, `+`, `-` or `@` has an apostrophe in front, so that no spreadsheet reads it as a formula.
"""

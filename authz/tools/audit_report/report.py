"""Folder for an auditor: numbers of a period, counted from the audit log, and a sample of its records."""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from authz.audit import Lines, Verification, read_stream
from authz.audit.reader import open_log
from authz.audit.scratch import scratch_database
from authz.errors import UnavailableError
from authz.model import Diagnostic, StandingException
from authz.tools.audit_report.database import ReportDatabase
from authz.tools.audit_report.documents import (
    Cell,
    ReportFolder,
    markdown,
    markdown_table,
    percent,
    seconds,
)
from authz.tools.audit_report.period import Period, timestamp
from authz.tools.audit_report.samples import Sample, read_lines, sample
from authz.tools.audit_report.statistics import (
    ApprovalGroup,
    Approver,
    approval_groups,
    approvers,
    prepare,
)

__all__ = ["GivenBundle", "ReportInput", "ReportResult", "write_report"]

_MOST_IN_TEXT: Final = 200
_CALLS: Final = """count(*), sum(outcome = 'PERMIT'), sum(outcome = 'STEP_UP'), sum(outcome = 'DENY'), sum(NOT enforced)
FROM period WHERE is_call GROUP BY 1 ORDER BY 1"""
_CALL_TABLES: Final = (
    ("outcome", f"SELECT outcome, {_CALLS}"),
    ("reason code", f"SELECT code, {_CALLS}"),
    ("tier", f"SELECT tier, {_CALLS}"),
    ("day", f"SELECT day, {_CALLS}"),
)


@dataclass(frozen=True, slots=True)
class GivenBundle:
    """Bundle whose folder was given, for the owners and ends of its exceptions."""

    folder: Path
    digest: str
    revision: str
    exceptions: tuple[StandingException, ...]


@dataclass(frozen=True, slots=True)
class ReportInput:
    """What a report is made from."""

    files: Sequence[Path]
    """Files of the log."""
    period: Period
    verification: Verification
    """Verification of the whole log."""
    keys_given: bool
    """Signatures of heads were checked."""
    bundles: Sequence[GivenBundle] = ()
    sample_size: int = 25
    version: str = ""
    """Version of Authz."""
    made_at: datetime | None = None
    """Default: now."""


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
        self._write_bundles()
        self._write_decisions()
        self._write_approvals(groups, people)
        self._write_exceptions()
        self._write_acts()
        self._write_gaps()
        self._write_samples(chosen)
        self.folder.write("README.md", self._readme(chosen))
        found = self.given.verification.findings
        return ReportResult(
            self._inside(), self.data.count.damaged, len(found), len(chosen.decisions)
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

    def _file(self, number: int) -> str:
        return str(self.given.files[number])

    # Bundles

    def _bundles(self) -> Iterator[tuple[Cell, ...]]:
        known = {bundle.digest: str(bundle.folder) for bundle in self.given.bundles}
        rows = self.data.rows(
            """SELECT bundle, revision, digest, min(at), max(at), count(*) FROM period WHERE NOT is_sum
            GROUP BY bundle, revision, digest ORDER BY min(at), digest"""
        )
        for name, revision, digest, first, last, count in rows:
            yield name, revision, digest, first, last, count, known.get(digest, "")

    _BUNDLE_COLUMNS: Final = (
        "bundle",
        "revision",
        "digest",
        "first_record",
        "last_record",
        "records",
        "folder",
    )

    def _write_bundles(self) -> None:
        self.folder.write_csv("bundles.csv", self._BUNDLE_COLUMNS, self._bundles())

    # Decisions

    def _write_decisions(self) -> None:
        rows = self.data.rows(
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
        self.folder.write_csv(
            "decisions.csv",
            columns,
            ((*row[:5], bool(row[5]), bool(row[6]), *row[7:]) for row in rows),
        )
        self.folder.write("decisions.md", self._decisions())

    def _decisions(self) -> Iterator[str]:
        yield "# Decisions\n\n"
        yield (
            "Judged calls (`check`, `batch_check`, `ext_authz`) without probes. `decisions.csv` has the other records, too.\n"
            "A call that `mode: observe` let through counts by its judged outcome, and stands in the column of observed calls.\n"
        )
        for title, query in _CALL_TABLES:
            yield f"\n## By {title}\n\n"
            columns = (title, "calls", "permitted", "held", "denied", "observed")
            yield from markdown_table(columns, self.data.rows(query))
        yield "\n## Other records by surface\n\n"
        rows = self.data.rows(
            """SELECT CASE WHEN is_sum THEN 'sum of refusals' WHEN probe THEN 'probe' ELSE surface END, count(*), sum(times)
            FROM period WHERE NOT is_call GROUP BY 1 ORDER BY 1"""
        )
        yield from markdown_table(("surface", "records", "decisions"), rows)

    # Approvals

    def _write_approvals(self, groups: Sequence[ApprovalGroup], people: Sequence[Approver]) -> None:
        self.folder.write_csv(
            "approvals.csv",
            (
                "group",
                "name",
                "step_ups",
                "asked",
                "approved",
                "rejected",
                "expired",
                "open",
                "used",
                "answers",
                "decided_median_ms",
                "decided_p95_ms",
                "decided_under_3s_share",
                "rejected_share",
            ),
            (
                (
                    one.form,
                    one.name,
                    one.step_ups,
                    one.asked,
                    one.approved,
                    one.rejected,
                    one.expired,
                    one.open,
                    one.used,
                    one.times.count,
                    one.times.median_ms,
                    one.times.p95_ms,
                    one.times.fast_share,
                    one.rejected_share,
                )
                for one in groups
                if one.step_ups or one.asked
            ),
        )
        self.folder.write_csv(
            "approvers.csv",
            (
                "approver",
                "group",
                "name",
                "answers",
                "rejected",
                "refused",
                "methods",
                "decided_median_ms",
                "decided_p95_ms",
                "decided_under_3s_share",
                "rejected_share",
            ),
            (
                (
                    one.person,
                    one.form,
                    one.name,
                    one.answers,
                    one.rejected,
                    one.refused,
                    one.methods,
                    one.times.median_ms,
                    one.times.p95_ms,
                    one.times.fast_share,
                    one.rejected_share,
                )
                for one in people
            ),
        )
        self.folder.write_csv(
            "controls.csv",
            ("group", "name", "denied", "held", "observed"),
            ((one.form, one.name, one.denied, one.step_ups, one.observed) for one in groups),
        )
        self.folder.write("approvals.md", _approval_text(groups, people))

    # Exceptions

    def _write_exceptions(self) -> None:
        self.folder.write_csv(
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
            self._exceptions(),
        )
        self.folder.write_csv(
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
            self._breakglass(),
        )

    def _exceptions(self) -> Iterator[tuple[Cell, ...]]:
        """Yield uses by exception and bundle, also of declared exceptions without uses."""
        declared = {
            (one.name, bundle.digest): (bundle, one)
            for bundle in self.given.bundles
            for one in bundle.exceptions
        }
        in_force = {row[2]: row[1] for row in self._bundles()}
        uses = {
            (row[0], row[2]): row
            for row in self.data.rows(
                """SELECT name, revision, digest, sum(passed), sum(NOT passed), min(at), max(at)
                FROM exceptions JOIN period ON id = record WHERE NOT probe GROUP BY name, revision, digest"""
            )
        }
        for name, digest in sorted({*uses, *(key for key in declared if key[1] in in_force)}):
            use = uses.get((name, digest))
            counted = use[3:] if use is not None else (0, 0, "", "")
            row: tuple[Cell, ...] = (name, in_force.get(digest, ""), digest, *counted)
            if (found := declared.get((name, digest))) is None:
                yield *row, "", "", "", "", ""
                continue
            one = found[1]
            expires = timestamp(datetime.fromtimestamp(one.expires_ms / 1000, UTC))
            yield *row, one.who, one.owner, one.ticket, one.reason, expires

    def _breakglass(self) -> Iterator[tuple[Cell, ...]]:
        rows = self.data.rows(
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

    # Administration

    def _write_acts(self) -> None:
        rows = self.data.rows(
            """SELECT at, surface, target, value, person, reason, undo, outcome, code, id, file, line
            FROM acts JOIN period ON id = record ORDER BY at, id"""
        )
        self.folder.write_csv(
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
            ((*row[:6], bool(row[6]), *row[7:10], self._file(row[10]), row[11]) for row in rows),
        )

    # Gaps

    def _write_gaps(self) -> None:
        result = self.given.verification
        self.folder.write("verification.json", [json.dumps(result.document(), indent=2), "\n"])
        self.folder.write_csv(
            "damaged_lines.csv",
            ("file", "line", "defect"),
            (
                (self._file(file), line, defect)
                for file, line, defect in self.data.rows(
                    "SELECT file, line, defect FROM damage ORDER BY rowid"
                )
            ),
        )
        self.folder.write_csv(
            "refusal_sums.csv",
            ("day", "reason_code", "records", "refusals"),
            self.data.rows(
                """SELECT day, code, count(*), sum(times) FROM period WHERE is_sum GROUP BY 1, 2 ORDER BY 1, 2"""
            ),
        )
        self.folder.write("gaps.md", self._gaps())

    def _gaps(self) -> Iterator[str]:
        result, count = self.given.verification, self.data.count
        yield "# Gaps\n\n## Verification of the whole log\n\n"
        if not result.lines:
            yield "The log has no chain (`audit.chain`): nothing here proves that no record was changed or removed.\n\n"
        yield (
            f"- {result.lines} lines in the chain, in {result.segments} segments; {result.proved} of them proved by heads\n"
            f"- {result.unproved} lines after the newest head, which nothing proves\n"
            f"- {result.before} lines from before the chain\n"
            f"- {result.dropped} older segments that are not here\n"
        )
        if self.given.keys_given:
            keys = markdown(", ".join(result.keys)) or "no key"
            yield f"- {result.signatures} of {result.heads} heads signed by {keys}\n"
        else:
            yield f"- signatures of {result.heads} heads not checked: no keys were given\n"
        yield f"- {len(result.findings)} findings, {len(result.notes)} notes; `verification.json` has all of them\n"
        for finding in result.findings[:_MOST_IN_TEXT]:
            yield f"  - {markdown(str(finding))}\n"
        for note in result.notes[:_MOST_IN_TEXT]:
            yield f"  - note: {markdown(note)}\n"
        silent = self._silent_days()
        (unrecorded,) = self.data.numbers("SELECT sum(times) FROM period WHERE code = 'AUDIT_FULL'")
        sums = self.data.numbers("SELECT count(*), sum(times) FROM period WHERE is_sum")
        yield (
            "\n## Records\n\n"
            f"- {count.damaged} lines are not records: `damaged_lines.csv`\n"
            f"- {count.undated} records without a valid timestamp, which are in no period\n"
            f"- {count.repeated} records of the period stand twice; each counts once\n"
            f"- {count.replaced} decisions have a second record, since the first could not be made durable and was not answered;"
            " the second counts\n"
            f"- {unrecorded} calls denied because they could not be recorded (`AUDIT_FULL`)\n"
            f"- {sums[1]} refusals without records of their own, in {sums[0]} sums: `refusal_sums.csv`\n"
            f"- days of the period without a record: {', '.join(silent[:_MOST_IN_TEXT]) or 'none'}"
        )
        more = len(silent) - _MOST_IN_TEXT
        yield f" and {more} more\n" if more > 0 else "\n"

    def _silent_days(self) -> list[str]:
        seen = {day for (day,) in self.data.rows("SELECT DISTINCT day FROM period")}
        return [day for day in self.given.period.days() if day not in seen]

    # Samples

    def _write_samples(self, chosen: Sample) -> None:
        self.folder.make_folder("samples")
        digests = {}
        for decision, line in read_lines(chosen, self.given.files):
            self.folder.write_bytes(f"samples/{decision.name}.json", line)
            digests[decision.decision_id] = hashlib.sha256(line).hexdigest()
        self.folder.write_csv(
            "samples.csv",
            (
                "rank",
                "decision_id",
                "outcome",
                "reason_code",
                "record",
                "record_sha256",
                "file",
                "line",
            ),
            (
                (
                    one.rank,
                    one.decision_id,
                    one.outcome,
                    one.code,
                    f"samples/{one.name}.json",
                    digests[one.decision_id],
                    self._file(one.file),
                    one.line,
                )
                for one in chosen.decisions
            ),
        )

    # The first page

    def _readme(self, chosen: Sample) -> Iterator[str]:
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
            ("node", "records", "first", "last"),
            self.data.rows(
                """SELECT node, count(*), min(at), max(at) FROM period GROUP BY node ORDER BY node"""
            ),
        )
        yield "\n## Bundles in force\n\n"
        yield from markdown_table(self._BUNDLE_COLUMNS, self._bundles())
        yield (
            "\nThe log names the bundle that judged each record. It does not name who signed or loaded a bundle.\n"
            f"The logs begin at {count.first or '(no record)'} and end at {count.last or '(no record)'}.\n"
        )
        yield _DEFINITIONS
        yield (
            "\n## Sample\n\n"
            f"{len(chosen.decisions)} of {chosen.population} judged calls. The seed is the SHA-256 of the ids of these calls in"
            f" ascending order, each with a line feed: `{chosen.seed}`.\n"
            "The rank of a call is the SHA-256 of the seed, a space and the id; the calls with the smallest ranks are the sample.\n"
            "So the ids decide, and whoever makes the report cannot choose. `samples/ID.json` is the line of the log as it stands there.\n"
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
        yield self._inside(), "records of the period, each decision once"
        yield chosen.population, "judged calls among them, without probes"
        yield probes, "probes among them"
        yield sums, "sums of refusals among them"
        yield refusals, "refusals that the sums stand for"


def _approval_text(groups: Sequence[ApprovalGroup], people: Sequence[Approver]) -> Iterator[str]:
    yield "# Step-ups and approvals\n"
    titles = (("all", "All"), ("control", "By control"), ("rule", "By rule"))
    for form, title in titles:
        yield f"\n## {title}\n\n"
        yield from markdown_table(
            (
                "name",
                "step-ups",
                "asked",
                "approved",
                "rejected",
                "expired",
                "open",
                "used",
                "median",
                "p95",
                "under 3 s",
                "rejected share",
            ),
            (
                (
                    one.name or "all",
                    one.step_ups,
                    one.asked,
                    one.approved,
                    one.rejected,
                    one.expired,
                    one.open,
                    one.used,
                    seconds(one.times.median_ms),
                    seconds(one.times.p95_ms),
                    percent(one.times.fast_share),
                    percent(one.rejected_share),
                )
                for one in groups
                if one.form == form and (one.step_ups or one.asked)
            ),
        )
    yield "\n## By approver\n\nAnswers of the period; `approvers.csv` has them by control and rule, too.\n\n"
    yield from markdown_table(
        (
            "approver",
            "answers",
            "rejected",
            "refused",
            "methods",
            "median",
            "p95",
            "under 3 s",
            "rejected share",
        ),
        (
            (
                one.person,
                one.answers,
                one.rejected,
                one.refused,
                one.methods,
                seconds(one.times.median_ms),
                seconds(one.times.p95_ms),
                percent(one.times.fast_share),
                percent(one.rejected_share),
            )
            for one in people
            if one.form == "all"
        ),
    )


_CONTENTS: Final[Sequence[tuple[str, str]]] = (
    ("bundles.csv", "bundles that judged: revision, digest, first and last record"),
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
    ("samples.csv, samples/", "decisions that were chosen by their ids, and their records"),
)

_DEFINITIONS: Final = """
## Definitions

- **Judged call**: a record of `check`, `batch_check` or `ext_authz`. Other records are of tasks, reports, credentials, approvals and administration.
- **Asked**: approvals that calls of the period made. `approved`, `rejected`, `expired`, `open` and `used` tell what became of these by the end of the period. An approval under two rules counts in both.
- **Expired**: an approval without a final answer, 24 hours or more before the end of the period or of the log. The log has no record of the end itself, so that an approval whose task ended earlier counts as open until then.
- **Answers** of `approvers.csv`: answers given in the period, also to approvals that were asked for before. `refused`: answers that Authz did not accept.
- **Time to decide**: from the first look of a person at the card to the answer (`decided_in_ms`). Percentiles are values of the sample, by the nearest rank.
- **Owner and end of an exception** come from the bundle folders that were given with `--bundle`; without the folder of the bundle that judged, they are empty.
- Texts are cut at 1,000 characters. A cell of a CSV file that begins with `=`, `+`, `-` or `@` has an apostrophe in front, so that no spreadsheet reads it as a formula.
"""

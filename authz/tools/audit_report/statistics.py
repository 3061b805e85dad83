"""Numbers about step-ups and approvals, computed from the database.

A percentile is a value of the sample, by the nearest rank: the median of 1, 2, 3 and 10 is 2.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from authz.tools.audit_report.database import ReportDatabase
from authz.tools.audit_report.period import timestamp

__all__ = ["AnswerTimes", "ApprovalGroup", "Approver", "approval_groups", "approvers", "prepare"]

# Longest time for which an approval waits for an answer.
_WAIT: Final = timedelta(hours=24)
_TABLES: Final = (
    # Every approval that is known, with the call that made it.
    """CREATE TEMP TABLE asked AS SELECT approval AS id, min(at) AS asked_at, record FROM approvals
    WHERE event = 'made' AND id != '' GROUP BY approval""",
    # Approvals that calls of the period made, and their results.
    """CREATE TEMP TABLE states AS SELECT id, record, asked_at <= :over AS is_over,
      EXISTS (SELECT 1 FROM approvals WHERE approval = asked.id AND event = 'approved')
        OR EXISTS (SELECT 1 FROM approval_ends WHERE approval = asked.id AND was_approved) AS approved,
      EXISTS (SELECT 1 FROM approvals WHERE approval = asked.id AND event = 'rejected') AS rejected,
      EXISTS (SELECT 1 FROM approvals WHERE approval = asked.id AND event = 'consumed') AS used,
      EXISTS (SELECT 1 FROM approval_ends WHERE approval = asked.id AND NOT was_approved) AS has_end,
      EXISTS (SELECT 1 FROM approval_ends WHERE approval = asked.id AND was_approved) AS unused
    FROM asked WHERE asked_at >= :since AND asked_at < :until""",
    "CREATE INDEX temp.states_of ON states (id)",
    # Answers, with the call that asked; NULL if it is not in the files.
    """CREATE TEMP TABLE answers AS SELECT approval, event, person, method, decided_ms AS ms, inside, asked.record AS asked_by
    FROM approvals LEFT JOIN asked ON asked.id = approval
    WHERE is_answer AND event IN ('answered', 'approved', 'rejected', 'refused')""",
    # Answers of the period by person, once for all, and once for each control and rule.
    """CREATE TEMP VIEW given AS
    SELECT person, form, name, method, event, ms FROM answers JOIN grounds ON record = asked_by WHERE inside
    UNION ALL SELECT person, 'all', '', method, event, ms FROM answers WHERE inside AND asked_by IS NULL
    UNION ALL SELECT person, 'rule', 'not in these files', method, event, ms FROM answers WHERE inside AND asked_by IS NULL""",
    # Times of accepted answers, with their places among those of the same group.
    """CREATE TEMP VIEW times_of_groups AS SELECT '' AS person, form, name, ms,
      row_number() OVER (PARTITION BY form, name ORDER BY ms) AS place, count(*) OVER (PARTITION BY form, name) AS number
    FROM answers JOIN states ON states.id = approval JOIN grounds ON grounds.record = states.record
    WHERE event != 'refused' AND ms IS NOT NULL""",
    """CREATE TEMP VIEW times_of_people AS SELECT person, form, name, ms,
      row_number() OVER (PARTITION BY person, form, name ORDER BY ms) AS place,
      count(*) OVER (PARTITION BY person, form, name) AS number
    FROM given WHERE event != 'refused' AND ms IS NOT NULL""",
)
_TIMES: Final = """SELECT person, form, name, max(number),
  max(CASE WHEN place = (number * 50 + 99) / 100 THEN ms END), max(CASE WHEN place = (number * 95 + 99) / 100 THEN ms END),
  sum(ms < 3000) FROM """


@dataclass(frozen=True, slots=True)
class AnswerTimes:
    """Times from the first look of a person to the answer."""

    count: int = 0
    """Answers with a time."""
    median_ms: int | None = None
    p95_ms: int | None = None
    fast: int = 0
    """Answers in under 3 seconds."""

    @property
    def fast_share(self) -> float | None:
        """Share of the answers in under 3 seconds."""
        return self.fast / self.count if self.count else None


@dataclass(frozen=True, slots=True)
class ApprovalGroup:
    """Approvals that were asked for in the period, of one control or rule."""

    form: str
    """`all`, `control` or `rule`."""
    name: str
    denied: int
    """Judged calls that were denied, and enforced."""
    step_ups: int
    """Judged calls that were held, and enforced, with or without an approval."""
    observed: int
    """Judged calls that would have been denied or held, and that `mode: observe` let through."""
    asked: int
    """Approvals."""
    approved: int
    rejected: int
    expired: int
    """Without a final answer, and ended by a record, or past the longest wait."""
    expired_recorded: int
    """Those whose end has a record."""
    open: int
    """Without a final answer at the end of the period or of the log."""
    used: int
    """Approvals that a permitted call used up."""
    unused: int
    """Approvals whose call was approved and not made in time, by a record of the end."""
    times: AnswerTimes

    @property
    def rejected_share(self) -> float | None:
        """Share of the final answers that rejected."""
        final = self.approved + self.rejected
        return self.rejected / final if final else None


@dataclass(frozen=True, slots=True)
class Approver:
    """Answers of one person in the period, about one control or rule."""

    person: str
    form: str
    name: str
    answers: int
    """Answers that counted."""
    rejected: int
    refused: int
    """Answers that Authz refused."""
    methods: str
    times: AnswerTimes

    @property
    def rejected_share(self) -> float | None:
        """Share of the answers that rejected."""
        return self.rejected / self.answers if self.answers else None


def prepare(data: ReportDatabase) -> None:
    """Derive the tables that `approval_groups` and `approvers` read."""
    period = data.period
    end = min(data.count.last or period.until, period.until)
    over = timestamp(datetime.fromisoformat(end) - _WAIT)
    bounds = {"over": over, "since": period.since, "until": period.until}
    for statement in _TABLES:
        data.database.execute(statement, bounds if ":over" in statement else {})


def approval_groups(data: ReportDatabase) -> Iterator[ApprovalGroup]:
    """Yield denials, step-ups and approvals by control and rule: all together first."""
    times = _times(data, _TIMES + "times_of_groups GROUP BY form, name")
    approvals = {
        row[:2]: row[2:]
        for row in data.rows(
            """SELECT form, name, count(*), sum(approved AND NOT rejected), sum(rejected),
            sum(NOT approved AND NOT rejected AND (has_end OR is_over)), sum(NOT approved AND NOT rejected AND has_end),
            sum(NOT approved AND NOT rejected AND NOT has_end AND NOT is_over), sum(used), sum(unused)
            FROM states JOIN grounds USING (record) GROUP BY form, name"""
        )
    }
    rows = data.rows(
        """SELECT form, name, sum(is_call AND enforced AND outcome = 'DENY'), sum(is_call AND enforced AND outcome = 'STEP_UP'),
        sum(is_call AND NOT enforced) FROM grounds JOIN period ON id = record GROUP BY form, name ORDER BY form, name"""
    )
    for form, name, denied, held, observed in rows:
        counts = approvals.get((form, name), (0,) * 8)
        if denied or held or observed or any(counts):
            asked, approved, rejected, expired, recorded, waiting, used, unused = counts
            yield ApprovalGroup(
                form=form,
                name=name,
                denied=denied,
                step_ups=held,
                observed=observed,
                asked=asked,
                approved=approved,
                rejected=rejected,
                expired=expired,
                expired_recorded=recorded,
                open=waiting,
                used=used,
                unused=unused,
                times=times.get(("", form, name), AnswerTimes()),
            )


def approvers(data: ReportDatabase) -> Iterator[Approver]:
    """Yield the answers of the period by person, control and rule."""
    times = _times(data, _TIMES + "times_of_people GROUP BY person, form, name")
    rows = data.rows(
        """SELECT person, form, name, sum(event != 'refused'), sum(event = 'rejected'), sum(event = 'refused'),
        group_concat(DISTINCT method) FROM given GROUP BY person, form, name ORDER BY person, form, name"""
    )
    for person, form, name, answers, rejected, refused, methods in rows:
        words = ", ".join(sorted(filter(None, (methods or "").split(","))))
        known = times.get((person, form, name), AnswerTimes())
        yield Approver(person, form, name, answers, rejected, refused, words, known)


def _times(data: ReportDatabase, query: str) -> dict[tuple[Any, ...], AnswerTimes]:
    return {row[:3]: AnswerTimes(*row[3:]) for row in data.rows(query)}

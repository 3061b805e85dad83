"""The report of an analysis: types of the JSON document that the analyzer writes.

`Report` is strict in what it knows: types are not converted, and a severity, verdict or kind of another name is an error. Members that this
version does not know are ignored, so that a newer analyzer may say more. No such member can hide a finding.
"""

from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from authz.errors import AuthzError

__all__ = [
    "BundleIdentity",
    "Change",
    "ChangeKind",
    "Counts",
    "Cut",
    "Finding",
    "FindingSeverity",
    "Location",
    "Proof",
    "Report",
    "ReportError",
    "Solver",
    "Step",
    "SuppressionEntry",
    "Verdict",
    "read_report",
]

_VERSION: Final = 1
_MAX_BYTES: Final = 268_435_456
_SHOWN_ERRORS: Final = 3

Line = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
FindingId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class ReportError(AuthzError):
    """The analyzer's output is not a report, so nothing is known about the bundle."""


class FindingSeverity(StrEnum):
    """Severity of a finding, the worst first."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"

    @property
    def rank(self) -> int:
        """0 for the worst."""
        return tuple(FindingSeverity).index(self)


class Verdict(StrEnum):
    """How sure the analyzer is of a finding."""

    PROVED = "proved"
    """The defect holds for every request within the model, under the assumptions."""
    PATH_FOUND = "path_found"
    """The kernel was asked, and answered each step of the path as shown."""
    NOT_DECIDED = "not_decided"
    """The question is open. The defect may exist."""


class ChangeKind(StrEnum):
    """Kind of a change that closes a path."""

    ADD_FORBID = "add_forbid"
    REMOVE_PERMIT = "remove_permit"
    REMOVE_EXCEPTION = "remove_exception"
    REMOVE_DELEGATION = "remove_delegation"
    ADD_LABEL = "add_label"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class BundleIdentity(_Part):
    """The bundle that was analysed."""

    name: str
    digest: str


class Solver(_Part):
    """Solver that answered the questions."""

    name: str
    version: str


class Counts(_Part):
    """Size of the model, and number of questions."""

    policies: Count
    operations: Count
    principals: Count
    assertions: Count
    questions: Count
    questions_cached: Count
    not_decided: Count


class Location(_Part):
    """A place in the bundle. The file is relative to the bundle's folder."""

    file: str
    line: Line
    column: Line = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Step(_Part):
    """One call of a path, as the kernel answered it."""

    step: Annotated[int, Field(ge=1)]
    agent: str = ""
    subject: str = ""
    template: str = ""
    operation: str
    input: Any = None
    """Arguments: a JSON object, or null."""
    resource: str = ""
    destination: str = ""
    labels_before: tuple[str, ...] = ()
    labels_after: tuple[str, ...] = ()
    outcome: str
    """`permit`, `step_up` or `deny`."""
    reason_code: str = ""
    rules: tuple[str, ...] = ()
    is_pivot: bool = False
    note: str = ""

    @property
    def caller(self) -> str:
        """Agent, and the subject for whom it acts."""
        return f"{self.agent} for {self.subject}" if self.subject else self.agent

    @property
    def answer(self) -> str:
        """Outcome and reason code, as other verbs print them."""
        return f"{self.outcome.upper()} {self.reason_code}".rstrip()

    @property
    def new_labels(self) -> tuple[str, ...]:
        """Labels that the session has after this step and had not before it."""
        return tuple(label for label in self.labels_after if label not in self.labels_before)


class Change(_Part):
    """One change of the bundle."""

    kind: ChangeKind
    text: str
    file: str = ""
    line: Line = 0

    def __str__(self) -> str:
        return f"{self.text} ({self.file}:{self.line})" if self.file else self.text


class Cut(_Part):
    """Set of changes after which no path of the finding is left."""

    exact: bool
    """True: no smaller set closes the path. False: a smaller set may exist."""
    changes: tuple[Change, ...]

    @property
    def title(self) -> str:
        """Heading of the changes."""
        return "smallest cut" if self.exact else "a cut (a smaller one may exist)"


class Finding(_Part):
    """One defect, or one question about a defect that is open."""

    id: FindingId
    """Stable over moves of lines: baselines and suppressions name it."""
    rule: Annotated[str, Field(min_length=1)]
    subject: str = ""
    """Object that the finding is about, for example a policy or an operation."""
    severity: FindingSeverity
    verdict: Verdict
    message: str
    reason: str | None = None
    """Why the question is open."""
    assumptions: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    location: Location | None = None
    path: tuple[Step, ...] = ()
    cut: Cut | None = None
    case: str = ""
    """YAML of a bundle test that fails while the defect is there; may be empty."""


class Proof(_Part):
    """A property that holds for every request within the model."""

    rule: str
    subject: str
    assumptions: tuple[str, ...] = ()


class SuppressionEntry(_Part):
    """A finding, or all findings of a rule, that somebody answers for."""

    finding: str | None = None
    rule: str | None = None
    """Rule of the findings. `assertion`: every assertion."""
    subject: str | None = None
    """Policy, operation or assertion that the findings are about. None: every one."""
    owner: str
    reason: str
    until: str | int
    """Last day in UTC, `2027-01-31`; a moment, `2027-01-31T18:00:00Z`; or Unix time in milliseconds."""
    location: Location | None = None

    @property
    def name(self) -> str:
        """The findings in one word, for messages."""
        return self.finding or self.rule or ""

    @property
    def end(self) -> datetime:
        """First moment at which the entry counts as not there.

        Raises:
            ValueError: `until` is neither a date nor a timestamp.
        """
        if isinstance(self.until, int):
            return datetime.fromtimestamp(self.until / 1000, UTC)
        if "T" in self.until:
            end = datetime.fromisoformat(self.until)
            return end if end.tzinfo else end.replace(tzinfo=UTC)
        day = date.fromisoformat(self.until)
        return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)

    @property
    def end_text(self) -> str:
        """`end` as text."""
        return self.end.astimezone(UTC).isoformat().replace("+00:00", "Z")

    @property
    def justification(self) -> str:
        """Reason, owner and end."""
        return f"{self.reason} ({self.owner}, until {self.end_text})"

    @property
    def expired_text(self) -> str:
        """Sentence about the suppression after its end."""
        return f"The suppression of {self.name} by {self.owner} ended at {self.end_text}; it counts as not there."


class Report(_Part):
    """The whole report."""

    version: Literal[1]
    bundle: BundleIdentity
    solver: Solver | None
    """None: no solver was there, so nothing that needs one is proved."""
    counts: Counts
    findings: tuple[Finding, ...]
    proved: tuple[Proof, ...] = ()
    suppressions: tuple[SuppressionEntry, ...] = ()
    """Suppressions of the bundle."""


def read_report(document: bytes) -> Report:
    """Read the analyzer's JSON document.

    Args:
        document: UTF-8.

    Raises:
        ReportError: The document is not a report of version 1, or names one finding twice.
    """
    if len(document) > _MAX_BYTES:
        raise ReportError(f"the report of the analyzer is larger than {_MAX_BYTES >> 20} MiB")
    try:
        report = Report.model_validate_json(document)
    except ValidationError as error:
        defects = "; ".join(
            f"{'.'.join(str(part) for part in one['loc']) or 'document'}: {one['msg']}"
            for one in error.errors(include_url=False, include_input=False)[:_SHOWN_ERRORS]
        )
        raise ReportError(
            f"the report of the analyzer is not valid (version {_VERSION} is read): {defects}"
        ) from error
    ids = [finding.id for finding in report.findings]
    if len(set(ids)) != len(ids):
        raise ReportError("the report of the analyzer has two findings with one id")
    return report

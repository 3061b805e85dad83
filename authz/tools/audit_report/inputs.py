"""What a report is made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from authz.audit import Verification
from authz.model import StandingException
from authz.tools.audit_report.period import Period

__all__ = ["GivenBundle", "ReportInput"]


@dataclass(frozen=True, slots=True)
class GivenBundle:
    """Bundle whose folder was given."""

    folder: Path
    digest: str
    revision: str
    exceptions: tuple[StandingException, ...]
    policies: Mapping[str, str] = field(default_factory=dict)
    """Text of each policy by id, for receipts."""


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
    heads: Sequence[str] = ()
    """Heads of the log, each in its stored form, for receipts."""
    torn: Sequence[Path] = ()
    """Files with lines that a crash left unfinished."""
    bundles: Sequence[GivenBundle] = ()
    sample_size: int = 25
    version: str = ""
    """Version of Authz."""
    made_at: datetime | None = None
    """Default: now."""

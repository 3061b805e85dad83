"""Inputs of a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from authz.audit import Verification
from authz.model import StandingException
from authz.tools.audit_report.period import Period

__all__ = ["GivenBundle", "NodeLog", "ReportInput"]


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
class NodeLog:
    """Log of one node, which has a chain of its own."""

    node: str
    """Name of the node; may be empty."""
    files: Sequence[Path]
    """Files of the log."""
    verification: Verification
    """Verification of the whole log."""
    heads: Sequence[str] = ()
    """Heads of the log, each in its stored form, for receipts."""


@dataclass(frozen=True, slots=True)
class ReportInput:
    """Inputs of a report."""

    logs: Sequence[NodeLog]
    """Logs of the nodes."""
    period: Period
    keys_given: bool
    """Signatures of heads were checked."""
    torn: Sequence[Path] = ()
    """Files with lines that a crash left unfinished."""
    bundles: Sequence[GivenBundle] = ()
    sample_size: int = 25
    version: str = ""
    """Version of Authz."""
    made_at: datetime | None = None
    """Default: now."""

    @property
    def files(self) -> list[Path]:
        """Files of all logs. A record names its file by the place in this list."""
        return [file for log in self.logs for file in log.files]

    def log_of(self, number: int) -> NodeLog:
        """Return the log of a file.

        Args:
            number: Place in `files`.
        """
        for log in self.logs:
            if number < len(log.files):
                return log
            number -= len(log.files)
        raise IndexError(number)

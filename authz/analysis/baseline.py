"""Baselines: the findings that a team knows already, so that a build fails for new ones only.

The file is JSON: `{"version": 1, "findings": [{"id", "rule", "severity", "verdict", "message"}]}`, sorted by rule and id, so that a review shows each
finding that was added. A finding that became worse is new: an open question of the baseline, for which a path is found now, or a finding of a
higher severity.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from authz.analysis.report import Finding, FindingId, FindingSeverity, Verdict
from authz.errors import UsageError
from authz.files import replace_file

__all__ = ["Baseline", "read_baseline", "write_baseline"]

_MAX_BYTES: Final = 16_777_216


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class KnownFinding(_Part):
    """One finding of a baseline."""

    id: FindingId
    rule: str
    severity: FindingSeverity
    verdict: Verdict
    message: str
    """For readers; never compared."""

    def covers(self, finding: Finding) -> bool:
        """Return whether a finding of this id is known, and not worse than it was."""
        was_open = self.verdict is Verdict.NOT_DECIDED
        is_open = finding.verdict is Verdict.NOT_DECIDED
        return (is_open or not was_open) and finding.severity.rank >= self.severity.rank


class Baseline(_Part):
    """A baseline."""

    version: Literal[1] = 1
    findings: tuple[KnownFinding, ...] = ()

    def known(self, findings: Iterable[Finding]) -> frozenset[str]:
        """Return the ids of the findings that the baseline covers."""
        by_id = {known.id: known for known in self.findings}
        return frozenset(
            finding.id
            for finding in findings
            if (known := by_id.get(finding.id)) is not None and known.covers(finding)
        )

    def gone(self, findings: Iterable[Finding]) -> tuple[KnownFinding, ...]:
        """Return known findings that the report does not have any more, so that the baseline can shrink."""
        present = {finding.id for finding in findings}
        return tuple(known for known in self.findings if known.id not in present)


def read_baseline(file: Path) -> Baseline:
    """Read a baseline.

    Raises:
        UsageError: The file cannot be read, or is not a baseline. A broken baseline never counts as an empty baseline, or as one that lists
            everything.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{file}: the baseline cannot be read: {error.strerror}") from error
    if len(content) > _MAX_BYTES:
        raise UsageError(f"{file}: the baseline is larger than {_MAX_BYTES >> 20} MiB")
    try:
        return Baseline.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        raise UsageError(f"{file} is not a baseline: {where}: {first['msg']}") from error


def write_baseline(file: Path, findings: Iterable[Finding]) -> int:
    """Write a baseline of findings.

    Returns:
        Number of findings.

    Raises:
        OSError: The file cannot be written.
    """
    rows = [
        {
            "id": finding.id,
            "rule": finding.rule,
            "severity": finding.severity.value,
            "verdict": finding.verdict.value,
            "message": finding.message,
        }
        for finding in sorted(findings, key=lambda one: (one.rule, one.id))
    ]
    text = json.dumps({"version": 1, "findings": rows}, indent=2, ensure_ascii=True)
    replace_file(file, f"{text}\n".encode())
    return len(rows)

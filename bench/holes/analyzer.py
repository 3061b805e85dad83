"""Runs `authz analyze` on a bundle and `authz diff` on two, and reads their answers."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_EXIT_CODES: Final = (0, 2)
"""0: no finding at the level; 2: findings. Any other code is a failure."""
_SUPPRESSED: Final = "suppressed"


class AnalyzerError(RuntimeError):
    """The command failed, took too long, or wrote something else than a report."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding of a report.

    Attributes:
        id: identity of the finding, the same for a bundle and a changed copy.
        rule: rule, for example `assertion:pii-stays`.
        severity: `error`, `warning` or `note`.
        verdict: `proved`, `path_found` or `not_decided`.
        message: text for people.
    """

    id: str
    rule: str
    severity: str
    verdict: str
    message: str

    @property
    def is_decided(self) -> bool:
        """Whether the finding says that something is so, and not that it could not be decided."""
        return self.verdict != "not_decided"

    @property
    def family(self) -> str:
        """The rule, without the name of an assertion."""
        return self.rule.partition(":")[0]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The answer of `authz diff` about two bundles.

    Attributes:
        verdict: `path_found` if the second bundle permits a request that the first one does not, `proved` if there is none, or
            `not_decided`; empty if nothing was compared.
        changed_facts: number of changed facts beside the policies that the answer lists.
    """

    verdict: str = ""
    changed_facts: int = 0

    @property
    def has_request(self) -> bool:
        """Whether the answer shows a request that is newly permitted."""
        return self.verdict == "path_found"


@dataclass(frozen=True, slots=True)
class Analyzer:
    """The commands that analyse a bundle and compare two.

    Attributes:
        command: program and arguments of the analysis; the folder of the bundle and the variables are added.
        difference: program and arguments of the comparison; two folders and the variables are added. `None` if nothing is compared.
        seconds: longest time of one run.
    """

    command: Sequence[str]
    difference: Sequence[str] | None = None
    seconds: float = 600

    def findings(self, folder: Path, variables: Mapping[str, str]) -> dict[str, Finding]:
        """Return the findings of a bundle by id, without those that the bundle suppresses.

        Args:
            folder: folder of the bundle.
            variables: values of `${…}`.

        Raises:
            AnalyzerError: The command failed.
        """
        return read_findings(self._output(self.command, [folder], variables))

    def compare(self, before: Path, after: Path, variables: Mapping[str, str]) -> Comparison:
        """Compare two bundles.

        Args:
            before: folder of the first bundle.
            after: folder of the second bundle.
            variables: values of `${…}`.

        Raises:
            AnalyzerError: The command failed.
        """
        if self.difference is None:
            return Comparison()
        text = self._output(self.difference, [before, after], variables)
        try:
            proof = json.loads(text)["proof"]
            return Comparison(str(proof["verdict"]), len(proof["facts"]))
        except (ValueError, KeyError, TypeError) as error:
            raise AnalyzerError(f"not a comparison: {error!r}") from error

    def _output(
        self, command: Sequence[str], folders: Sequence[Path], variables: Mapping[str, str]
    ) -> str:
        words = [*command, *map(str, folders)]
        for name, value in variables.items():
            words += ["--var", f"{name}={value}"]
        try:
            run = subprocess.run(
                words, capture_output=True, text=True, timeout=self.seconds, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise AnalyzerError(f"no answer within {self.seconds:g} s") from error
        except OSError as error:
            raise AnalyzerError(f"{command[0]}: {error}") from error
        if run.returncode not in _EXIT_CODES:
            last = (run.stderr.strip() or run.stdout.strip()).splitlines()[-1:]
            raise AnalyzerError(f"exit code {run.returncode}: {' '.join(last)}")
        return run.stdout


def read_findings(text: str) -> dict[str, Finding]:
    """Return the findings of a report in JSON by id, without the suppressed ones.

    Raises:
        AnalyzerError: The text is not a report.
    """
    try:
        rows: list[dict[str, Any]] = json.loads(text)["findings"]
        findings = [
            Finding(row["id"], row["rule"], row["severity"], row["verdict"], row["message"])
            for row in rows
            if row.get("state") != _SUPPRESSED
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise AnalyzerError(f"not a report: {error!r}") from error
    return {one.id: one for one in findings}


def new_findings(before: Mapping[str, Finding], after: Mapping[str, Finding]) -> list[Finding]:
    """Return the findings that the first report lacks, or has as not decided only."""
    return [
        one
        for one in after.values()
        if one.id not in before or (one.is_decided and not before[one.id].is_decided)
    ]

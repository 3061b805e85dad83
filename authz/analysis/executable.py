"""Finds `authz-analyze` and runs it: the request is one JSON document, and so is the answer."""

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from authz.errors import BundleError, UsageError
from authz.model import BundleFiles, Diagnostic

__all__ = [
    "AnalysisOptions",
    "AnalyzerBundle",
    "analyzer_environment",
    "analyzer_request",
    "find_analyzer",
    "run_analyzer",
]

NAME: Final = "authz-analyze"
VARIABLE: Final = "AUTHZ_ANALYZER"
"""Environment variable with the path of the executable."""
_REFUSED: Final = 3
"""Exit code of the executable for a bundle that does not compile."""


@dataclass(frozen=True, slots=True)
class AnalyzerBundle:
    """A bundle as the analyzer reads it."""

    files: BundleFiles
    """Files of the bundle."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Values of `${…}`."""

    def document(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "files": {
                path: base64.b64encode(content).decode("ascii")
                for path, content in self.files.files.items()
            },
            "vars": dict(self.variables),
        }


@dataclass(frozen=True, slots=True)
class AnalysisOptions:
    """Settings of an analysis."""

    now_ms: int
    """Unix time in milliseconds: exceptions and entries of `mode` end by it."""
    question_limit_ms: int = 10_000
    """Time limit of a question to the solver."""
    cache: Path | None = None
    """Folder with answers of earlier runs. Default: no answers are kept."""
    jobs: int = 0
    """Solver processes that run at once. 0: one for each processor."""
    without_solver: bool = False
    """Ask no solver, so that nothing is proved."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further members of the options."""

    @staticmethod
    def read(
        cache: Path | None, question_time_limit: float, *, without_solver: bool
    ) -> "AnalysisOptions":
        """Return the settings of an analysis as of now.

        Args:
            cache: Folder with answers of earlier runs.
            question_time_limit: Time limit of a question to the solver, in seconds.
            without_solver: Ask no solver.
        """
        return AnalysisOptions(
            now_ms=int(time.time() * 1000),
            question_limit_ms=int(question_time_limit * 1000),
            cache=cache,
            without_solver=without_solver,
        )

    def document(self) -> dict[str, Any]:
        """Return the JSON form."""
        solver = [] if self.without_solver else [sys.executable, "-m", "authz.analysis.solver"]
        return {
            "now_ms": self.now_ms,
            "solver": solver,
            "question_limit_ms": self.question_limit_ms,
            "cache": None if self.cache is None else str(self.cache),
            "jobs": self.jobs or os.cpu_count() or 1,
            **self.extra,
        }


def find_analyzer() -> Path:
    """Find the executable: `AUTHZ_ANALYZER`, else beside the package in `authz/bin`, else on PATH.

    Raises:
        UsageError: The executable is missing.
    """
    named = os.environ.get(VARIABLE)
    beside = Path(__file__).parent.parent / "bin" / NAME
    found = named or (str(beside) if beside.is_file() else shutil.which(NAME))
    if not found or not Path(found).is_file():
        where = f"{VARIABLE}={named}" if named else f"{beside} and PATH"
        raise UsageError(
            f"the analyzer `{NAME}` is not installed ({where}): build it with `make analyzer`"
        )
    return Path(found)


def analyzer_request(bundles: Mapping[str, AnalyzerBundle], options: AnalysisOptions) -> bytes:
    """Return the request to the executable, as JSON.

    Args:
        bundles: Bundles by their name in the request: `bundle`, or `old` and `new`.
        options: Settings.
    """
    request = {name: bundle.document() for name, bundle in bundles.items()}
    return json.dumps({**request, "options": options.document()}).encode()


def run_analyzer(
    subcommand: str, bundles: Mapping[str, AnalyzerBundle], options: AnalysisOptions
) -> bytes:
    """Run the executable.

    Args:
        subcommand: `analyze` or `diff`.
        bundles: Bundles by their name in the request: `bundle`, or `old` and `new`.
        options: Settings.

    Returns:
        The JSON document that the executable writes, not yet read.

    Raises:
        UsageError: The executable is not installed, or fails.
        BundleError: A bundle does not compile.
    """
    run = subprocess.run(
        [find_analyzer(), subcommand],
        input=analyzer_request(bundles, options),
        capture_output=True,
        check=False,
        env=analyzer_environment(),
    )
    errors = run.stderr.decode(errors="replace")
    if run.returncode == _REFUSED:
        raise BundleError(_diagnostics(errors))
    if run.returncode != 0:
        text = errors.strip() or f"it ended with exit code {run.returncode}"
        raise UsageError(f"the analyzer failed: {text}")
    return run.stdout


def analyzer_environment() -> dict[str, str]:
    """Return the environment of the executable, in which the solver process imports this package."""
    package = str(Path(__file__).parent.parent.parent)
    path = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


def _diagnostics(text: str) -> tuple[Diagnostic, ...]:
    """Read the errors of a bundle, one JSON object a line."""
    rows = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    diagnostics = tuple(
        Diagnostic(row["what"], row["file"], row["line"], row["column"], fix=row["fix"])
        for row in rows
    )
    return diagnostics or (Diagnostic(text.strip() or "the bundle does not compile"),)

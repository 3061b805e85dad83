"""Finds `authz-analyze` and runs it: the request is one JSON document, and so is the answer."""

import base64
import json
import os
import shutil
import site
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from authz import __version__
from authz.errors import BundleError, UsageError
from authz.model import BundleFiles, Diagnostic

__all__ = [
    "AnalysisOptions",
    "AnalyzerBundle",
    "analyzer_environment",
    "analyzer_request",
    "check_analyzer_version",
    "find_analyzer",
    "run_analyzer",
]

NAME: Final = "authz-analyze"
VARIABLE: Final = "AUTHZ_ANALYZER"
"""Environment variable with the path of the executable."""
_REFUSED: Final = 3
"""Exit code of the executable for a bundle that does not compile."""
_INSTALL: Final = f"install it with `pip install 'authz-runtime[analyze]=={__version__}'`, or build it in a clone with `make analyzer`"


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
    leases: Sequence[Mapping[str, Any]] | None = None
    """Leases of a configuration, as `lease_documents` returns them. Default: no configuration is analysed."""
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
    """Find the executable.

    `AUTHZ_ANALYZER` names its path. Without the variable it is looked for in `authz/bin`, where `make analyzer` puts it; in the
    folders in which pip installs programs for this interpreter; and on PATH.

    Raises:
        UsageError: The executable is not installed.
    """
    named = os.environ.get(VARIABLE)
    if named:
        candidates = [Path(named)]
    else:
        on_path = shutil.which(NAME)
        candidates = [folder / NAME for folder in _program_folders()]
        candidates += [Path(on_path)] if on_path else []
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    where = f"{VARIABLE}={named}" if named else "on PATH, and among the programs of this Python"
    raise UsageError(f"the analyzer `{NAME}` is not installed ({where}): {_INSTALL}")


def _program_folders() -> Iterator[Path]:
    """Return the folders of programs, in which the executable may be though PATH does not name them."""
    yield Path(__file__).parent.parent / "bin"
    # PATH lacks this folder if a virtual environment is not activated.
    yield Path(sysconfig.get_path("scripts"))
    # `pip install --user`. An interpreter that ignores packages of the user, as in a virtual environment, ignores programs, too.
    if site.ENABLE_USER_SITE:
        yield Path(sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user")))


def check_analyzer_version(analyzer: Path) -> None:
    """Check that an executable has the version of this package: request and report have no version of their own.

    Args:
        analyzer: Path of the executable.

    Raises:
        UsageError: The executable has another version, or does not run.
    """
    try:
        run = subprocess.run(
            [analyzer, "--version"], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    except OSError as error:
        raise UsageError(f"the analyzer {analyzer} does not run: {error.strerror}") from error
    name, version, *_ = [*run.stdout.decode(errors="replace").split(), "", ""]
    if run.returncode != 0 or name != NAME:
        raise UsageError(
            f"the analyzer {analyzer} does not print its version, so it is not run: {_INSTALL}"
        )
    if version != __version__:
        raise UsageError(
            f"the analyzer {analyzer} has version {version}, and authz has version {__version__}: {_INSTALL}"
        )


def analyzer_request(bundles: Mapping[str, AnalyzerBundle], options: AnalysisOptions) -> bytes:
    """Return the request to the executable, as JSON.

    Args:
        bundles: Bundles by their name in the request: `bundle`, or `old` and `new`.
        options: Settings.
    """
    request = {name: bundle.document() for name, bundle in bundles.items()}
    leases = {} if options.leases is None else {"leases": list(options.leases)}
    return json.dumps({**request, **leases, "options": options.document()}).encode()


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
        UsageError: The executable is not installed, has another version, or fails.
        BundleError: A bundle does not compile.
    """
    analyzer = find_analyzer()
    check_analyzer_version(analyzer)
    run = subprocess.run(
        [analyzer, subcommand],
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

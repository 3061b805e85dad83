"""Workflow commands of GitHub Actions: one line on standard output makes one annotation of a file.

Format: https://docs.github.com/actions/reference/workflow-commands-for-github-actions. The runner reads every line that begins
with `::` as a command, so texts of a bundle are escaped: a line break in a policy's reason must not begin a command of its own.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from authz.analysis.markdown import VERDICT_TEXTS
from authz.analysis.report import FindingSeverity
from authz.analysis.sarif import step_text
from authz.analysis.selection import NO_SOLVER, FindingState, Selection
from authz.model import Diagnostic, Severity

__all__ = [
    "Annotation",
    "AnnotationLevel",
    "analysis_annotations",
    "annotation_lines",
    "diagnostic_annotations",
    "place_in",
    "repository_path",
]

# GitHub shows at most ten annotations of a level for each step, and cuts long messages.
_MOST_MESSAGE: Final = 4_000
_MOST_TITLE: Final = 200


class AnnotationLevel(StrEnum):
    """Level of an annotation."""

    ERROR = "error"
    WARNING = "warning"
    NOTICE = "notice"


_ANALYZE: Final = "authz analyze"
_LEVELS: Final = {
    FindingSeverity.ERROR: AnnotationLevel.ERROR,
    FindingSeverity.WARNING: AnnotationLevel.WARNING,
    FindingSeverity.NOTE: AnnotationLevel.NOTICE,
}


@dataclass(frozen=True, slots=True)
class Annotation:
    """One annotation of a file."""

    level: AnnotationLevel
    message: str
    title: str = ""
    """Heading; may be empty."""
    file: str = ""
    """Path from the root of the repository; empty: the annotation belongs to the run."""
    line: int = 0
    """From 1; 0 where unknown."""
    column: int = 0
    """From 1; 0 where unknown."""


def annotation_lines(annotations: Iterable[Annotation]) -> Iterator[str]:
    """Yield the workflow command of each annotation."""
    for annotation in annotations:
        properties = {
            "file": annotation.file,
            "line": str(annotation.line or ""),
            "col": str(annotation.column or "") if annotation.line else "",
            "title": annotation.title[:_MOST_TITLE],
        }
        given = ",".join(f"{name}={_property(text)}" for name, text in properties.items() if text)
        command = f"{annotation.level} {given}" if given else str(annotation.level)
        yield f"::{command}::{_data(annotation.message[:_MOST_MESSAGE])}"


def diagnostic_annotations(
    found: Iterable[Diagnostic], folder: Path, *, title: str
) -> Iterator[Annotation]:
    """Make an annotation of each diagnostic of a bundle.

    Args:
        found: Errors and warnings. Their files are relative to the bundle.
        folder: Folder of the bundle.
        title: Heading of the annotations, for example `authz check`.
    """
    for one in found:
        is_error = one.severity is Severity.ERROR
        yield Annotation(
            level=AnnotationLevel.ERROR if is_error else AnnotationLevel.WARNING,
            message=" ".join(part for part in (one.what, one.fix) if part),
            title=f"{title}: {one.code}" if one.code else title,
            file=repository_path(folder, one.file) if one.file else "",
            line=one.line,
            column=one.column,
        )


def analysis_annotations(selection: Selection, folder: Path) -> Iterator[Annotation]:
    """Make an annotation of each finding that counts, and of each part of the analysis that is open.

    Args:
        selection: Findings with their states.
        folder: Folder of the bundle.
    """
    if selection.report.solver is None:
        yield Annotation(AnnotationLevel.WARNING, NO_SOLVER, _ANALYZE)
    for entry in selection.expired:
        yield Annotation(AnnotationLevel.WARNING, entry.expired_text, _ANALYZE)
    for group in selection.open_questions():
        yield Annotation(
            level=_LEVELS[group.severity],
            message=f"{group.text}\n{group.places}",
            title=f"{_ANALYZE}: {group.rule}",
        )
    for one in selection.single():
        if one.state is not FindingState.NEW:
            continue
        finding = one.finding
        where = finding.location
        cut = "; ".join(change.text for change in finding.cut.changes) if finding.cut else ""
        parts = (
            f"{finding.message} ({VERDICT_TEXTS[finding.verdict]})",
            f"Why: {finding.reason}" if finding.reason else "",
            *(step_text(step) for step in finding.path),
            f"Cut: {cut}" if cut else "",
        )
        yield Annotation(
            level=_LEVELS[finding.severity],
            message="\n".join(part for part in parts if part),
            title=f"{_ANALYZE}: {finding.rule} {finding.id}",
            file=repository_path(folder, where.file) if where else "",
            line=where.line if where else 0,
            column=where.column if where else 0,
        )


def place_in(folder: Path) -> Callable[[str], str]:
    """Return `repository_path` of one bundle."""
    return lambda file: repository_path(folder, file)


def repository_path(folder: Path, file: str) -> str:
    """Return the path of a bundle's file from the root of the repository, with `/`.

    The root is `GITHUB_WORKSPACE`, or else the working folder. A file outside of it keeps its path.

    Args:
        folder: Folder of the bundle.
        file: Path in the bundle, or the path that the user gave.
    """
    root = Path(os.environ.get("GITHUB_WORKSPACE") or Path.cwd()).resolve()
    path = Path(file)
    # Diagnostics of the folder itself name it as it was given.
    if not path.is_relative_to(folder):
        path = folder / path
    # Links are kept: the repository has the link, and not its target, at this path.
    absolute = Path(os.path.normpath(path.absolute()))
    for base in (root, Path.cwd()):
        if absolute.is_relative_to(base):
            return absolute.relative_to(base).as_posix()
    resolved = absolute.resolve()
    return (resolved.relative_to(root) if resolved.is_relative_to(root) else absolute).as_posix()


def _data(text: str) -> str:
    return _printable(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _printable(text: str) -> str:
    """Replace control and other invisible characters, which could recolour or hide the log."""
    return "".join(one if one.isprintable() or one in "\r\n" else "\ufffd" for one in text)

"""Coverage of a bundle by its tests, as tables and as annotations."""

from collections.abc import Iterator
from pathlib import Path

from authz.bundle import COVERAGE_KINDS, TestCoverage, percent_of
from authz.cli.render.github import Annotation, AnnotationLevel, repository_path
from authz.cli.render.terminal import Terminal

__all__ = ["coverage_annotations", "print_coverage"]


def print_coverage(terminal: Terminal, coverage: TestCoverage) -> None:
    """Print the share of each kind, and every part that no test reaches."""
    rows = []
    for kind, plural in COVERAGE_KINDS.items():
        parts = coverage.of_kind(kind)
        if parts:
            covered = sum(part.is_covered for part in parts)
            share = f"{percent_of(covered, len(parts)):g} %"
            rows.append((_words(plural), f"{covered}/{len(parts)}", share))
    total = len(coverage.parts)
    share = f"{percent_of(coverage.covered, total):g} %"
    rows.append(("all", f"{coverage.covered}/{total}", share))
    terminal.table(("kind", "covered", "share"), rows)
    for part in coverage.uncovered:
        where = f" ({part.place})" if part.place else ""
        terminal.line(f"not covered: {_words(part.kind)} {part.name}{where}: {part.gap}")


def coverage_annotations(coverage: TestCoverage, folder: Path) -> Iterator[Annotation]:
    """Make a notice of each part that no test reaches.

    Args:
        coverage: The coverage.
        folder: Folder of the bundle.
    """
    for part in coverage.uncovered:
        yield Annotation(
            level=AnnotationLevel.NOTICE,
            message=f"{_words(part.kind)} {part.name}: {part.gap}",
            title="authz test: not covered",
            file=repository_path(folder, part.file) if part.file else "",
            line=part.line,
        )


def _words(kind: str) -> str:
    return kind.replace("step_up_", "step-up ").replace("_", " ")

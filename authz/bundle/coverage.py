"""Parts of a bundle that its tests reach, as the engine reports them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from authz.engine import Plan, TestReport

__all__ = [
    "COVERAGE_KINDS",
    "CoveredPart",
    "PartReach",
    "TestCoverage",
    "percent_of",
    "read_coverage",
]

COVERAGE_KINDS: Final = {
    "policy": "policies",
    "operation": "operations",
    "sequence": "sequences",
    "budget": "budgets",
    "template": "templates",
    "tier": "tiers",
    "step_up_kind": "step_up_kinds",
    "destination": "destinations",
    "exception": "exceptions",
}
"""Kinds of parts, as the engine and as the document of the coverage name them, in the order of the document."""

_VERSION: Final = 1


class PartReach(StrEnum):
    """How far the tests of a bundle get to one of its parts."""

    NONE = "none"
    """No decision of a test is about it."""
    JUDGED = "judged"
    """Of a policy: it was judged, and its conditions never held."""
    FIRED = "fired"
    """Of a policy: it fired, and never determined an outcome."""
    REACHED = "reached"
    """A decision depends on it; of a policy: it determined an outcome."""


@dataclass(frozen=True, slots=True)
class CoveredPart:
    """One part of a bundle."""

    kind: str
    """A key of `COVERAGE_KINDS`."""
    name: str
    file: str
    """File in the bundle; empty where no file names the part."""
    line: int
    """From 1; 0 where unknown."""
    effect: str
    """`permit` or `forbid` of a policy; empty for other parts."""
    reach: PartReach
    tests: tuple[str, ...]
    """Names of the first tests that get so far, at most 5."""

    @property
    def is_covered(self) -> bool:
        """True if a decision of a test depends on the part."""
        return self.reach is PartReach.REACHED

    @property
    def place(self) -> str:
        """`file:line`; empty where unknown."""
        return f"{self.file}:{self.line}" if self.file else ""

    @property
    def gap(self) -> str:
        """What the tests lack, in words."""
        if self.kind != "policy":
            return "no test reaches it"
        if self.reach is PartReach.JUDGED:
            return "judged in tests, and its conditions never held"
        if self.reach is PartReach.FIRED:
            return f"the {self.effect} fired in tests, and never determined an outcome"
        return "no test reaches it"


@dataclass(frozen=True, slots=True)
class TestCoverage:
    """Coverage of a bundle by its own tests."""

    __test__ = False

    decisions: int
    """Decisions that the tests asked for."""
    parts: tuple[CoveredPart, ...]
    """Every part, by kind and name."""

    def of_kind(self, kind: str) -> tuple[CoveredPart, ...]:
        """Return the parts of a kind."""
        return tuple(part for part in self.parts if part.kind == kind)

    @property
    def covered(self) -> int:
        """Number of parts that a test reaches."""
        return sum(part.is_covered for part in self.parts)

    @property
    def uncovered(self) -> Iterator[CoveredPart]:
        """Parts that no test reaches."""
        return (part for part in self.parts if not part.is_covered)

    def reaches(self, percent: float) -> bool:
        """Return whether the tests reach at least a share of all parts.

        Args:
            percent: The share, 0 to 100.
        """
        return self.covered * 100 >= percent * len(self.parts)

    def document(self, plan: Plan) -> dict[str, Any]:
        """Return the coverage as a JSON object.

        Args:
            plan: The plan whose tests ran.
        """
        return {
            "version": _VERSION,
            "bundle": plan.identity,
            "decisions": self.decisions,
            **_totals(self.parts),
            "kinds": {
                plural: {
                    **_totals(self.of_kind(kind)),
                    "parts": [_part_document(part) for part in self.of_kind(kind)],
                }
                for kind, plural in COVERAGE_KINDS.items()
            },
        }


def percent_of(covered: int, total: int) -> float:
    """Return a share in percent with one decimal, rounded down: only a whole coverage is 100."""
    return covered * 1000 // total / 10 if total else 100.0


def _totals(parts: tuple[CoveredPart, ...]) -> dict[str, Any]:
    covered = sum(part.is_covered for part in parts)
    return {
        "covered": covered,
        "total": len(parts),
        "percent": percent_of(covered, len(parts)),
    }


def _part_document(part: CoveredPart) -> dict[str, Any]:
    effect = {"effect": part.effect} if part.effect else {}
    return {
        "name": part.name,
        "file": part.file,
        "line": part.line,
        **effect,
        "reach": str(part.reach),
        "tests": list(part.tests),
    }


def read_coverage(report: TestReport) -> TestCoverage:
    """Return the coverage of a bundle, from the engine's report of a run that was asked for it."""
    document: Mapping[str, Any] = report.document["coverage"]
    rows: list[Mapping[str, Any]] = document["parts"]
    return TestCoverage(
        int(document["decisions"]),
        tuple(
            CoveredPart(
                kind=str(row["kind"]),
                name=str(row["name"]),
                file=str(row["file"]),
                line=int(row["line"]),
                effect=str(row["effect"]),
                reach=PartReach(row["reach"]),
                tests=tuple(map(str, row["tests"])),
            )
            for row in rows
        ),
    )

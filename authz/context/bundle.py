"""From a bundle's files to a plan that has passed the bundle's own tests."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from authz.engine import Plan, TestReport
from authz.errors import BundleTestError
from authz.model import BundleFiles, Diagnostic

__all__ = ["CaseResult", "Compiled", "compile_bundle", "own_tests"]


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What one test of a bundle came to."""

    name: str
    """Its name."""
    file: str
    """Its file."""
    line: int
    """Its line."""
    passed: bool
    """It passed."""
    message: str
    """How it failed."""

    def defect(self) -> Diagnostic:
        """Tell the failure.

        Returns:
            What, where, how to mend.
        """
        what = f"test `{self.name}` fails: {self.message}"
        return Diagnostic(what, self.file, self.line, mend="Mend the policy, or the test.")


@dataclass(frozen=True, slots=True)
class Compiled:
    """A plan that may serve."""

    plan: Plan
    """The plan."""
    tests: int
    """How many of its own tests passed."""


def compile_bundle(
    bundle: BundleFiles, variables: Mapping[str, str], now_ms: int, previous: Plan | None = None
) -> Compiled:
    """Compile a bundle and run its own tests.

    Args:
        bundle: Its files.
        variables: Values of `${…}`.
        now_ms: The time that the tests see.
        previous: The plan before, which saves work.

    Returns:
        The plan.

    Raises:
        BundleError: It does not compile.
        BundleTestError: A test of its own fails.
    """
    plan = Plan.compile(bundle, variables, previous)
    results = own_tests(plan.test(bundle, now_ms))
    failed = tuple(result.defect() for result in results if not result.passed)
    if failed:
        raise BundleTestError(failed)
    return Compiled(plan, len(results))


def own_tests(report: TestReport) -> tuple[CaseResult, ...]:
    """Read what a bundle's tests came to.

    Args:
        report: The engine's report.

    Returns:
        One result a test.
    """
    cases: list[dict[str, Any]] = list(report.document.get("cases", ()))
    return tuple(
        CaseResult(
            str(case.get("name", "")),
            str(case.get("file", "")),
            int(case.get("line") or 0),
            # Whatever does not say that it passed has failed.
            passed=case.get("passed") is True,
            message=str(case.get("message", "")),
        )
        for case in cases
    )

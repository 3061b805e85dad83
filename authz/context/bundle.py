"""From a bundle's files to a plan that has passed the bundle's own tests."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from authz.engine import Plan, TestReport
from authz.errors import BundleTestsFailed
from authz.model import BundleFiles, Diagnostic

__all__ = ["Compiled", "compile_bundle", "own_tests"]


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
        BundleTestsFailed: A test of its own fails.
    """
    plan = Plan.compile(bundle, variables, previous)
    passed, failed = own_tests(plan.test(bundle, now_ms))
    if failed:
        raise BundleTestsFailed(failed)
    return Compiled(plan, passed)


def own_tests(report: TestReport) -> tuple[int, tuple[Diagnostic, ...]]:
    """Read what a bundle's tests came to.

    Args:
        report: The engine's report.

    Returns:
        How many passed, and one defect for each that failed.
    """
    passed = 0
    failed: list[Diagnostic] = []
    cases: list[dict[str, Any]] = list(report.document.get("cases", ()))
    for case in cases:
        if case.get("passed"):
            passed += 1
            continue
        failed.append(
            Diagnostic(
                f"test `{case.get('name', '')}` fails: {case.get('message', '')}",
                str(case.get("file", "")),
                int(case.get("line") or 0),
                mend="Mend the policy, or the test.",
            )
        )
    return passed, tuple(failed)

"""Compiles the files of a bundle to a plan that has passed the bundle's own tests."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from authz.engine import Plan, TestReport, with_sources
from authz.errors import BundleTestError
from authz.model import BundleFiles, Diagnostic

__all__ = ["CompiledBundle", "TestFailure", "TestResults", "compile_bundle", "read_results"]


@dataclass(frozen=True, slots=True)
class TestFailure:
    """A failed step of a test, or a test file that cannot be read."""

    __test__ = False

    test: str
    """Name of the test; empty for a file that cannot be read."""
    step: int
    """Number of the step, from 1."""
    file: str
    """The test file."""
    line: int
    """Line of the step."""
    expected: str
    """Expected decision."""
    actual: str
    """Actual decision."""
    message: str
    """Cause of the failure."""

    def diagnostic(self) -> Diagnostic:
        """Return the failure as a diagnostic."""
        if not self.test:
            return Diagnostic(self.message)
        what = f"test `{self.test}`, step {self.step}: expected {self.expected}; got {self.actual}."
        cause = f" {self.message[:1].upper()}{self.message[1:]}." if self.message else ""
        return Diagnostic(what + cause, self.file, self.line, fix="Fix the policy, or the test.")


@dataclass(frozen=True, slots=True)
class TestResults:
    """Results of a bundle's tests."""

    __test__ = False

    passed: int
    """Steps that passed."""
    skipped: int
    """Tests that only a server can run."""
    failures: tuple[TestFailure, ...]
    """Failed steps."""
    omitted: int
    """Number of further failures."""

    @property
    def failed(self) -> int:
        """Number of failures."""
        return len(self.failures) + self.omitted

    def check(self, files: Mapping[str, bytes]) -> None:
        """Raise BundleTestError if a test failed.

        Args:
            files: Contents of the bundle's files, for the lines that the failures are about.
        """
        if self.failed:
            more = (Diagnostic(f"{self.omitted} more failures."),) if self.omitted else ()
            failures = with_sources((failure.diagnostic() for failure in self.failures), files)
            raise BundleTestError((*failures, *more))


@dataclass(frozen=True, slots=True)
class CompiledBundle:
    """A plan that may serve."""

    plan: Plan
    """The plan."""
    tests: TestResults
    """Results of its own tests: none failed."""


def compile_bundle(
    bundle: BundleFiles, variables: Mapping[str, str], now_ms: int, previous: Plan | None = None
) -> CompiledBundle:
    """Compile a bundle and run its own tests.

    Args:
        bundle: Files of the bundle.
        variables: Values of `${…}`.
        now_ms: Unix time in milliseconds, for the tests and for the ends of `mode`.
        previous: The plan before. Parts that did not change are not compiled again.

    Raises:
        BundleError: The bundle does not compile.
        BundleTestError: One of its own tests fails.
    """
    plan = Plan.compile(bundle, variables, previous, now_ms=now_ms)
    tests = read_results(plan.test(bundle, now_ms))
    tests.check(bundle.files)
    return CompiledBundle(plan, tests)


def read_results(report: TestReport) -> TestResults:
    """Return the results of a bundle's tests, from the engine's report."""
    document = report.document
    rows: list[dict[str, Any]] = list(document["failed"])
    failures = tuple(
        TestFailure(
            test=str(row["test"]),
            step=int(row["step"]),
            file=str(row["file"]),
            line=int(row["line"]),
            expected=str(row["expected"]),
            actual=str(row["actual"]),
            message=str(row["message"]),
        )
        for row in rows
    )
    return TestResults(
        int(document["passed"]), int(document["skipped"]), failures, int(document["omitted"])
    )

"""From a bundle's files to a plan that has passed the bundle's own tests."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from authz.engine import Plan, TestReport
from authz.errors import BundleTestError
from authz.model import BundleFiles, Diagnostic

__all__ = ["CompiledBundle", "TestFailure", "TestResults", "compile_bundle", "read_results"]


@dataclass(frozen=True, slots=True)
class TestFailure:
    """A step of a test that did not come out as expected, or a test file that cannot be read."""

    __test__ = False

    test: str
    """Name of the test; empty where the file cannot be read."""
    step: int
    """Which step, from 1."""
    file: str
    """Its file."""
    line: int
    """Its line."""
    expected: str
    """What was expected."""
    actual: str
    """What came instead."""
    message: str
    """What happened."""

    def diagnostic(self) -> Diagnostic:
        """Tell the failure.

        Returns:
            What, where, how to mend.
        """
        if not self.test:
            return Diagnostic(self.message)
        what = f"test `{self.test}`, step {self.step}: expected {self.expected}; got {self.actual}."
        said = f" {self.message[:1].upper()}{self.message[1:]}." if self.message else ""
        return Diagnostic(what + said, self.file, self.line, mend="Mend the policy, or the test.")


@dataclass(frozen=True, slots=True)
class TestResults:
    """What a bundle's tests came to."""

    __test__ = False

    passed: int
    """Steps that came out as expected."""
    skipped: int
    """Tests that only a server can run."""
    failures: tuple[TestFailure, ...]
    """What did not."""
    omitted: int
    """Failures beyond those listed."""

    @property
    def failed(self) -> int:
        """How many failed."""
        return len(self.failures) + self.omitted

    def check(self) -> None:
        """Refuse a bundle of which a test fails.

        Raises:
            BundleTestError: One does.
        """
        if self.failed:
            more = (Diagnostic(f"{self.omitted} more failures."),) if self.omitted else ()
            raise BundleTestError((*(failure.diagnostic() for failure in self.failures), *more))


@dataclass(frozen=True, slots=True)
class CompiledBundle:
    """A plan that may serve."""

    plan: Plan
    """The plan."""
    tests: TestResults
    """What its own tests came to: none failed."""


def compile_bundle(
    bundle: BundleFiles, variables: Mapping[str, str], now_ms: int, previous: Plan | None = None
) -> CompiledBundle:
    """Compile a bundle and run its own tests.

    Args:
        bundle: Its files.
        variables: Values of `${…}`.
        now_ms: The time that the tests see, and that the ends of `mode` are held against.
        previous: The plan before, which saves work.

    Returns:
        The plan.

    Raises:
        BundleError: It does not compile.
        BundleTestError: A test of its own fails.
    """
    plan = Plan.compile(bundle, variables, previous, now_ms=now_ms)
    tests = read_results(plan.test(bundle, now_ms))
    tests.check()
    return CompiledBundle(plan, tests)


def read_results(report: TestReport) -> TestResults:
    """Read what a bundle's tests came to.

    Args:
        report: The engine's report.

    Returns:
        The same as values.
    """
    document = report.document
    listed: list[dict[str, Any]] = list(document["failed"])
    failures = tuple(
        TestFailure(
            test=str(one["test"]),
            step=int(one["step"]),
            file=str(one["file"]),
            line=int(one["line"]),
            expected=str(one["expected"]),
            actual=str(one["actual"]),
            message=str(one["message"]),
        )
        for one in listed
    )
    return TestResults(
        int(document["passed"]), int(document["skipped"]), failures, int(document["omitted"])
    )

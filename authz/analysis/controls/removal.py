"""Leaves out one policy of a bundle after the other, and runs the tests of the bundle without it.

The tests of a bundle defend a policy if one of them fails without it. A policy that no test defends can be deleted, and nothing
tells.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Final

from authz.bundle import read_results
from authz.engine import Plan
from authz.errors import BundleError
from authz.model import BundleFiles

__all__ = ["Removal", "remove_policies"]

# The engine compiles and runs tests without Python's lock, so threads run on several cores.
_MOST_WORKERS: Final = 4


@dataclass(frozen=True, slots=True)
class Removal:
    """Result of the tests of a bundle without one policy."""

    test: str = ""
    """Name of the first test that fails; empty: no test fails."""
    file: str = ""
    """File of that test."""
    line: int = 0
    """Line of the step that fails."""
    refused: str = ""
    """Why the bundle is not valid without the policy; then no test ran."""

    @property
    def is_defended(self) -> bool:
        """True if a test fails without the policy."""
        return bool(self.test)


def remove_policies(
    plan: Plan,
    bundle: BundleFiles,
    policies: Iterable[str],
    now_ms: int,
    progress: Callable[[], None] = lambda: None,
) -> Mapping[str, Removal]:
    """Run the tests of a bundle without each of its policies: one compilation and at most one run of the tests for each.

    Args:
        plan: The plan of the whole bundle, whose tests pass.
        bundle: Files of the bundle.
        policies: Ids of the policies that are left out, one at a time.
        now_ms: Time of the tests: Unix time in milliseconds.
        progress: Called after each policy.

    Returns:
        The result of each policy.
    """
    ids = tuple(dict.fromkeys(policies))
    results: dict[str, Removal] = {}
    with ThreadPoolExecutor(min(_MOST_WORKERS, os.cpu_count() or 1)) as pool:
        runs = {pool.submit(_without, plan, bundle, id_, now_ms): id_ for id_ in ids}
        for run in as_completed(runs):
            results[runs[run]] = run.result()
            progress()
    return {id_: results[id_] for id_ in ids}


def _without(plan: Plan, bundle: BundleFiles, policy: str, now_ms: int) -> Removal:
    try:
        reduced = plan.without(bundle, policy, now_ms)
    except BundleError as error:
        return Removal(refused=str(error.diagnostics[0]))
    tests = read_results(reduced.test(bundle, now_ms, stops_at_failure=True))
    # A file that cannot be read has no name, and no test of it ran.
    failure = next((one for one in tests.failures if one.test), None)
    if failure is None:
        return Removal()
    return Removal(failure.test, failure.file, failure.line)

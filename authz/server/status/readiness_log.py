"""Says in the log when the node ceases to be ready, is ready again, or has a new problem: who only reads logs sees it too."""

import re
from collections.abc import Callable
from typing import Final

from authz.server.status.readiness import ReadinessReport
from authz.telemetry import Logger

__all__ = ["ReadinessLog"]

_NUMBER: Final = re.compile(r"\d+")
_MAX_PROBLEMS: Final = 20


class ReadinessLog:
    """Compares how the node stands with how it stood.

    Args:
        report: Tells how it stands.
        log: Where a change is said.
    """

    def __init__(self, report: Callable[[], ReadinessReport], log: Logger) -> None:
        self._report = report
        self._log = log
        self._ready: bool | None = None
        self._known: frozenset[str] = frozenset()

    def log_changes(self) -> None:
        """Say what has changed since the last look; at the first nothing is new."""
        try:
            report = self._report()
            ready, problems = report.ready, report.problems
        except Exception as error:  # noqa: BLE001 - whatever it is, the node serves on, and the log has it
            ready, problems = False, (f"how the node stands cannot be told: {error}",)
        # A problem whose numbers move is the same one.
        kinds = {_NUMBER.sub("#", problem): problem for problem in problems}
        new = [problem for kind, problem in kinds.items() if kind not in self._known]
        if self._ready is not None and ready != self._ready:
            if ready:
                self._log.info("is ready", problems=list(problems[:_MAX_PROBLEMS]))
            else:
                self._log.error("is not ready", problems=list(problems[:_MAX_PROBLEMS]))
        elif self._ready is not None and new:
            self._log.warning("new problems", problems=new[:_MAX_PROBLEMS])
        self._ready, self._known = ready, frozenset(kinds)

"""Logs changes of readiness: the node is not ready, is ready again, or has a new problem."""

import re
from collections.abc import Callable
from typing import Final

from authz.server.status.readiness import ReadinessReport
from authz.telemetry import Logger

__all__ = ["ReadinessLog"]

_NUMBER: Final = re.compile(r"\d+")
_MAX_PROBLEMS: Final = 20


class ReadinessLog:
    """Compares each report with the one before.

    Args:
        report: Returns the report of readiness.
        log: Receives a line for each change.
    """

    def __init__(self, report: Callable[[], ReadinessReport], log: Logger) -> None:
        self._report = report
        self._log = log
        self._ready: bool | None = None
        self._kinds: frozenset[str] = frozenset()

    def log_changes(self) -> None:
        """Log the changes since the last call; the first call logs none."""
        try:
            report = self._report()
            ready, problems = report.ready, report.problems
        except Exception as error:  # noqa: BLE001 - the node serves on, and the log has the error
            ready, problems = False, (f"the report of readiness failed: {error}",)
        # A problem in which only numbers changed is the same problem.
        kinds = {_NUMBER.sub("#", problem): problem for problem in problems}
        new = [problem for kind, problem in kinds.items() if kind not in self._kinds]
        if self._ready is not None and ready != self._ready:
            if ready:
                self._log.info("is ready", problems=list(problems[:_MAX_PROBLEMS]))
            else:
                self._log.error("is not ready", problems=list(problems[:_MAX_PROBLEMS]))
        elif self._ready is not None and new:
            self._log.warning("new problems", problems=new[:_MAX_PROBLEMS])
        self._ready, self._kinds = ready, frozenset(kinds)

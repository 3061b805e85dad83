"""Does the work that is due in the store: expire tasks, count unreported permits as done, forget ended task trees.

No decision depends on the sweep, since each compares the time itself. The sweep only keeps the store small, so a failure is
logged once and tried again.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from authz.periodic import PeriodicThread
from authz.telemetry import Logger

__all__ = ["Sweep"]

_SECONDS: Final = 1.0


class Sweep:
    """Calls the engine's sweep each second, and at once while more work is due.

    Args:
        sweep: Does a bounded part of the work; returns `more` and `error`, of `Engine.sweep`.
        log: Receives a line when the store fails, and when it works again.
    """

    def __init__(self, sweep: Callable[[], Mapping[str, Any]], log: Logger) -> None:
        self._sweep = sweep
        self._log = log
        self._is_failing = False
        self._thread = PeriodicThread(
            "sweep", self._run_once, _SECONDS, lambda error: self._log_change(str(error))
        )

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        self._thread.close(10)

    def _run_once(self) -> float | None:
        result = self._sweep()
        self._log_change(str(result["error"]))
        return 0.0 if result["more"] else None

    def _log_change(self, error: str) -> None:
        if error and not self._is_failing:
            self._log.warning("the sweep of the store failed; trying again", error=error)
        if self._is_failing and not error:
            self._log.info("the sweep of the store works again")
        self._is_failing = bool(error)
